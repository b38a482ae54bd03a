"""What the agent remembers across restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcervix.errors import StorageError
from fedcervix.events import ModelAdopted, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.plan import Plan, Recipe, Terms
from fedcervix.session import Result
from site_agent.spool import Spool

PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
BASE = "b" * 64
UPDATE = UpdateStored("ada", Task("run", TaskKind.TRAIN, 3, BASE), "d" * 64, 10, 7, 0.1 + 0.2, 60.0, 1.5)
RESULTS: list[Result] = [
    UPDATE,
    ScoreReported("ada", Task("run", TaskKind.SCORE, 3, BASE), 8.0, 4, 10, (("unit_std", 0.9),), 1.5),
    ModelAdopted("ada", Task("run", TaskKind.ADOPT, 3, BASE), 1.5),
]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "runs" / "run")
    spool.open(PLAN)
    return spool


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_waits_until_it_is_acknowledged(spool: Spool, result: Result) -> None:
    assert spool.waiting() is None
    spool.put(result)
    assert Spool(spool.folder).waiting() == result
    spool.clear()
    assert Spool(spool.folder).waiting() is None
    spool.clear()


def test_the_newer_result_is_the_one_that_waits(spool: Spool) -> None:
    spool.put(RESULTS[0])
    spool.put(RESULTS[1])
    assert spool.waiting() == RESULTS[1]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"event":"UpdateStored"}', b'{"event":"Tick","at":"x"}'])
def test_a_damaged_result_is_named(spool: Spool, content: bytes) -> None:
    (spool.folder / "outbox.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"outbox\.json is damaged") as caught:
        spool.waiting()
    assert caught.value.next_step == "delete it: the work is done again"


def test_the_plan_is_kept_and_opening_again_keeps_the_rest(spool: Spool) -> None:
    spool.put(UPDATE)
    spool.open(PLAN)
    assert (spool.plan(), spool.waiting()) == (PLAN, UPDATE)


def test_a_plan_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        Spool(tmp_path).plan()


def test_what_a_round_gave_is_noted_once_however_often_it_is_written(spool: Spool) -> None:
    assert spool.history() == {}
    for _ in range(2):
        spool.note("train", 1, {"loss": 0.5})
        spool.note("score", 1, {"loss_sum": 4.0})
    spool.note("train", 2, {"loss": 0.25})
    assert spool.history() == {"train": {"1": {"loss": 0.5}, "2": {"loss": 0.25}}, "score": {"1": {"loss_sum": 4.0}}}


def test_how_the_run_ended(spool: Spool) -> None:
    assert (spool.outcome(), spool.ledger()) == ("not ended yet", [])
    spool.end("DEGRADED", '{"ledger": [{"round": 1}]}')
    assert (spool.outcome(), spool.ledger()) == ("DEGRADED", [{"round": 1}])
    spool.end("OK", "")
    assert spool.ledger() == []


def test_a_spool_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        Spool(tmp_path / "file" / "run").open(PLAN)
    with pytest.raises(StorageError):
        Spool(tmp_path / "nowhere").put(UPDATE)
