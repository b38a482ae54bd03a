"""How long a scrape takes, and how long its text is, at 64 sites and 200 rounds.

    nice -n 10 .venv/bin/python benchmarks/metrics.py [--sites 64] [--rounds 200] [--times 50]

The status is made by the production code from events, as a coordinator has it: every site has contributed to and scored
every round, and is connected. The facts of a real home folder are timed, the values, and values with their text: the
first one, and the next ones, where every site has news.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from coordinator.home.founding import Founding, create
from coordinator.home.home import Home
from coordinator.monitoring.facts import facts
from coordinator.monitoring.measuring import measured
from coordinator.run.liveness import Line
from coordinator.run.status import overview
from coordinator.run.status_document import StatusDocument
from fedcervix.core.events import AggregateStored, Event, ScoreReported, SiteAttached, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.state import begin
from fedcervix.core.rounds.step import step
from fedcervix.monitoring import exposition

RUN = "20300101-000000-csfssl-00000000"
GAUGES = ("alignment", "dead_units", "effective_rank", "uniformity", "unit_std", "zero_rows")
T = TypeVar("T")


def events(plan: Plan, rounds: int) -> list[Event]:
    found: list[Event] = [SiteAttached(site, 1.0) for site in plan.sites]
    base = "5" * 64
    for number in range(1, rounds + 1):
        at, train = 100.0 * number, Task(RUN, TaskKind.TRAIN, number, base)
        for place, site in enumerate(plan.sites):
            digest = f"{number * 1000 + place:064x}"
            found.append(UpdateStored(site, train, digest, 1000 + place, 125, 2.3, 12.3, at))
        base = f"{10**12 + number:064x}"
        found.append(AggregateStored(number, base, at + 1))
        score = Task(RUN, TaskKind.SCORE, number, base)
        gauges = tuple((name, 0.123456789 + number) for name in GAUGES)
        found += [
            ScoreReported(site, score, 300.0 - number / 10, 100, 1000 + place, gauges, at + 2)
            for place, site in enumerate(plan.sites)
        ]
    return found


def status(sites: int, rounds: int) -> StatusDocument:
    roster = tuple(f"site-{number:03}" for number in range(sites))
    terms = Terms(rounds=rounds + 1, patience_rounds=rounds + 1)
    plan = Plan(mode="csfssl", sites=roster, profile="paper", terms=terms, recipe=Recipe(epochs_max=rounds + 1))
    run = begin(RUN, plan, base="5" * 64, at=0.0)
    for event in events(plan, rounds):
        run, _ = step(run, event)
    line = Line(True, None, 2.0, 40.0, None)
    lines = {site: replace(line, received_bytes=10**9, sent_bytes=10**9) for site in roster}
    return overview(run, lines, now=time.time())


def timed(what: str, times: int, act: Callable[[int], T]) -> T:
    """Call `act` again and again; print how long it takes by the clock, and how long its thread works."""
    took, worked = [], []
    for number in range(times):
        began, began_work = time.perf_counter(), time.thread_time()
        result = act(number)
        took.append(1000 * (time.perf_counter() - began))
        worked.append(1000 * (time.thread_time() - began_work))
    print(f"{what:44} processor {statistics.median(worked):6.2f} ms, clock {statistics.median(took):7.2f} ms")
    return result


def later(document: StatusDocument, number: int) -> StatusDocument:
    """Return the status of another moment: every site was heard, and has moved bytes."""
    news = {"heard_at": 1e9 + number, "lease_ends_at": 1e9 + number, "received_bytes": number, "sent_bytes": number}
    return replace(document, sites=tuple(replace(site, **news) for site in document.sites))  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--times", type=int, default=50)
    told = parser.parse_args()
    document = status(told.sites, told.rounds)
    roster = tuple(site.site for site in document.sites)
    with tempfile.TemporaryDirectory() as folder:
        home, now = Home(Path(folder) / "home"), datetime.now(UTC)
        told_home = {"advertise": "localhost:8443", "bind": "127.0.0.1:0", "profile": "paper"}
        create(home, Founding(name="cervix", sites=roster, **told_home), now)
        known = timed("facts of the home", told.times, lambda _: facts(home, now, answers=True))
    fixed = {"federation": "cervix"}

    def first(_: int) -> bytes:
        exposition.forget()
        return exposition.text(measured(document, known), fixed)

    timed("values alone", told.times, lambda _: list(measured(document, known)))
    content = timed("the first scrape", told.times, first)
    documents = [later(document, number) for number in range(told.times)]
    timed(
        "the next ones: all sites have news",
        told.times,
        lambda n: exposition.text(measured(documents[n], known), fixed),
    )
    samples = sum(not line.startswith(b"#") for line in content.splitlines())
    print(f"{told.sites} sites, {len(document.ledger)} rounds: {samples} samples, {len(content):,} bytes")
    print(
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB resident at most, the run itself included"
    )


if __name__ == "__main__":
    main()
