"""Is a prediction right? A federation of real processes on phantoms: what was predicted beside what was.

    python benchmarks/plan.py --all                 every line that is asked for: all CASES below, one after the other
    python benchmarks/plan.py [--mode csfssl|ppfssl] [--rounds 6] [--epochs 2] [--women 24] [--image-px 64] [--batch 8]
                              [--mbit 10] [--compression bfloat16] [--secure-sum] [--sealed] [--checkpoint-s 60]
                              [--json FILE]

The sites train on this machine, with one thread each. What they measure before round 1 travels to the coordinator as in
any run; nothing here measures for them. A line has what was predicted (the middle of a range), what was, the ratio of
both, and how far it may lie from 1:

    round     each round of the ledger from the second on
    trains    the mean of a site's trainings from the second round on
    bytes     of models, down and up, of each site in each round from the second on, as the coordinator counted them
    memory    the most that each worker process was (VmHWM)
    disk      the most that models, checkpoints and runs took in each home at once, and what decoding added in the run
    disk left the same when the run is over

`--mbit`: every site's line passes a relay that lets so much through each way. Times mean something only on a machine
that does nothing else: its load is printed before and after. Bytes, disk and memory do not depend on it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coordinator.run import paces
from site_agent.phantom import INSTITUTIONS, write_institution
from tests.e2e.line import SlowLine
from tests.e2e.loopback import Federation, processes_of, until

SITES = ("nhs", "alts", "third")
LIMIT_S = 3600.0
LOOK_S = 0.1
PROCESSES_EACH = 5
"""looks: the highest mark of a process stays until it ends"""
GROWS = ("blobs", "runs", "models")
"""folders of a home in which a run's files lie; they are empty before the first one"""
NEAR = {"round": 0.15, "trains": 0.15, "bytes": 0.01, "memory": 0.15, "disk": 0.1}
"""how far a line may lie from what was predicted; round times of a slow line: NEAR_SHAPED"""
NEAR_SHAPED = 0.2
CASES = {
    "idle machine": (),
    "checkpoints": ("--checkpoint-s", "1", "--rounds", "3"),
    "ring": ("--mode", "ppfssl"),
    "compressed": ("--compression", "int8", "--rounds", "4"),
    "secure sums": ("--secure-sum", "--rounds", "4"),
    "sealed ring": ("--mode", "ppfssl", "--sealed", "--rounds", "4"),
    "line of 10 Mbit/s": ("--mbit", "10", "--rounds", "4"),
}


