"""What raises alarms: one table of functions of the ledger. A function added here has its alarms shown everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from coordinator.alarms.count_alarms import count_alarms, share_alarms
from coordinator.alarms.far_steps import far_steps
from coordinator.alarms.stated_lengths import stated_lengths
from coordinator.alarms.unusable_models import contradicted, spoilt
from coordinator.alarms.unusual_steps import unusual_steps
from fedcervix.core.alarms import Alarm
from fedcervix.core.rounds.state import Round, Run

Source = Callable[[Run, Round], Iterable[Alarm]]

SOURCES: Mapping[Source, Callable[[Round], object]] = {
    unusual_steps: lambda round_: (round_.candidate, round_.measured),
    stated_lengths: lambda round_: (round_.summed_norm, round_.contributions),
    far_steps: lambda round_: (round_.contributions, round_.dropped),
    spoilt: lambda round_: round_.missing,
    contradicted: lambda round_: (round_.ended_at, round_.unusable, round_.scores),
    count_alarms: lambda round_: (round_.contributions, round_.scores),
    share_alarms: lambda round_: round_.contributions,
}
"""with the part of the round in progress that each depends on: while that is the same, so are its alarms"""


def alarms(run: Run, round_: Round, sources: Iterable[Source] = SOURCES) -> tuple[Alarm, ...]:
    """Return the alarms of one round of a run, by site in roster order."""
    place = {site: number for number, site in enumerate(run.plan.sites)}
    found = (alarm for source in sources for alarm in source(run, round_))
    return tuple(sorted(found, key=lambda alarm: place[alarm.site]))


def new_alarms(before: Run, after: Run) -> tuple[Alarm, ...]:
    """Return the alarms that one event has raised, in the round that was in progress and the one that is now.

    Only what the event has changed is looked at: there are as many events as sites, and alarms compare all sites.
    """
    found: list[Alarm] = []
    for round_ in after.rounds[max(0, len(before.rounds) - 1) :]:
        was = before.rounds[round_.number - 1 : round_.number]
        changed = [source for source, part in SOURCES.items() if not was or part(was[0]) != part(round_)]
        known = {alarm for one in was for alarm in alarms(before, one, changed)}
        found += [alarm for alarm in alarms(after, round_, changed) if alarm not in known]
    return tuple(found)
