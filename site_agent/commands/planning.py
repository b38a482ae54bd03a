"""The command `plan`: what a run takes at this site, measured before it begins."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from fedcervix.core.forecast import SiteForecast, site_forecast
from fedcervix.core.modes import MODES
from fedcervix.core.pace import Span, pace_key
from fedcervix.core.plan import Plan
from fedcervix.core.profiles import PROFILES
from fedcervix.disk.locks import is_held
from fedcervix.disk.reserve import FREE_BYTES_MIN
from fedcervix.errors import FedcervixError, RunError
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.pace_lines import PaceLine, pace_text
from fedcervix.runtime.printing import say
from fedcervix.runtime.quantities import durations, rates, size
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.commands.display import Display
from site_agent.commands.setting import setting, site_name
from site_agent.federation import shown
from site_agent.federation.connecting import connect, welcome
from site_agent.federation.line_probe import LinePace, measured
from site_agent.federation.privacy import pace as leaving
from site_agent.home import SiteHome
from site_agent.worker.preflight import Cost, disk_words
from site_agent.worker.worker import Worker


def plan(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None, *, as_json: bool) -> None:
    """Measure what a round takes here, and print it. Raises a FedcervixError."""
    home.config()
    if is_held(home.lock):
        raise RunError(
            "nothing was measured: an agent is running on this home",
            cause="it needs the processor and the memory, so what was measured beside it would be wrong",
            next_step=f"stop it, then {home.command('plan')}; or ask the coordinator's operator: the agent has "
            "measured before its first round, and `coordinator status` shows it",
        )
    site, planned = site_name(home), _planned(home, profile, recipe_file, seed)
    cost = _cost(home, site, planned)
    line = _line(home)
    pace = leaving(line.of(cost.pace))
    assert pace is not None
    if as_json:
        say(pace_text(PaceLine(site=site, at=time.time(), pace_key=pace_key(planned.recipe), pace=pace)))
        return
    stdout_console().print(_drawn(cost, site_forecast(planned, site, pace), line))
    say("this leaves the site when a run begins, with three digits; `plan --json` prints it")


def _planned(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None) -> Plan:
    """Return the plan of the coordinator's run; with a recipe, or without a coordinator, one of this site alone."""
    if profile is None and recipe_file is None and home.config().link.coordinator:
        try:
            heard = welcome(home)
        except FedcervixError as error:
            error.next_step = f"{error.next_step}; without the coordinator: {home.command('plan --profile paper')}"
            raise
        say(f"run {heard.run}: {heard.plan.mode}, {len(heard.plan.sites)} sites", err=True)
        return heard.plan
    used = setting(home, profile, recipe_file, seed)
    say(f"recipe of {used.source}; the terms of a run are not known here: one epoch in a round is assumed", err=True)
    terms = PROFILES[profile or "paper"].terms
    return Plan(mode=next(iter(MODES)), sites=(site_name(home),), profile="site", terms=terms, recipe=used.recipe)


def _cost(home: SiteHome, site: str, planned: Plan) -> Cost:
    worker, display = Worker(home, site), Display()

    def on_progress(at: WorkProgress) -> None:
        display.show(shown.Advanced("plan", at))

    try:
        found = worker.examine(planned, on_progress, threading.Event(), waits=False)
    finally:
        worker.cancel()
        display.close()
    assert found.cost is not None
    return found.cost


def _line(home: SiteHome) -> LinePace:
    if not home.config().link.coordinator:
        return LinePace(why_not="this site has joined no federation")
    with contextlib.closing(connect(home)) as link:
        return measured(link)


# --- as a person reads it -----------------------------------------------------------------------------------------


def _drawn(cost: Cost, found: SiteForecast, line: LinePace) -> Table:
    table = Table(
        Column("what", no_wrap=True), "at this site", title=f"A round, on {cost.device}", title_justify="left"
    )
    for what, words in _rows(cost, found, line):
        table.add_row(what, Text(words))
    return table


def _rows(cost: Cost, found: SiteForecast, line: LinePace) -> Iterator[tuple[str, str]]:
    pace = found.pace
    steps = f"{pace.steps:,} steps an epoch, {cost.epochs_per_round} in a round"
    if pace.step_high_s:
        yield "train", f"{durations(found.train)} ({steps}; one takes {durations(pace.step)})"
        yield "score", durations(found.score)
    else:
        yield "train", f"not timed: several training processes ({steps})"
    yield "down", _moved(found.down, found.down_bytes, line.down, line)
    yield "up", _moved(found.up, found.up_bytes, line.up, line)
    if pace.step_high_s:
        yield "together", f"{durations(found.whole)}; a round also waits for the other sites"
        yield "all rounds", f"{durations(found.whole.times(cost.rounds_max))} for {cost.rounds_max} rounds"
    if pace.decode_high_s:
        yield "before", f"{durations(pace.decode)} to decode the other images, once"
    yield "memory", _room(size(pace.memory_bytes), pace.memory_bytes, pace.memory_free_bytes)
    yield "disk", _room(disk_words(pace), pace.disk_bytes + FREE_BYTES_MIN, pace.disk_free_bytes)


def _moved(span: Span, count_bytes: int, pace: Span, line: LinePace) -> str:
    if not pace.high:
        return f"{count_bytes:,} bytes; the line was not measured: {line.why_not}"
    return f"{durations(span)} for {count_bytes:,} bytes at {rates(pace)}"


def _room(words: str, needed: int, free: int) -> str:
    return f"{words}; {size(free)} are free" + (": TOO LITTLE" if needed > free else "")
