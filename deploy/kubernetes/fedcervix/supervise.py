"""What the container runs.

    supervise.py maintenance | coordinator | site-statefulset | site-job

Kubernetes starts a program again after every end, whatever its code. These programs end when a run has ended, or when a
person must act; then this one says so and waits, so that `kubectl exec` works. After a failure that a restart may mend
(a full disk, a lost process) it ends with the program's code, and Kubernetes starts it again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

PROGRAMS = {
    "coordinator": ("coordinator", "start"),
    "site-statefulset": ("site-agent",),
    "site-job": ("site-agent",),
}
PERSON_ACTS = {
    "coordinator": {2, 3, 4, 5, 6, 10, 13, 14},
    "site-statefulset": {2, 3, 4, 5, 6, 10, 14, 21},
    "site-job": set(),
}
"""exit codes after which a restart does not help (deploy/RUNBOOK.md, 12); a Job ends for good by its own rules"""
NO_RUN = {0, 11, 20, 21}
"""exit codes of a coordinator that has no run to continue"""


class Supervisor:
    """One program, and the wish to stop it."""

    def __init__(self) -> None:
        self._program: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: self._stop())

    def _stop(self) -> None:
        self._stopped.set()
        if self._program is not None:
            self._program.send_signal(signal.SIGTERM)

    def run(self, kind: str) -> int:
        """Run the program of a kind; return the code to end with."""
        if kind == "maintenance":
            return self._wait("maintenance: work in this pod with kubectl exec")
        self._program = subprocess.Popen(PROGRAMS[kind])
        if self._stopped.is_set():  # meanwhile
            self._program.send_signal(signal.SIGTERM)
        code = self._program.wait()
        if self._stopped.is_set():
            return code
        if kind == "coordinator" and code in NO_RUN:
            next_step = "kubectl exec POD -- coordinator begin --mode csfssl; then delete this pod"
            return self._wait(f"no run to continue (exit code {code}). Begin one: {next_step}")
        if code in PERSON_ACTS[kind]:
            next_step = "Mend it with kubectl exec, then delete this pod"
            return self._wait(f"a person must act (exit code {code}, see the lines above). {next_step}")
        return 0 if code == 20 else code

    def _wait(self, why: str) -> int:
        print(f"fedcervix: {why}", file=sys.stderr, flush=True)  # noqa: T201  (its log)
        self._stopped.wait()
        return 0


if __name__ == "__main__":
    sys.exit(Supervisor().run(sys.argv[1]))
