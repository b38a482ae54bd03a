"""The couriers, as long as a coordinator runs, and for what one has left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from coordinator.home.home import Home
from coordinator.notify.happenings import Happenings
from coordinator.notify.receivers import receivers
from coordinator.run.engine import Engine
from coordinator.run.history import replayed
from fedcervix.core.rounds.state import Run
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.notify.courier import Courier
from fedcervix.notify.outbox import file_of
from fedcervix.runtime.log import logger

LAST_S = 15.0
"""for the messages of a run that has ended"""
STOP_S = 2.0
"""where the coordinator was stopped: the next start sends the rest"""


def couriers(home: Home, begun_at: float, run: Callable[[], Run], trouble: Callable[[], str]) -> list[Courier]:
    """Return a courier for each receiver; each reads the journal for itself. Raises ConfigError."""
    settings = home.config().notify
    source = partial(Happenings, home, settings.on, begun_at, run, trouble)
    return [
        Courier(one, source(), file_of(home.folder, one.name), give_up_s=settings.give_up_h * 3600)
        for one in receivers(home)
    ]


def left(home: Home) -> list[Courier]:
    """Return couriers for what an ended or stopped coordinator has left. Raises ConfigError, StorageError."""
    with contextlib.closing(Journal(home.journal, read_only=True)) as journal:
        records = [record for record in journal.runs() if isinstance(record, RunRecord)]
        if not records:
            return []
        last = replayed(journal, records[-1])
    return couriers(home, records[-1].begun_at, lambda: last, lambda: "")


@contextlib.contextmanager
def notifying(home: Home, engine: Engine, begun_at: float) -> Iterator[None]:
    """Tell people what happens within. Raises ConfigError before anything begins."""
    carried = couriers(home, begun_at, lambda: engine.run, lambda: engine.trouble)
    for one in carried:
        one.start()
    try:
        yield
    finally:
        end(carried, LAST_S if engine.run.ended else STOP_S)


def end(carried: Sequence[Courier], within_s: float) -> int:
    """Let couriers send what there is, all at once; return how many messages are left, which is logged, too."""
    with contextlib.ExitStack() as together:
        for one in carried:
            one.end_within(within_s)
            together.callback(one.join)
    left = sum(one.waiting for one in carried)
    if left:
        logger().warning("notifications left", messages=left, next_step="coordinator notify send")
    return left
