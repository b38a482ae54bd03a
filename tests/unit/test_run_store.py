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
from fedcervix.core.session import PersistentState, Result
from fedcervix.errors import StorageError
from fedcervix.runtime.record import LedgerLine
from fedcervix.runtime.typed_json import to_text
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import History, ScoreResult, TrainResult

PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
BASE = "b" * 64
UPDATE = UpdateStored("ada", Task("run", TaskKind.TRAIN, 3, BASE), "d" * 64, 10, 7, 0.1 + 0.2, 60.0, 1.5)
SEED = Task("run", TaskKind.SEED, 0, "")
SCORE = ScoreReported("ada", Task("run", TaskKind.SCORE, 3, BASE), 8.0, 4, 10, (("unit_std", 0.9),), 1.5)
SCORED = ScoreResult(loss_sum=4.0, count=2, images=3, gauges={"unit_std": 0.5})
RESULTS: list[Result] = [
    UPDATE,
    SCORE,
    ModelAdopted("ada", Task("run", TaskKind.ADOPT, 3, BASE), 1.5),
]


def trained(loss: float) -> TrainResult:
    return TrainResult(digest="d", images=3, steps=2, loss=loss, seconds=0.1, gauges={"unit_std": 0.5})


@pytest.fixture
def run_store(tmp_path: Path) -> RunStore:
    run_store = RunStore(tmp_path / "runs" / "run")
    run_store.open(PLAN)
    return run_store


