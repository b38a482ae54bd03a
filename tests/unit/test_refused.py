"""A model that was refused is not looked at again; what is remembered of it has a bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.run.refused import REMEMBERED_MAX, Refused
from fedcervix.core.events import Task, TaskKind, UpdateStored
from fedcervix.errors import RemoteError

TASK = Task("run", TaskKind.TRAIN, 1, "b" * 64)
UPDATE = UpdateStored("ada", TASK, "c" * 64, 10, 1, 0.5, 1.0, 0.0)


def test_the_same_model_is_refused_in_the_same_words() -> None:
    refused = Refused()
    refused.check(UPDATE)
    refused.note(UPDATE, RemoteError("what", cause="cause", next_step="next"))
    for again in (UPDATE, replace(UPDATE, images=11, loss=0.25, at=9.0)):
        with pytest.raises(RemoteError) as error:
            refused.check(again)
        assert error.value.explain() == RemoteError("what", cause="cause", next_step="next").explain()


@pytest.mark.parametrize(
    "other",
    [
        replace(UPDATE, digest="d" * 64),
        replace(UPDATE, packed="d" * 64),
        replace(UPDATE, task=Task("run", TaskKind.TRAIN, 2, "e" * 64)),
    ],
)
def test_another_model_or_another_task_is_looked_at(other: UpdateStored) -> None:
    refused = Refused()
    refused.note(UPDATE, RemoteError("what"))
    refused.check(other)


def test_only_the_last_few_are_remembered() -> None:
    refused = Refused()
    updates = [replace(UPDATE, digest=f"{number:064x}") for number in range(REMEMBERED_MAX + 1)]
    for update in updates:
        refused.note(update, RemoteError("what"))
    refused.check(updates[0])
    for update in updates[1:]:
        with pytest.raises(RemoteError):
            refused.check(update)
