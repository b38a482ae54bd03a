"""What raises alarms: one table of functions of the ledger. A function added here has its alarms shown everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coordinator.alarms.count_alarms import count_alarms, share_alarms
from coordinator.alarms.far_steps import far_steps
from coordinator.alarms.unusable_models import contradicted, spoilt
from coordinator.alarms.unusual_steps import unusual_steps
from fedcervix.core.alarms import Alarm
from fedcervix.core.rounds.state import Round, Run

Source = Callable[[Run, Round], Iterable[Alarm]]

SOURCES: tuple[Source, ...] = (unusual_steps, far_steps, spoilt, contradicted, count_alarms, share_alarms)


def alarms(run: Run, round_: Round) -> tuple[Alarm, ...]:
    """Return the alarms of one round of a run, by site in roster order."""
    place = {site: number for number, site in enumerate(run.plan.sites)}
    found = (alarm for source in SOURCES for alarm in source(run, round_))
    return tuple(sorted(found, key=lambda alarm: place[alarm.site]))


def new_alarms(before: Run, after: Run) -> tuple[Alarm, ...]:
    """Return the alarms that one event has raised, in the round that was in progress and the one that is now."""
    known = {alarm for round_ in before.rounds[-1:] for alarm in alarms(before, round_)}
    changed = [round_ for round_ in after.rounds[max(0, len(before.rounds) - 1) :] if round_ not in before.rounds[-1:]]
    return tuple(alarm for round_ in changed for alarm in alarms(after, round_) if alarm not in known)
