"""How long is a round that only moves and averages? Ours, durable and verified, beside the bare wire and others.

    python benchmarks/round.py [--quick] [--json FILE] [--rows ResNet-50/2 ...] [--folder FOLDER]
                               [--sides ours grpc flower --peers FOLDER]

The sides, which take turns, each with a process for the coordinator and one for every site, over mutual TLS:

    ours   the real coordinator and the real site agents, with everything a run has: models are hashed, checked and
           fsynced on both ends, every step is journaled. What the trainers make lies ready before the first round
           (light_agent.py), and scoring costs nothing. A round is fetch, score, send, average.
    grpc   two streaming calls of gRPC move the same bytes, 1 MiB at a time, and the server averages in memory
    tls    the same over plain sockets

and, where asked for, our round with secure sums (--sides ours secure, from three sites on): two holders, the signed
ledger, every site quantises, masks, checks and derives.

and the frameworks of the field, each installed in an environment of its own (peers.py, --peers):

    flower   Flower as deployed: SuperLink, SuperNodes, its own FedAvg (flower.py)
    nvflare  NVIDIA FLARE as provisioned: a server, clients, a job with its own FedAvg (nvflare.py)

Their clients give back what they got with one number changed, nothing is evaluated and no model stored. A role is
the sum of its processes. Most of a small round is the waits between their looks for work, which are left as they
come; so they have PEER_ROUNDS at most. Flower's "wire" holds also what its ServerApp carries over the same port.

A row is PAYLOAD/SITES. Seconds are from one average to the next, the median over rounds; the first round of a turn does
not count. CPU is of a round, memory the most that was seen (anonymous: what the process itself fills). "Wire" is what
TCP carried beyond the necessary bytes: every site takes one model a round and gives one. See readings.py.
Models lie in a temporary folder below FOLDER: put it on the disk that is to be measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import begins_with, command
from benchmarks.federations import Federation, Processes, Row, federation, intervals_s
from benchmarks.flower import flower
from benchmarks.nvflare import nvflare
from benchmarks.payloads import RESNET50, SMALL
from benchmarks.peers import PeerMissing, environment
from benchmarks.readings import Watch, use
from benchmarks.sides import machine, table, write
from fedcervix.core.sum_plan import SITES_MIN

LIMIT_S = 600.0
"""of one side's turn"""
SIDES = ("ours", "grpc", "tls")
SECURE = "secure"
PEERS: dict[str, Callable[[Federation, Processes, Path], tuple[list[float], Watch]]] = {
    "flower": flower,
    "nvflare": nvflare,
}
PEER_ROUNDS = 6
"""a peer's round takes many seconds, most of them the same whatever is sent"""
HEAD = ("row", "side", "s a round", "x grpc", "CPU s: coordinator", "a site", "MB: coordinator", "a site", "wire")
DISK_BYTES = 256 << 20


