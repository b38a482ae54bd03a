"""The demo ends its own processes, and its exit code is that of what it did: also where a page was open."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "deploy" / "demo.sh"
PAGE = "bash -c 'trap \"exit 130\" TERM; echo up; while :; do read -rt 0.05 <> <(:) || true; done' > >(read -r; cat) &"


@pytest.mark.parametrize("code", [0, 3])
def test_ending_the_page_changes_no_exit_code(code: int) -> None:
    text = DEMO.read_text()
    cleaning = text[text.index("\nstarted=()") : text.index("trap finish EXIT")]
    program = f"set -euo pipefail\n{cleaning}trap finish EXIT\n{PAGE}\npage_pid=$!\nexit {code}\n"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (code, "")
