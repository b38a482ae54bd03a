"""Make the job of NVIDIA FLARE that only moves and averages, and submit it.

python job.py KIT FIRST TIMES SITES ROUNDS
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from noting import Noting
from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.fuel.utils.constants import FrameworkType
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import ScriptRunner

NAME = "moving"
SITES_S, POLL_S = 60.0, 0.5
"""how long sites may take to join"""


def main() -> None:
    """Submit one job; it runs on by itself."""
    kit, first, times, sites, rounds = sys.argv[1:]
    job = FedJob(NAME, min_clients=int(sites))
    job.to_server(Noting(first, times, int(sites), int(rounds)))
    job.to_clients(ScriptRunner(str(Path(__file__).with_name("client.py")), framework=FrameworkType.NUMPY))
    with tempfile.TemporaryDirectory() as folder:
        job.export_job(folder)
        session = new_secure_session(Path(kit).name, kit)
        try:
            deadline_s = time.monotonic() + SITES_S
            while len(session.get_system_info().client_info) < int(sites) and time.monotonic() < deadline_s:
                time.sleep(POLL_S)
            session.submit_job(f"{folder}/{NAME}")
        finally:
            session.close()


if __name__ == "__main__":
    main()
