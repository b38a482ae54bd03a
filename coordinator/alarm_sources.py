"""What raises alarms: one table of functions of the ledger. A function added here has its alarms shown everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coordinator.count_alarms import count_alarms, share_alarms
from coordinator.unusable_models import contradicted, spoilt
from coordinator.unusual_steps import unusual_steps
from fedcervix.alarms import Alarm
from fedcervix.rounds import Round, Run

Source = Callable[[Run, Round], Iterable[Alarm]]

SOURCES: tuple[Source, ...] = (unusual_steps, spoilt, contradicted, count_alarms, share_alarms)


def alarms(run: Run, round_: Round) -> tuple[Alarm, ...]:
    """Return the alarms of one round of a run, by site in roster order."""
    place = {site: number for number, site in enumerate(run.plan.sites)}
    found = (alarm for source in SOURCES for alarm in source(run, round_))
    return tuple(sorted(found, key=lambda alarm: place[alarm.site]))
