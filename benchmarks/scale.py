"""What do many sites, or a large model, cost the coordinator? Its memory and the time of a round.

    python benchmarks/scale.py [--quick] [--json FILE] [--rows ResNet-50/64 ...] [--folder FOLDER]

The real coordinator, with everything durable and verified; the sites are real links over mutual TLS, many in a process
(light_clients.py). All of them upload at once: that is the worst that a round can bring. Only the coordinator's models
are durable here, for 64 sites on one disk would measure the disk.

A row is PAYLOAD/SITES. Memory is the coordinator's most at any moment, anonymous: what the process itself fills.
Seconds are from one average to the next. A row for which the disk has no room says so.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import begins_with, command
from benchmarks.federations import Federation, Processes, Row, federation, intervals_s
from benchmarks.payloads import LARGE, RESNET50
from benchmarks.readings import Watch, use
from benchmarks.sides import machine, table, write

CLIENT_PROCESSES = 2
MODELS_BESIDE_UPDATES = 12
"""on the disk: first model, base, layout, average, best, and what the sites share"""
LIMIT_S = 1800.0
HEAD = ("row", "s a round", "s a site", "coordinator: MB", "CPU s a round")


ROWS = (*(Row(RESNET50, sites, 4) for sites in (2, 4, 8, 16, 32, 64)), Row(LARGE, 2, 3))
QUICK = (Row(RESNET50, 2, 3), Row(RESNET50, 8, 3))


@dataclass(frozen=True, slots=True)
class Found:
    """What a row took."""

    row: str
    rounds_s: list[float]
    peak_bytes: int
    """of the coordinator"""
    cpu_s: float
    """of the coordinator, a round"""


def measure(row: Row, below: Path | None) -> Found:
    """Let a federation run to its end."""
    with federation(below, row.sites, row.payload, row.rounds) as made, Processes(made.folder) as processes:
        port = made.coordinate(processes)
        for number in range(min(CLIENT_PROCESSES, row.sites)):
            sites = made.sites[number::CLIENT_PROCESSES]
            processes.start(f"clients{number}", "benchmarks.light_clients", made.folder, *sites)
        with Watch({"coordinator": processes.pids()["coordinator"]}, port) as watch:
            for name in processes.running:
                processes.finish(name, LIMIT_S)
        return _summed(row, made, watch)


def _summed(row: Row, made: Federation, watch: Watch) -> Found:
    if made.outcome() != "OK":
        raise RuntimeError(f"the run ended {made.outcome()}")
    times = made.averaged_at()
    used = use(watch.readings, times[0], times[-1])
    cpu_s = used.cpu_s["coordinator"] / (len(times) - 1)
    return Found(row.name, intervals_s(times), used.peak_bytes["coordinator"], cpu_s)


def no_room(row: Row, model_bytes: int, free_bytes: int) -> str:
    """Return why a row is left out; empty where its models fit on the disk."""
    needs_bytes = (row.sites + MODELS_BESIDE_UPDATES) * model_bytes
    fits = needs_bytes <= free_bytes
    return "" if fits else f"needs {needs_bytes / 1e9:.0f} GB of disk, {free_bytes / 1e9:.0f} GB are free"


def columns(found: Found, sites: int) -> list[str]:
    """Return a row's line of the table."""
    seconds = statistics.median(found.rounds_s)
    return [
        found.row,
        f"{seconds:.2f}",
        f"{seconds / sites:.2f}",
        f"{found.peak_bytes / 1e6:.0f}",
        f"{found.cpu_s:.2f}",
    ]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="two rows")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures here, after every row")
    made.add_argument("--rows", nargs="+", metavar="ROW", help="rows by the beginning of their name: ResNet-50/64")
    made.add_argument("--folder", type=Path, help="where models lie; default: the system's temporary folder")
    return made.parse_args()


def main() -> None:
    """Measure row by row, and print the table."""
    asked = arguments()
    found: dict[str, Any] = {"program": "scale", "arguments": command(), "machine": machine(torch.device("cpu"))}
    found["rows"] = []
    print(found["machine"])
    lines = []
    for row in (row for row in (QUICK if asked.quick else ROWS) if begins_with(row.name, asked.rows)):
        free_bytes = shutil.disk_usage(asked.folder or tempfile.gettempdir()).free
        if reason := no_room(row, row.payload.size_bytes, free_bytes):
            found["rows"].append({"row": row.name, "left_out": reason})
            lines.append([row.name, reason])
        else:
            measured = measure(row, asked.folder)
            found["rows"].append(asdict(measured))
            lines.append(columns(measured, row.sites))
        write(asked.json, found)
        print(" | ".join(lines[-1]), flush=True)
    print(f"\nA round at the coordinator, many sites at once; {command()}\n")
    print(table(HEAD, lines))


if __name__ == "__main__":
    main()
