"""What the agent remembers across restarts."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedcervix.core.events import ModelAdopted, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.session import Kept, Result
from fedcervix.errors import StorageError
from site_agent.store.run_store import Spool

PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
BASE = "b" * 64
UPDATE = UpdateStored("ada", Task("run", TaskKind.TRAIN, 3, BASE), "d" * 64, 10, 7, 0.1 + 0.2, 60.0, 1.5)
SEED = Task("run", TaskKind.SEED, 0, "")
SCORE = ScoreReported("ada", Task("run", TaskKind.SCORE, 3, BASE), 8.0, 4, 10, (("unit_std", 0.9),), 1.5)
RESULTS: list[Result] = [
    UPDATE,
    SCORE,
    ModelAdopted("ada", Task("run", TaskKind.ADOPT, 3, BASE), 1.5),
]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "runs" / "run")
    spool.open(PLAN)
    return spool


@pytest.mark.parametrize("result", [None, *RESULTS], ids=lambda result: type(result).__name__)
@pytest.mark.parametrize("task", [None, UPDATE.task, SEED])
def test_what_is_kept_is_there_for_the_next_process(spool: Spool, task: Task | None, result: Result | None) -> None:
    assert spool.kept() == Kept()
    spool.keep(Kept(task, result))
    assert Spool(spool.folder).kept() == Kept(task, result)
    spool.keep(Kept())
    assert Spool(spool.folder).kept() == Kept()


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"\xff",
        b"[]",
        b'{"task": null, "result": "{}"}',
        b'{"task": {"run": "r"}, "result": null}',
        b'{"task": null, "result": "{\\"event\\":\\"Tick\\",\\"at\\":1.0}"}',
    ],
)
def test_a_damaged_journal_is_named(spool: Spool, content: bytes) -> None:
    (spool.folder / "journal.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"journal\.json is damaged") as caught:
        spool.kept()
    assert caught.value.next_step == "delete it: the work is done again"


@pytest.mark.parametrize("content", [b"", b"\0" * 80])
def test_a_power_cut_may_empty_a_journal_that_holds_no_result(spool: Spool, content: bytes) -> None:
    """What some file systems leave of a file that was replaced and not synced."""
    (spool.folder / "journal.json").write_bytes(content)
    assert spool.kept() == Kept()


def test_the_plan_is_kept_and_opening_again_keeps_the_rest(spool: Spool) -> None:
    spool.keep(Kept(None, UPDATE))
    spool.open(PLAN)
    assert (spool.plan(), spool.kept().result) == (PLAN, UPDATE)


def test_a_plan_that_is_written_down_already_is_not_written_again(spool: Spool) -> None:
    """A restart on a full disk shall not fail at what is there."""
    before = (spool.folder / "plan.json").stat().st_ino
    spool.open(PLAN)
    assert (spool.folder / "plan.json").stat().st_ino == before
    (spool.folder / "plan.json").write_bytes(b"{")
    spool.open(PLAN)
    assert spool.plan() == PLAN


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


def test_a_line_that_a_power_cut_has_torn_costs_itself_alone(spool: Spool) -> None:
    spool.note("train", 1, {"loss": 0.5})
    spool.note("train", 2, {"loss": 0.25})
    file = spool.folder / "history.jsonl"
    file.write_bytes(file.read_bytes()[:-9] + b"\0" * 20)
    spool.note("train", 3, {"loss": 0.125})
    assert spool.history() == {"train": {"1": {"loss": 0.5}, "3": {"loss": 0.125}}}


def test_a_disk_that_takes_a_part_of_a_line_is_a_full_disk_and_costs_no_other_line(tmp_path: Path) -> None:
    """In a process of its own, which may write ten bytes beyond what is there."""
    program = """
import resource, signal, sys
from pathlib import Path
from fedcervix.errors import StorageError
from site_agent.store.run_store import Spool
spool = Spool(Path(sys.argv[1]))
spool.note("train", 1, {"loss": 0.5})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
size = (spool.folder / "history.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
try:
    spool.note("train", 2, {"loss": 0.25})
except StorageError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
spool.note("train", 2, {"loss": 0.25})
print(sorted(spool.history()["train"]))
"""
    said = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["refused", "['1', '2']"]


def test_only_a_trained_model_is_waited_for_until_the_disk_has_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    spool.note("score", 1, {"loss_sum": 4.0})
    spool.keep(Kept(None, SCORE))
    spool.keep(Kept())
    assert not synced
    spool.keep(Kept(None, UPDATE))
    assert len(synced) == 1


LINE = {"round": 1, "loss": 0.5, "contributions": [], "missing": []}


def test_how_the_run_ended(spool: Spool) -> None:
    assert (spool.outcome(), spool.ledger()) == ("not ended yet", [])
    spool.end("DEGRADED", json.dumps({"ledger": [LINE]}))
    assert (spool.outcome(), spool.ledger()) == ("DEGRADED", [LINE])


def test_what_is_known_of_a_run_that_has_ended_stays(spool: Spool) -> None:
    spool.end("OK", "")
    assert spool.ledger() == []
    spool.end("ABORTED", json.dumps({"ledger": [LINE]}))
    assert (spool.outcome(), spool.ledger()) == ("OK", [LINE])  # a record that was missing is added
    spool.end("ABORTED", json.dumps({"ledger": []}))
    spool.open(dataclasses.replace(PLAN, sites=("another",)))
    assert (spool.outcome(), spool.ledger(), spool.plan()) == ("OK", [LINE], PLAN)


def test_a_run_is_not_over_before_its_record_is_there(spool: Spool) -> None:
    (spool.folder / "record.json").mkdir()
    with pytest.raises(StorageError):
        spool.end("OK", '{"ledger": []}')
    assert not spool.ended()


def test_a_spool_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        Spool(tmp_path / "file" / "run").open(PLAN)
    with pytest.raises(StorageError):
        Spool(tmp_path / "nowhere").keep(Kept(None, UPDATE))


def test_the_length_of_the_first_model_is_kept(spool: Spool) -> None:
    assert spool.model_bytes() == 0
    spool.note_model(1234)
    spool.note_model(99)
    assert Spool(spool.folder).model_bytes() == 1234


def test_a_length_that_is_damaged_is_said_as_such(spool: Spool) -> None:
    (spool.folder / "model-bytes.txt").write_text("")
    with pytest.raises(StorageError, match="is damaged"):
        spool.model_bytes()
