"""What the coordinator's page costs, and how soon it shows what has happened: `python -m benchmarks.page`.

A real coordinator goes on with a run of 64 sites and 200 rounds that lies in its journal; no site is there. A real
`coordinator page` shows it to as many browsers as are asked for, each an event stream. Printed are

    page_mb          resident memory of the page's process, and its peak
    first_kb         what a browser is sent when it opens the page
    idle_kb_s        what a browser is sent each second while no site reports
    busy_kb_s        the same while every site reports its progress every 4 s: computed from documents
    coordinator_ms_s processor time of the coordinator for each second: with no browser, with one, with 30
    cut_ms           from the coordinator's first word of a killed agent until a browser is told (--cuts times)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from coordinator.page.status_parts import StatusContext, StatusParts
from coordinator.run.status_document import StatusDocument
from fedcervix.core.events import event_to_json
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.page.board import difference
from fedcervix.page.fanout import message
from tests.e2e.loopback import BIN, Federation, Process, federation, start, until
from tests.e2e.page_streams import Stream, enter
from tests.unit.page_scenes import BASE, Scene

SECONDS = 20.0
PROGRESS_S = 4.0
TICKS_S = os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process, and its peak."""
    text = Path(f"/proc/{pid}/status").read_text()
    now, peak = (int(re.search(rf"{key}:\s+(\d+)", text)[1]) / 1024 for key in ("VmRSS", "VmHWM"))  # type: ignore[index]
    return now, peak


def processor_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS_S


def over(seconds: float, measure: Callable[[], float]) -> float:
    """Return by how much something grows in a second."""
    before, began = measure(), time.monotonic()
    time.sleep(seconds)
    return (measure() - before) / (time.monotonic() - began)


def long_run(sites: int, rounds: int) -> Scene:
    names = tuple(f"site-{number:02}" for number in range(sites))
    scene = Scene("csfssl", names, rounds=rounds + 10, now=time.time() - 300.0 * rounds)
    for _ in range(rounds):
        scene.train_all()
    return scene


def store(home: Federation, scene: Scene) -> None:
    """Write a run into a home's journal at once."""
    journal = Journal(home.home.journal)
    journal.begin(RunRecord(scene.run.run, scene.plan, BASE, scene.began))
    journal.close()
    with contextlib.closing(sqlite3.connect(home.home.journal)) as db, db:
        rows = [(scene.run.run, event_to_json(event)) for event in scene.events]
        db.executemany("INSERT INTO events (run, event) VALUES (?, ?)", rows)


def busy_bytes_s(scene: Scene, seconds: int = 12) -> float:
    """Return what a browser is sent each second while every site reports its progress."""
    scene.progress()
    document, parts = scene.document(), StatusParts()
    around = StatusContext(plan=scene.plan)
    before, sent = parts.of(document, around), 0
    for second in range(1, seconds + 1):
        sites = tuple(_moved(site, place, second) for place, site in enumerate(document.sites))
        document = replace(document, now=document.now + 1, sites=sites)
        after = parts.of(document, around)
        sent += len(message("patch", difference(before, after)))
        before = after
    return sent / seconds


def _moved(site: StatusDocument, place: int, second: int):  # type: ignore[no-untyped-def]
    if (place + second) % PROGRESS_S:
        return site
    return replace(site, done=site.done + second, loss=1.5 - second / 100, images_per_s=30.0 + second)


@contextlib.contextmanager
def paged(folder: Path, home: Path) -> Iterator[Process]:
    process = start("page", [BIN / "coordinator", "--home", home, "page"], folder)
    try:
        yield process
    finally:
        process.end()


def costs(folder: Path, sites: int, rounds: int, browsers: int) -> None:
    scene = long_run(sites, rounds)
    print(f"busy_kb_s {busy_bytes_s(scene) / 1000:.1f}", flush=True)
    with federation(folder, sites=scene.sites) as made:
        store(made, scene)
        coordinator = made.coordinate(listening=False)
        until("the coordinator has read its journal", made.home.read_running, timeout_s=600)
        print(
            f"coordinator_ms_s without page {1000 * over(SECONDS, lambda: processor_s(coordinator.pid)):.1f}",
            flush=True,
        )
        with paged(folder, made.home.folder) as page:
            port, cookie = enter(page)
            first = Stream(port, cookie)
            until("the page has the run", lambda: first.first_bytes > 1000 or first.bytes > 10_000)
            time.sleep(5)
            one = 1000 * over(SECONDS, lambda: processor_s(coordinator.pid))
            others = [Stream(port, cookie) for _ in range(browsers - 1)]
            before = first.bytes
            many = 1000 * over(SECONDS, lambda: processor_s(coordinator.pid))
            now, peak = memory_mb(page.pid)
            print(f"coordinator_ms_s one browser {one:.1f}, {browsers} browsers {many:.1f}")
            print(f"idle_kb_s {(first.bytes - before) / SECONDS / 1000:.2f}")
            print(f"first_kb {others[-1].first_bytes / 1000:.0f}")
            print(f"page_mb {now:.0f}, at most {peak:.0f}", flush=True)
            for one_ in (first, *others):
                one_.close()
            began = time.monotonic()
            page.signal(signal.SIGTERM)
            page.ended()
            print(f"end_s {time.monotonic() - began:.1f} with {browsers} open streams", flush=True)


def cuts(folder: Path, count: int) -> None:
    """Kill a light site's agent, and compare when the coordinator and a browser say so."""
    with federation(folder, terms={"rounds": 1, "lease_s": 60.0}) as made:
        made.coordinate("--mode", "csfssl")
        for site in made.sites:
            made.enrol(site)
        agents = {site: made.light(site, "--pace-s", "600") for site in made.sites}
        made.until("both train", lambda d: all(site["presence"] == "present" for site in d["sites"]))
        with paged(folder, made.home.folder) as page:
            browser = Stream(*enter(page))
            found = []
            for _ in range(count):
                until("the page shows it", lambda: '"ready"' in _word(browser.view))
                browser.keeps, browser.parts[:] = True, []
                agents["alts"].kill()
                until("the coordinator knows", lambda: not made.overview()["sites"][1]["connected"])
                known = time.monotonic()
                told = until("the page says so", lambda: [at for at, part in browser.parts if "cut" in _word(part)])
                found.append(1000 * (told[0] - known))
                agents["alts"] = made.light("alts", "--pace-s", "600")
            if found:
                print(
                    f"cut_ms median {statistics.median(found):.0f}, at most {max(found):.0f} ({count} times)",
                    flush=True,
                )


def _word(part: object) -> str:
    return json.dumps(part.get("sites", {}).get("alts", {}))  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=200, help="0: only the killed agents")
    parser.add_argument("--browsers", type=int, default=30)
    parser.add_argument("--cuts", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.rounds:
            costs(Path(folder) / "costs", options.sites, options.rounds, options.browsers)
        cuts(Path(folder) / "cuts", options.cuts)


if __name__ == "__main__":
    main()
