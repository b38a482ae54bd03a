"""Everything that needs a GPU, in one call of at most nine minutes: `make gpu`.

The tests that are marked `gpu`, then what the benchmarks of training and fine-tuning measure on it. Each part has a
limit; what a part has printed when it is stopped stands. A table at the end says how each part ended. Tests that were
skipped are listed with their reasons, and where torch sees no GPU nothing is run and nothing passes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from fedcervix.errors import ConfigError
from fedcervix.runtime.cli_runtime import exits
from fedcervix.runtime.printing import say
from tools.programs import ROOT

WHOLE_S = 540
"""of all parts together"""
INTERRUPTED_S = 10
"""within which a part that was interrupted says what it has found"""
ROWS = ("resnet18/64/8", "resnet18/64/32", "efficientnet_lite0/128/32")
CLASSIFIERS = ("resnet18/64", "efficientnet_lite0/128")


@dataclass(frozen=True, slots=True)
class Part:
    """A program, and how long it may take."""

    name: str
    command: tuple[str, ...]
    limit_s: int


def parts(folder: Path | None) -> tuple[Part, ...]:
    """Return all parts; the benchmarks write their figures into `folder`."""
    python = sys.executable

    def benchmark(program: str, rows: Sequence[str], *more: str) -> tuple[str, ...]:
        kept = ("--json", str(folder / f"{program}-gpu.json")) if folder else ()
        return (python, f"benchmarks/{program}.py", "--quick", "--device", "cuda", *more, *kept, "--rows", *rows)

    return (
        Part("tests", (python, "-m", "pytest", "-m", "gpu", "-v", "-rsfE", "-p", "no:cacheprovider"), 250),
        Part("training", benchmark("trainer", ROWS, "--alone"), 180),
        Part("fine-tuning", benchmark("finetune", CLASSIFIERS), 70),
    )


def run(part: Part) -> str:
    """Run a part to its end or its limit; return how it ended. What it prints goes where ours goes."""
    program = subprocess.Popen(part.command, cwd=ROOT, start_new_session=True)
    try:
        code = program.wait(part.limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGINT)  # pytest then lists what it has found
        try:
            program.wait(INTERRUPTED_S)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        return f"stopped after {part.limit_s} s: what follows its last line above was not run"
    return "passed" if code == 0 else f"failed: exit code {code}"


def run_all(chosen: Sequence[Part]) -> bool:
    """Run parts, print how each ended, and say whether all passed."""
    ended: list[tuple[Part, str, float]] = []
    for part in chosen:
        say(f"--- {part.name}: at most {part.limit_s} s")
        started_s = time.monotonic()
        ended.append((part, run(part), time.monotonic() - started_s))
    say("")
    for part, how, took_s in ended:
        say(f"{part.name:12} {took_s:4.0f} s  {how}")
    return all(how == "passed" for _, how, _ in ended)


@click.command()
@click.option("--json", "folder", type=click.Path(path_type=Path, file_okay=False), help="keep the figures here")
def main(folder: Path | None) -> None:
    """Run everything that needs a GPU."""
    import torch  # which takes seconds

    if not torch.cuda.is_available():
        raise ConfigError(
            "torch sees no GPU: none of the tests and benchmarks that need one was run",
            cause="no NVIDIA driver, no GPU in this container, or a torch built for the CPU",
            next_step="nvidia-smi",
        )
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if run_all(parts(folder)) else 1)


if __name__ == "__main__":
    exits(main)
