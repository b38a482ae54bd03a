"""Is a prediction right? A federation of real processes on phantoms: what was predicted beside what was.

    python benchmarks/plan.py [--mode csfssl|ppfssl] [--rounds 6] [--epochs 2] [--women 24] [--image-px 64] [--batch 8]
                              [--mbit 10] [--compression bfloat16] [--json FILE]

Two sites train on this machine, with one thread each. What they measure before round 1 travels to the coordinator as in
any run; nothing here measures for them. Compared are:

    round    each round of the ledger from the second on, with the middle of the predicted range
    bytes    of models that each site sent, by its own egress ledger, with those predicted for so many rounds
    memory   the most that each worker process was (VmHWM), with the memory predicted for training
    disk     the most that each home has grown since the site was ready, with the disk predicted for a round

`--mbit`: every site's line passes a relay that lets so much through each way. Round times mean something only on a
machine that does nothing else: the load of this one is printed before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

from coordinator.run import paces
from fedcervix.core.pace import SitePace
from site_agent.phantom import INSTITUTIONS, write_institution
from site_agent.store.egress import entries
from tests.e2e.line import SlowLine
from tests.e2e.loopback import Federation, processes_of, until

SITES = ("nhs", "alts")
LIMIT_S = 3600.0
LOOK_S = 0.2


class Meter(threading.Thread):
    """The most that was seen of each site: memory of its processes, bytes in its home."""

    def __init__(self, made: Federation) -> None:
        super().__init__(daemon=True)
        self._made, self.done = made, threading.Event()
        self.memory_bytes: dict[str, int] = {}
        self.disk_bytes: dict[str, int] = {}
        self.least_bytes: dict[str, int] = {}

    def run(self) -> None:
        """Look until it is done."""
        while not self.done.wait(LOOK_S):
            for site in self._made.sites:
                folder = self._made.site(site).folder
                for pid, words in processes_of(folder).items():
                    if "worker_process" in words and (found := _peak_bytes(pid)):
                        self.memory_bytes[site] = max(found, self.memory_bytes.get(site, 0))
                size_bytes = _folder_bytes(folder)
                self.disk_bytes[site] = max(size_bytes, self.disk_bytes.get(site, 0))


def _peak_bytes(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _folder_bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_blocks * 512
        except OSError:
            continue
    return total


def main() -> None:
    """Run it, and print predicted beside actual."""
    asked = _arguments()
    print(f"load before: {_load()}, {os.cpu_count()} cores", flush=True)
    with tempfile.TemporaryDirectory(prefix="fedcervix-plan-") as folder:
        found = _federation(asked, Path(folder))
    print(f"load after: {_load()}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2, allow_nan=False))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", default="csfssl")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--women", type=int, default=24)
    parser.add_argument("--image-px", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--mbit", type=float, default=0.0)
    parser.add_argument("--compression", default="none")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _load() -> str:
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


def _federation(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    terms = {
        "rounds": asked.rounds,
        "epochs_per_round": asked.epochs,
        "patience_rounds": asked.rounds,
        "lease_s": 120.0,
        "compression": asked.compression,
    }
    recipe = {"image_px": asked.image_px, "batch_images": asked.batch, "epochs_max": asked.rounds * asked.epochs}
    made = Federation(folder / "federation", SITES, terms=terms, recipe=recipe)
    meter, lines = Meter(made), []
    try:
        coordinator = made.coordinate("--mode", asked.mode)
        for site in SITES:
            write_institution(folder / site, INSTITUTIONS[site], women=asked.women, seed=1, unlabelled_per_labelled=1.0)
            made.enrol(site, folder / site / "manifest.csv")
            if asked.mbit:
                lines.append(SlowLine(made.port, asked.mbit * 1e6 / 8))
                made.settle(site, folder / site / "manifest.csv", port=lines[-1].port)
        meter.start()
        agents = [made.agent(site) for site in SITES]
        until("a round begins", lambda: made.overview()["round"] or None, timeout_s=LIMIT_S, seen=made.texts)
        meter.least_bytes = {site: _folder_bytes(made.site(site).folder) for site in SITES}
        predicted = made.overview()["prediction"]
        for process in (*agents, coordinator):
            until(f"{process.name} ends", lambda: not process.running(), timeout_s=LIMIT_S, seen=made.texts)  # noqa: B023
        meter.done.set()
        record = made.record()
        known = paces.known(made.home.paces, record["run"])
        return _compared(made, predicted, record, known, meter)
    finally:
        meter.done.set()
        for line in lines:
            line.close()
        made.close()


def _compared(
    made: Federation, predicted: dict[str, Any], record: dict[str, Any], known: dict[str, SitePace], meter: Meter
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    low, high = predicted["round_low_s"], predicted["round_high_s"]
    for line in record["ledger"]:
        seconds = line["ended_at"] - line["begun_at"]
        rows.append(_row(f"round {line['round']}, s", low, high, seconds))
    for one in predicted["sites"]:
        site = one["site"]
        trained = [c["seconds"] for line in record["ledger"] for c in line["contributions"] if c["site"] == site]
        rows.append(
            _row(f"{site} trains, s", one["train_low_s"], one["train_high_s"], sum(trained[1:]) / len(trained[1:]))
        )
        sent = one["up_bytes"] * len(record["ledger"])
        seed = known[site].packed_bytes or known[site].model_bytes
        first = seed if _made_first(made, site) else 0
        rows.append(_row(f"{site} sends, bytes", sent + first, sent + first, _sent_bytes(made, site)))
        memory = known[site].memory_bytes
        rows.append(_row(f"{site} memory, bytes", memory, memory, meter.memory_bytes[site]))
        grown = meter.disk_bytes[site] - meter.least_bytes[site]
        rows.append(_row(f"{site} disk, bytes", known[site].disk_bytes, known[site].disk_bytes, grown))
    return {"rows": rows, "prediction": predicted, "paces": {site: str(pace) for site, pace in known.items()}}


def _row(what: str, low: float, high: float, was: float) -> dict[str, Any]:
    off = 2 * was / (low + high) - 1 if low + high else 0.0
    ends = (f"{value:>18,.2f}" for value in (low, high, was))
    print("{:20}{} to{}   was{}   {:+.1%} of the middle".format(what, *ends, off), flush=True)
    return {"what": what, "low": low, "high": high, "was": was, "off": off}


def _entries(made: Federation, site: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in entries(made.site(site).egress)]


def _made_first(made: Federation, site: str) -> bool:
    return any(one.get("task", {}).get("kind") == "seed" for one in _entries(made, site) if one["kind"] == "model")


def _sent_bytes(made: Federation, site: str) -> int:
    return sum(one["bytes"] for one in _entries(made, site) if one["kind"] == "left")


if __name__ == "__main__":
    main()
