"""From what happened to what a person is told: values in, messages out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedcervix.core.alarms import Alarm
from fedcervix.core.events import Event, SiteFailed, SiteRefused, SiteSilent
from fedcervix.core.rounds.state import Outcome, Round, Run
from fedcervix.core.rounds.waits import OnTimeout, waits
from fedcervix.notify.notice import TITLE_CHARS_MAX, Notice, cut, foreign, without_paths
from fedcervix.printable import shortened
from fedcervix.transport.identity import moment


def began(federation: str, run: Run, at: float) -> Notice:
    """Return what is told of a run that has begun."""
    plan, names = run.plan, ", ".join(run.plan.sites[:20])
    more = f" and {len(plan.sites) - 20} more" if len(plan.sites) > 20 else ""
    return Notice(
        id=f"{run.run}.0.began",
        kind="began",
        at=at,
        title=f"run {run.run} has begun",
        text=cut(f"The run has begun: mode {plan.mode}, at most {plan.rounds_max} rounds, sites {names}{more}."),
        next_step="coordinator status --watch",
        federation=federation,
        run=run.run,
    )


_ENDED = {
    Outcome.OK: ("Every site has contributed to every round.", "coordinator export {run}"),
    Outcome.DEGRADED: ("At least one site is missing from a round.", "coordinator status {run}"),
    Outcome.ABORTED: ("It will not go on.", "coordinator status {run}"),
}


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended."""

    outcome: Outcome
    rounds: int
    reason: str


def ended(federation: str, run: str, end: RunEnd, seq: int, at: float) -> Notice:
    """Return what is told of a run that has ended. `seq`: the number of its last event."""
    outcome = end.outcome
    words, next_step = _ENDED[outcome]
    why = f" Why: {foreign(end.reason)}." if outcome is not Outcome.OK and end.reason else ""
    rounds = "1 round" if end.rounds == 1 else f"{end.rounds} rounds"
    return Notice(
        id=f"{run}.{seq}.ended",
        kind="ended",
        at=at,
        title=f"run {run} has ended: {outcome}",
        text=cut(f"The run has ended after {rounds}: {outcome}. {words}{why}"),
        next_step=next_step.format(run=run),
        federation=federation,
        run=run,
    )


def happened(federation: str, run: str, seq: int, event: Event, now: Run | None) -> Notice | None:
    """Return what is told of an event; None where nothing is. `now`: the run, where it is the one in progress."""
    told = _TOLD.get(type(event))
    if told is None:
        return None
    kind, title, text, next_step = told(event)
    return Notice(
        id=f"{run}.{seq}.{kind}",
        kind=kind,
        at=event.at,
        title=title,
        text=cut(" ".join(filter(None, (text, _wait(now, getattr(event, "site", "")))))),
        next_step=next_step,
        federation=federation,
        run=run,
        site=getattr(event, "site", ""),
    )


def alarmed(federation: str, run: str, round_: Round, new: Sequence[Alarm]) -> Notice:
    """Return what is told of the alarms of a round that has ended."""
    sites = ", ".join(dict.fromkeys(one.site for one in new))
    about = f"site {sites}" if len({one.site for one in new}) == 1 else f"sites {sites}"
    words = " ".join(f"Site {one.site}, {one.what}: {foreign(one.words)}." for one in new)
    return Notice(
        id=f"{run}.{round_.number}.alarm",
        kind="alarm",
        at=round_.ended_at,
        title=shortened(f"something is unusual about {about}", TITLE_CHARS_MAX),
        text=cut(f"After round {round_.number}: {words} An alarm excludes nobody: a person should look."),
        next_step="ask the site whether it changed something; then: coordinator status",
        federation=federation,
        run=run,
        site=sites if len({one.site for one in new}) == 1 else "",
    )


Told = tuple[str, str, str, str]
"""kind, title, text, next step"""


def _silent(event: SiteSilent) -> Told:
    why = f" What is known: {foreign(event.reason)}." if event.reason else ""
    text = f"Nothing was heard of site {event.site} for the length of its lease.{why}"
    return (
        "silent",
        f"site {event.site} is silent",
        text,
        "ask the site whether its agent runs (site-agent check); then: coordinator status",
    )


def _refused(event: SiteRefused) -> Told:
    text = f"The policy of site {event.site} does not allow the plan. It says: {foreign(event.reason)}."
    next_step = "agree with the site on [policy] in its site.toml, or begin another run; then: coordinator status"
    return "refused", f"site {event.site} refuses the run", text, next_step


def _failed(event: SiteFailed) -> Told:
    goes_on = "The site goes on by itself." if event.goes_on else "The site does not go on by itself."
    where = f" ({foreign(event.stage)})" if event.stage else ""
    says = f" It says: {foreign(event.hint)}." if event.hint else ""
    text = f"Work at site {event.site} failed{where}. Incident {foreign(event.incident)}.{says} {goes_on}"
    next_step = "tell the site's engineer the number of the incident; then: coordinator status"
    return "failed", f"work at site {event.site} failed", text, next_step


_TOLD: Mapping[type, Callable[[Any], Told]] = {SiteSilent: _silent, SiteRefused: _refused, SiteFailed: _failed}

_THEN = {OnTimeout.GO_ON: "then the round goes on without it", OnTimeout.ABORT: "then the run is aborted"}


def _wait(run: Run | None, site: str) -> str:
    """Say until when the run waits for a site, and what follows."""
    for wait in waits(run) if run is not None else ():
        if wait.site == site and wait.until is not None and wait.then in _THEN:
            return f"The run waits for it until {moment(datetime.fromtimestamp(wait.until, UTC))}; {_THEN[wait.then]}."
    return ""


def certificate(federation: str, words: str, now_s: float) -> Notice:
    """Return what is told of a certificate; `words` say which one, and until when."""
    return Notice(
        id=f"{federation}.{digest(words)}.certificate",
        kind="certificate",
        at=now_s,
        title="a certificate was not renewed",
        text=cut(without_paths(words.partition("\n")[0])),
        next_step="coordinator sites",
        federation=federation,
    )


def trouble(federation: str, run: str, seq: int, words: str, now_s: float) -> Notice:
    """Return what is told of trouble. Of its words only the first line, without paths: the rest is in the status."""
    return Notice(
        id=f"{run}.{seq}.{digest(without_numbers(words))[:8]}.trouble",
        kind="trouble",
        at=now_s,
        title="the coordinator is in trouble",
        text=cut(f"The coordinator says: {without_paths(words.partition(chr(10))[0])}"),
        next_step="coordinator status",
        federation=federation,
        run=run,
    )


def test(federation: str, now_s: float) -> Notice:
    """Return a message that is only to arrive."""
    return Notice(
        id=f"test.{int(now_s * 1000)}",
        kind="test",
        at=now_s,
        title="test message",
        text="This is a test. The coordinator can send messages to you.",
        next_step="nothing: it has arrived",
        federation=federation,
    )


def digest(words: str) -> str:
    """Return a short name for words."""
    return hashlib.sha256(words.encode(errors="replace")).hexdigest()[:16]


def without_numbers(words: str) -> str:
    """Return words in which no number changes: how much room is left of a full disk is no other trouble."""
    return "".join("0" if one.isdigit() else one for one in words)