class Meter(threading.Thread):
    """The most that was seen of each site: memory of its processes, bytes of its models; and its decoded images."""

    def __init__(self, made: Federation, sites: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self._homes, self.done = {site: made.site(site).folder for site in sites}, threading.Event()
        self.memory_bytes = dict.fromkeys(sites, 0)
        self.disk_bytes = dict.fromkeys(sites, 0)
        self.most: dict[str, dict[str, int]] = {}
        """the files of that moment"""

    def run(self) -> None:
        """Look until it is done."""
        looks = 0
        while not self.done.wait(LOOK_S):
            looks += 1
            for site, folder in self._homes.items():
                if looks % PROCESSES_EACH == 0:
                    found = (
                        _peak_bytes(pid) for pid, words in processes_of(folder).items() if "worker_process" in words
                    )
                    self.memory_bytes[site] = max(self.memory_bytes[site], *found, 0)
                files = _files(folder)
                if sum(files.values()) > self.disk_bytes[site]:
                    self.disk_bytes[site], self.most[site] = sum(files.values()), files

    def decoded_bytes(self) -> dict[str, int]:
        """Return the bytes of each site's decoded images now."""
        return {site: sum(_files(folder, ("cache",)).values()) for site, folder in self._homes.items()}


def _peak_bytes(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _files(folder: Path, below: Sequence[str] = GROWS) -> dict[str, int]:
    found = {}
    for place in below:
        for file in (folder / place).rglob("*"):
            with contextlib.suppress(OSError):
                if file.is_file():
                    found[str(file.relative_to(folder))] = file.stat().st_blocks * 512
    return found


def main() -> None:
    """Run it, and print predicted beside actual."""
    asked = _parser().parse_args()
    found = {}
    for name, more in (CASES if asked.all else {"": ()}).items():
        case = _parser().parse_args([*sys.argv[1:], *more])
        print(f"\n{name or 'as asked'}; load before: {_load()}, {os.cpu_count()} cores", flush=True)
        with tempfile.TemporaryDirectory(prefix="fedcervix-plan-") as folder:
            found[name] = _federation(case, Path(folder))
        print(f"load after: {_load()}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2, allow_nan=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--mode", default="csfssl")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--women", type=int, default=24)
    parser.add_argument("--image-px", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--mbit", type=float, default=0.0)
    parser.add_argument("--compression", default="none")
    parser.add_argument("--secure-sum", action="store_true")
    parser.add_argument("--sealed", action="store_true")
    parser.add_argument("--checkpoint-s", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    return parser


def _load() -> str:
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


def _federation(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    sites = SITES if asked.secure_sum else SITES[:2]
    hardware = {"checkpoint_s": asked.checkpoint_s}
    made = Federation(folder / "federation", sites, terms=_terms(asked), recipe=_recipe(asked), hardware=hardware)
    lines = []
    try:
        coordinator = made.coordinate("--mode", asked.mode)
        for seed, site in enumerate(sites, 1):
            manifest, drawn = folder / site / "manifest.csv", INSTITUTIONS.get(site, INSTITUTIONS["nhs"])
            write_institution(folder / site, drawn, women=asked.women, seed=seed, unlabelled_per_labelled=1.0)
            made.enrol(site, manifest)
            if asked.mbit:
                lines.append(SlowLine(made.port, asked.mbit * 1e6 / 8))
                made.settle(site, manifest, port=lines[-1].port)
        if asked.secure_sum or asked.sealed:
            made.know()
        meter = Meter(made, sites)
        meter.start()
        agents = [made.agent(site) for site in sites]
        until("a round begins", lambda: made.overview()["round"] or None, timeout_s=LIMIT_S, seen=made.texts)
        decoded = meter.decoded_bytes()
        for process in (*agents, coordinator):
            until(f"{process.name} ends", lambda: not process.running(), timeout_s=LIMIT_S, seen=made.texts)  # noqa: B023
        meter.done.set()
        meter.join()
        grown = {site: size_bytes - decoded[site] for site, size_bytes in meter.decoded_bytes().items()}
        left = {site: sum(_files(made.site(site).folder).values()) + grown[site] for site in sites}
        return _compared(made, meter, grown, left, NEAR | ({"round": NEAR_SHAPED} if asked.mbit else {}))
    finally:
        for line in lines:
            line.close()
        made.close()


def _terms(asked: argparse.Namespace) -> dict[str, Any]:
    found = {
        "rounds": asked.rounds,
        "epochs_per_round": asked.epochs,
        "patience_rounds": asked.rounds,
        "lease_s": 120.0,
        "compression": asked.compression,
        "sealed": asked.sealed,
    }
    hides = {"secure_sum": True, "holders": list(SITES[:2])}
    return found | (hides if asked.secure_sum else {})


def _recipe(asked: argparse.Namespace) -> dict[str, Any]:
    return {"image_px": asked.image_px, "batch_images": asked.batch, "epochs_max": asked.rounds * asked.epochs}


def _compared(
    made: Federation, meter: Meter, grown: dict[str, int], left: dict[str, int], near: dict[str, float]
) -> dict[str, Any]:
    record = made.record()
    predicted, known = record["prediction"], paces.known(made.home.paces, record["run"])
    rows: list[dict[str, Any]] = []

    def row(what: str, kind: str, expected: float, was: float) -> None:
        rows.append(_row(what, expected, was, near[kind]))

    print(HEAD)
    for line in record["ledger"][1:]:
        middle = (predicted["round_low_s"] + predicted["round_high_s"]) / 2
        row(f"round {line['round']}, s", "round", middle, line["ended_at"] - line["begun_at"])
    for one in predicted["sites"]:
        site, pace = one["site"], known[one["site"]]
        trained = [c["seconds"] for line in record["ledger"] for c in line["contributions"] if c["site"] == site][1:]
        steps_s = pace.step.times(pace.steps * made.terms["epochs_per_round"]).middle + pace.task_s
        row(f"{site} trains, s", "trains", steps_s, sum(trained) / len(trained))
        for way in ("down", "up"):
            moved = [m[f"{way}_bytes"] for t in record["traffic"][1:] for m in t["sites"] if m["site"] == site]
            for number, size_bytes in enumerate(moved[: len(record["ledger"]) - 1], 2):
                row(f"{site} {way} {number}, bytes", "bytes", one[f"{way}_bytes"], size_bytes)
        row(f"{site} memory, bytes", "memory", pace.memory_bytes, meter.memory_bytes[site])
        row(f"{site} disk, bytes", "disk", pace.disk_bytes, meter.disk_bytes[site] + grown[site])
        row(f"{site} disk left, bytes", "disk", pace.disk_left_bytes, left[site])
    return {
        "rows": rows,
        "prediction": predicted,
        "paces": {site: str(pace) for site, pace in known.items()},
        "files": meter.most,
    }


HEAD = f"{'':26}{'predicted':>18}{'actual':>18}{'ratio':>8}   may be"


def _row(what: str, expected: float, was: float, near: float) -> dict[str, Any]:
    ratio = was / expected if expected else 1.0 if was == expected else float("inf")
    verdict = "" if abs(ratio - 1) <= near else "   NOT WITHIN"
    print(
        f"{what:26}{expected:>18,.2f}{was:>18,.2f}{ratio:>8.3f}   {1 - near:.2f} to {1 + near:.2f}{verdict}", flush=True
    )
    return {"what": what, "predicted": expected, "actual": was, "ratio": ratio, "near": near}


if __name__ == "__main__":
    main()
