"""What is compared: sides that take turns in one process, told as medians and ratios.

Rules
1. Turns go A B C, A B C, ...: a machine that slows down slows every side. Between two turns nothing runs for a moment,
   so that the threads of one side have come to rest before the next is timed.
2. A ratio is the median of the turns' ratios. Absolute times do not travel between machines; ratios mostly do.
3. A side runs whole steps and returns when its device is done. It has been warmed up before its first turn.
4. What was not measured says why.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision

REST_S = 0.2
SLOW_S = 5.0
"""a first step longer than this is taken for a step's time: on a CPU the second is as long"""

Run = Callable[[int], float | None]
"""runs so many steps, and waits for them; may return the seconds that count, where not all do"""
Clock = Callable[[], float]
Rates = Mapping[str, Sequence[float]]
"""side -> items per second, turn by turn"""


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared."""

    name: str
    run: Run
    items: int
    """views or images in a step"""
    steps: int
    """of one turn"""


def in_turn(
    sides: Sequence[Side], turns: int, *, clock: Clock = time.perf_counter, rest: Callable[[float], None] = time.sleep
) -> dict[str, list[float]]:
    """Let every side take `turns` turns; return each one's items per second, turn by turn."""
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(turns):
        for side in sides:
            rest(REST_S)
            rates[side.name].append(side.steps * side.items / seconds(side.run, side.steps, clock))
    return rates


def seconds(run: Run, steps: int, clock: Clock = time.perf_counter) -> float:
    """Return how long so many steps take."""
    started = clock()
    counted = run(steps)
    return clock() - started if counted is None else counted


def pace(run: Run, chunk: int, least_s: float, clock: Clock = time.perf_counter) -> float:
    """Return steps per second, from as many chunks of steps as fill `least_s`."""
    started, steps = clock(), 0
    while clock() - started < least_s:
        run(chunk)
        steps += chunk
    return steps / (clock() - started)


def warmed(run: Run, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Warm a side up with a step or more; return the seconds of a step afterwards."""
    first = seconds(run, 1, clock)
    if first > SLOW_S and device.type == "cpu":
        return first
    return seconds(run, 2, clock) / 2


def steps_for(step_s: float, turn_s: float, *, multiple: int = 1, most: int | None = None) -> int:
    """Return how many steps make a turn of about `turn_s`: at least one, at most `most`, a multiple of `multiple`."""
    wanted = max(1, math.ceil(turn_s / step_s))
    if most is not None:
        wanted = max(1, min(wanted, most))
    return math.ceil(wanted / multiple) * multiple


def turns_for(round_s: float, row_s: float, fewest: int, most: int) -> int:
    """Return how many rounds of turns fit into a row's time, between `fewest` and `most`."""
    return min(most, max(fewest, int(row_s / round_s)))


def ratio(rates: Rates, side: str, to: str) -> float:
    """Return how many times as fast `side` is as `to`: the median over turns."""
    return statistics.median(a / b for a, b in zip(rates[side], rates[to], strict=True))


def overhead(rates: Rates, side: str, limit: str) -> float:
    """Return the share of time that `side` takes on top of `limit`: .05 is 5 %."""
    return ratio(rates, limit, side) - 1


def medians(rates: Rates) -> dict[str, float]:
    """Return every side's items per second."""
    return {name: statistics.median(turns) for name, turns in rates.items()}


def why_not(predicted_s: float, row_limit_s: float, needs_bytes: float, has_bytes: float) -> str | None:
    """Return why a row is left out, or None if it is measured."""
    if needs_bytes > has_bytes:
        return f"needs about {needs_bytes / 1e9:.0f} GB of memory, {has_bytes / 1e9:.0f} GB are free"
    if predicted_s > row_limit_s:
        return f"would take about {predicted_s:.0f} s, the limit is {row_limit_s:.0f} s (--row-seconds)"
    return None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns also line up in a terminal."""
    widths = [max(len(line[k]) if k < len(line) else 0 for line in (head, *rows)) for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip([*cells, *[""] * len(head)], widths, strict=False)]
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what was measured on; nothing in it names a person or a folder."""
    about = _processor()
    return {
        "processor": about.get("model name", platform.processor() or platform.machine()),
        "bfloat16_instructions": [
            flag for flag in ("avx512_bf16", "amx_bf16") if flag in about.get("flags", "").split()
        ],
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> dict[str, str]:
    """Return what Linux says of the (last) processor; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def write(file: Path | None, found: Mapping[str, Any]) -> None:
    """Write the JSON, where one was asked for; after every row, so that a run that is stopped leaves its rows."""
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return torch's own autocast to bfloat16, or nothing for float32: as any loop would write it."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()