@pytest.mark.parametrize("result", [None, *RESULTS], ids=lambda result: type(result).__name__)
@pytest.mark.parametrize("task", [None, UPDATE.task, SEED])
def test_what_is_kept_is_there_for_the_next_process(
    run_store: RunStore, task: Task | None, result: Result | None
) -> None:
    assert run_store.kept() == PersistentState()
    run_store.keep(PersistentState(task, result))
    assert RunStore(run_store.folder).kept() == PersistentState(task, result)
    run_store.keep(PersistentState())
    assert RunStore(run_store.folder).kept() == PersistentState()


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
def test_a_damaged_journal_is_named(run_store: RunStore, content: bytes) -> None:
    (run_store.folder / "journal.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"journal\.json is damaged") as caught:
        run_store.kept()
    assert caught.value.next_step.endswith("journal.json; the work is then done again")


@pytest.mark.parametrize("content", [b"", b"\0" * 80])
def test_a_power_cut_may_empty_a_journal_that_holds_no_result(run_store: RunStore, content: bytes) -> None:
    """What some file systems leave of a file that was replaced and not synced."""
    (run_store.folder / "journal.json").write_bytes(content)
    assert run_store.kept() == PersistentState()


def test_the_plan_is_kept_and_opening_again_keeps_the_rest(run_store: RunStore) -> None:
    run_store.keep(PersistentState(None, UPDATE))
    run_store.open(PLAN)
    assert (run_store.plan(), run_store.kept().result) == (PLAN, UPDATE)


def test_a_plan_that_is_written_down_already_is_not_written_again(run_store: RunStore) -> None:
    """A restart on a full disk shall not fail at what is there."""
    before = (run_store.folder / "plan.json").stat().st_ino
    run_store.open(PLAN)
    assert (run_store.folder / "plan.json").stat().st_ino == before
    (run_store.folder / "plan.json").write_bytes(b"{")
    run_store.open(PLAN)
    assert run_store.plan() == PLAN


def test_a_plan_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        RunStore(tmp_path).plan()


def test_what_a_round_gave_is_noted_once_however_often_it_is_written(run_store: RunStore) -> None:
    assert run_store.history() == History()
    for _ in range(2):
        run_store.note(1, trained(0.5))
        run_store.note(1, SCORED)
    run_store.note(2, trained(0.25))
    assert run_store.history() == History({1: trained(0.5), 2: trained(0.25)}, {1: SCORED})


def test_the_history_s_lines_stay_as_they_are(run_store: RunStore) -> None:
    """Reports read what earlier versions have written."""
    run_store.note(1, dataclasses.replace(trained(0.5), precision="float32", said=("learns",)))
    run_store.note(1, SCORED)
    assert (run_store.folder / "history.jsonl").read_text().partition("\n")[2] == (
        '{"part": "train", "round": 1, "values": {"digest": "d", "images": 3, "steps": 2, "loss": 0.5, "seconds": 0.1, '
        '"gauges": {"unit_std": 0.5}, "precision": "float32", "said": ["learns"], "base": "", "audit": null}}\n'
        '{"part": "score", "round": 1, "values": {"loss_sum": 4.0, "count": 2, "images": 3, '
        '"gauges": {"unit_std": 0.5}, "knn_auc": null, "said": []}}'
    )


def test_a_line_that_a_power_cut_has_torn_costs_itself_alone(run_store: RunStore) -> None:
    run_store.note(1, trained(0.5))
    run_store.note(2, trained(0.25))
    file = run_store.folder / "history.jsonl"
    file.write_bytes(file.read_bytes()[:-9] + b"\0" * 20)
    run_store.note(3, trained(0.125))
    assert run_store.history() == History({1: trained(0.5), 3: trained(0.125)})


def test_a_disk_that_takes_a_part_of_a_line_is_a_full_disk_and_costs_no_other_line(tmp_path: Path) -> None:
    """In a process of its own, which may write ten bytes beyond what is there."""
    program = """
import resource, signal, sys
from pathlib import Path
from fedcervix.errors import StorageError
from fedcervix.runtime.record import LedgerLine
from fedcervix.runtime.typed_json import to_text
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import TrainResult
made = TrainResult(digest="d", images=3, steps=2, loss=0.5, seconds=0.1)
run_store = RunStore(Path(sys.argv[1]))
run_store.note(1, made)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
size = (run_store.folder / "history.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
try:
    run_store.note(2, made)
except StorageError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
run_store.note(2, made)
print(sorted(run_store.history().train))
"""
    said = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["refused", "[1, 2]"]


def test_only_a_trained_model_is_waited_for_until_the_disk_has_it(
    run_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    run_store.note(1, SCORED)
    run_store.keep(PersistentState(None, SCORE))
    run_store.keep(PersistentState())
    assert not synced
    run_store.keep(PersistentState(None, UPDATE))
    assert len(synced) == 2  # the file, and its name in the folder


LINE = LedgerLine(round=1, loss=0.5, contributions=(), missing=())


def test_how_the_run_ended(run_store: RunStore) -> None:
    assert (run_store.outcome(), run_store.ledger()) == ("no end is known here", ())
    run_store.end("DEGRADED", to_text({"ledger": [LINE]}))
    assert (run_store.outcome(), run_store.ledger()) == ("DEGRADED", (LINE,))


def test_what_is_known_of_a_run_that_has_ended_stays(run_store: RunStore) -> None:
    run_store.end("OK", "")
    assert run_store.ledger() == ()
    run_store.end("ABORTED", to_text({"ledger": [LINE]}))
    assert (run_store.outcome(), run_store.ledger()) == ("OK", (LINE,))  # a record that was missing is added
    run_store.end("ABORTED", json.dumps({"ledger": []}))
    run_store.open(dataclasses.replace(PLAN, sites=("another",)))
    assert (run_store.outcome(), run_store.ledger(), run_store.plan()) == ("OK", (LINE,), PLAN)


def test_a_run_is_not_over_before_its_record_is_there(run_store: RunStore) -> None:
    (run_store.folder / "record.json").mkdir()
    with pytest.raises(StorageError):
        run_store.end("OK", '{"ledger": []}')
    assert not run_store.ended()


def test_a_run_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        RunStore(tmp_path / "file" / "run").open(PLAN)
    with pytest.raises(StorageError):
        RunStore(tmp_path / "nowhere").keep(PersistentState(None, UPDATE))


def test_the_length_of_the_first_model_is_kept(run_store: RunStore) -> None:
    assert run_store.model_bytes() == 0
    run_store.note_model(1234)
    run_store.note_model(99)
    assert RunStore(run_store.folder).model_bytes() == 1234


def test_a_length_that_is_damaged_is_said_as_such(run_store: RunStore) -> None:
    (run_store.folder / "model-bytes.txt").write_text("")
    with pytest.raises(StorageError, match="is damaged"):
        run_store.model_bytes()
