"""How soon a command answers, and how much memory it takes: help, completion, mistakes, status.

    python benchmarks/startup.py [PROGRAM ...]

Seconds, and seconds of the processor (which other programs do not disturb), are medians of RUNS calls after one that
warms the disk's cache; megabytes are the largest resident size.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 5
COMMANDS = (
    "site-agent --version",
    "site-agent --help",
    "site-agent TAB",
    "site-agent cheque",
    "site-agent doctor --home HOME --hardwear",
    "site-agent doctor --home NONE",
    "site-agent pretrain --home NONE",
    "site-agent finetune --home NONE",
    "site-agent sweep --home NONE",
    "site-agent evaluate --home NONE",
    "site-agent predict ssl x.png --home NONE",
    "site-agent join none.toml --home NONE",
    "site-agent data check none.csv",
    *(
        f"site-agent {name} --help"
        for name in ("join", "check", "pretrain", "finetune", "sweep", "evaluate", "predict")
    ),
    *(f"site-agent data {name} --help" for name in ("check", "sheet", "phantom")),
    "cervix-study --help",
    "cervix-study TAB",
    "cervix-study repotr",
    *(f"cervix-study {name} --help" for name in ("run", "report", "export")),
    "cervix-study run none.toml",
    "cervix-study report none",
    "cervix-study export none --to out",
    "coordinator --help",
    "coordinator TAB",
    "coordinator strat",
    *(f"coordinator {name} --help" for name in ("init", "invite", "start", "status", "revoke", "export")),
    "coordinator status --home NONE",
    "coordinator status --home HOME",
)


def measured(command: str, folder: Path) -> tuple[float, float, float, int]:
    """Return (seconds, seconds of the processor, megabytes, exit code) of one call."""
    program, *words = command.replace("NONE", str(folder / "none")).replace("HOME", str(folder / "home")).split()
    environment = dict(os.environ)
    if words == ["TAB"]:
        name = program.upper().replace("-", "_")
        environment |= {f"_{name}_COMPLETE": "bash_complete", "COMP_WORDS": f"{program} ", "COMP_CWORD": "1"}
        words = []
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [Path(sys.executable).with_name(program), *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds, cpu_s = time.perf_counter() - started_s, usage.ru_utime + usage.ru_stime
    return seconds, cpu_s, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def main() -> None:
    chosen = [command for command in COMMANDS if not sys.argv[1:] or command.split()[0] in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [Path(sys.executable).with_name("coordinator"), "--home", folder / "home", "init"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        print("| command | seconds | of the processor | MB | exit code |\n|---|---|---|---|---|")
        for command in chosen:
            calls = [measured(command, folder) for _ in range(RUNS + 1)][1:]
            seconds, cpu_s = (statistics.median(call[k] for call in calls) for k in (0, 1))
            megabytes = max(call[2] for call in calls)
            print(f"| `{command}` | {seconds:.2f} | {cpu_s:.2f} | {megabytes:.0f} | {calls[0][3]} |", flush=True)


if __name__ == "__main__":
    main()