ROWS = (Row(RESNET50, 2, 9), Row(RESNET50, 3, 6), Row(RESNET50, 8, 6), Row(SMALL, 2, 60), Row(SMALL, 8, 40))
QUICK = (Row(RESNET50, 2, 5), Row(SMALL, 2, 30))


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of one side took."""

    rounds_s: list[float]
    cpu_s: dict[str, float]
    """of each role and round; `site` is the mean over sites"""
    peak_bytes: dict[str, int]
    wire_bytes: float
    """of a round"""
    necessary_bytes: int

    @property
    def round_s(self) -> float:
        return statistics.median(self.rounds_s)

    @property
    def beyond(self) -> float:
        """The share of bytes on the wire beyond the necessary ones."""
        return self.wire_bytes / self.necessary_bytes - 1


def ours(made: Federation, processes: Processes) -> Turn:
    """Let the federation run to its end."""
    port = made.coordinate(processes)
    for name in made.sites:
        processes.start(name, "benchmarks.light_agent", made.site(name).folder, made.base, made.rounds)
    with Watch(processes.pids(), port) as watch:
        for name in ("coordinator", *made.sites):
            processes.finish(name, LIMIT_S)
    if made.outcome() != "OK":
        raise RuntimeError(f"the run ended {made.outcome()}")
    return summed(made, made.averaged_at(), watch)


def bare(kind: str) -> Callable[[Federation, Processes], Turn]:
    """Return the side that moves the same bytes over `kind`."""

    def run(made: Federation, processes: Processes) -> Turn:
        model = made.base
        counts = (str(made.rounds), str(len(made.sites)))
        processes.start("coordinator", "benchmarks.bare", kind, "server", made.home.key_file(""), model, *counts)
        port = processes.until("coordinator", lambda: int(processes.said("coordinator").partition("\n")[0] or 0))
        for name in made.sites:
            size = str(model.stat().st_size)
            keys = made.site(name).key_file("")
            processes.start(name, "benchmarks.bare", kind, "site", keys, str(port), size, str(made.rounds))
        with Watch(processes.pids(), port) as watch:
            for name in ("coordinator", *made.sites):
                processes.finish(name, LIMIT_S)
        times = processes.said("coordinator").splitlines()[1]
        return summed(made, [float(at) for at in times.strip("[]").split(",")], watch)

    return run


def framework(name: str, installed: Path) -> Callable[[Federation, Processes], Turn]:
    """Return the side of a framework of the field, which is installed there."""

    def run(made: Federation, processes: Processes) -> Turn:
        return summed(made, *PEERS[name](made, processes, installed))

    return run


RUN: dict[str, Callable[[Federation, Processes], Turn]] = {
    "ours": ours,
    SECURE: ours,
    "grpc": bare("grpc"),
    "tls": bare("tls"),
}


def runs(sides: Sequence[str], peers: Path | None) -> dict[str, Callable[[Federation, Processes], Turn]]:
    """Return how each side is run. Raises PeerMissing, before anything is measured."""
    return {side: RUN[side] if side in RUN else framework(side, environment(side, peers)) for side in sides}


def summed(made: Federation, times: Sequence[float], watch: Watch) -> Turn:
    """Return what the rounds after the first took."""
    used, count = use(watch.readings, times[0], times[-1]), len(times) - 1
    sites = [name for name in used.cpu_s if name != "coordinator"]
    cpu_s = {"coordinator": used.cpu_s["coordinator"], "site": statistics.mean(used.cpu_s[name] for name in sites)}
    return Turn(
        intervals_s(times),
        {role: seconds / count for role, seconds in cpu_s.items()},
        {"coordinator": used.peak_bytes["coordinator"], "site": max(used.peak_bytes[name] for name in sites)},
        used.wire_bytes / count,
        2 * len(made.sites) * made.base.stat().st_size,
    )


def measure(
    row: Row, sides: dict[str, Callable[[Federation, Processes], Turn]], turns: int, below: Path | None
) -> dict[str, list[Turn]]:
    """Let the sides take turns."""
    found: dict[str, list[Turn]] = {side: [] for side in sides}
    for _ in range(turns):
        for side, run in sides.items():
            rounds = min(row.rounds, PEER_ROUNDS) if side in PEERS else row.rounds
            with (
                federation(below, row.sites, row.payload, rounds, secure=side == SECURE) as made,
                Processes(made.folder) as processes,
            ):
                found[side].append(run(made, processes))
    return found


def columns(name: str, side: str, found: dict[str, list[Turn]]) -> list[str]:
    """Return a side's line of the table: medians over turns; the ratio is the median of the turns' ratios."""
    turns = found[side]
    ratios = [turn.round_s / bare_turn.round_s for turn, bare_turn in zip(turns, found.get("grpc", []), strict=False)]

    def median(value: Callable[[Turn], float]) -> float:
        return statistics.median(map(value, turns))

    return [
        name,
        side,
        f"{median(lambda turn: turn.round_s):.3f}",
        f"{statistics.median(ratios):.2f}" if ratios else "",
        f"{median(lambda turn: turn.cpu_s['coordinator']):.3f}",
        f"{median(lambda turn: turn.cpu_s['site']):.3f}",
        f"{max(turn.peak_bytes['coordinator'] for turn in turns) / 1e6:.0f}",
        f"{max(turn.peak_bytes['site'] for turn in turns) / 1e6:.0f}",
        f"{median(lambda turn: turn.beyond):+.1%}",
    ]


def disk_bytes_per_s(below: Path | None) -> float:
    """Return how fast one file is written and fsynced where the models will lie."""
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=below) as file:
        started = time.perf_counter()
        for _ in range(DISK_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return DISK_BYTES / (time.perf_counter() - started)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="two rows, one turn")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures here, after every row")
    made.add_argument("--rows", nargs="+", metavar="ROW", help="rows by the beginning of their name: ResNet-50")
    made.add_argument("--sides", nargs="+", choices=(*SIDES, SECURE, *PEERS), default=SIDES)
    made.add_argument("--peers", type=Path, metavar="FOLDER", help="what `python -m benchmarks.peers` made")
    made.add_argument("--turns", type=int, help="of every side")
    made.add_argument("--folder", type=Path, help="where models lie; default: the system's temporary folder")
    return made.parse_args()


def main() -> None:
    """Measure row by row, and print the table."""
    asked = arguments()
    try:
        sides = runs(asked.sides, asked.peers)
    except PeerMissing as missing:
        sys.exit(str(missing))
    found: dict[str, Any] = {"program": "round", "arguments": command(), "machine": machine(torch.device("cpu"))}
    found["disk_bytes_per_s"] = disk_bytes_per_s(asked.folder)
    found["rows"] = []
    print(f"{found['machine']}\nthe disk takes {found['disk_bytes_per_s'] / 1e6:.0f} MB/s, written and fsynced")
    lines = []
    for row in (row for row in (QUICK if asked.quick else ROWS) if begins_with(row.name, asked.rows)):
        here = {side: run for side, run in sides.items() if side != SECURE or row.sites >= SITES_MIN}
        turns = measure(row, here, asked.turns or (1 if asked.quick else 3), asked.folder)
        found["rows"].append({"row": row.name, "sides": {s: [asdict(turn) for turn in turns[s]] for s in turns}})
        write(asked.json, found)
        lines += [columns(row.name, side, turns) for side in here]
        print("\n".join(" | ".join(line) for line in lines[-len(here) :]), flush=True)
    print(f"\nA round that only moves and averages; {command()}\n")
    print(table(HEAD, lines))


if __name__ == "__main__":
    main()
