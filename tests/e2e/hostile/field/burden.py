"""Takes processor time, evenly, and attacks nobody: as much as an attacker takes of the machine that all share here.

python -m tests.e2e.hostile.field.burden --seconds S --share X
"""

from __future__ import annotations

import argparse
import time

TURN_S = 0.05


def main() -> None:
    """Take a share of one processor."""
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, required=True)
    options.add_argument("--share", type=float, required=True)
    given = options.parse_args()
    begun_s = time.monotonic()
    while (passed_s := time.monotonic() - begun_s) < given.seconds:
        if time.process_time() > given.share * passed_s:
            time.sleep(TURN_S)


if __name__ == "__main__":
    main()
