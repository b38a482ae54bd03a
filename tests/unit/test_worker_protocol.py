"""What a worker process and the one that started it say to one another."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import queue
import subprocess
import sys
from typing import Any

import pytest

from fedcervix.core.pace import SitePace
from fedcervix.errors import DataError, FedcervixError
from fedcervix.runtime.typed_json import from_json
from fedcervix.runtime.worker_protocol import (
    PROGRESS_S,
    Answer,
    Answers,
    ErrorParts,
    Failure,
    ForeignAnswerError,
    RequestDone,
    WorkerStopped,
    WorkProgress,
    answers,
    ask,
    from_line,
    requests,
    to_line,
)
from site_agent.store.task_results import ScoreResult, TrainResult, UnusableResult
from site_agent.worker.messages import result_from_json, result_to_json
from site_agent.worker.preflight import Cost, Findings

ERROR = DataError("a manifest lacks a column", cause="another export", next_step="add it")
FAILURE = Failure.of(ValueError("4711"), ERROR, "reading")
PROGRESS = WorkProgress("training", 3, 8, "steps", 0.1 + 0.2, 1e-7, "a note", ErrorParts("what", "cause", "next"))
COST = Cost(
    device="cpu",
    epochs_per_round=1,
    rounds_max=2,
    pace=SitePace(
        steps=1, decode_high_s=0.5, memory_bytes=3, memory_free_bytes=4, disk_bytes=5, disk_free_bytes=6, gpu=False
    ),
)
FINDINGS = Findings(
    images=1,
    training_images=1,
    women=1,
    unreadable=0,
    shared_pictures=0,
    remarks=("one",),
    cost=COST,
    details="data check",
)
GAUGES = {"unit_std": 0.5, "uniformity": -2.0}


@pytest.mark.parametrize(
    "answer", [PROGRESS, WorkProgress("x"), RequestDone("key"), FAILURE, WorkerStopped(True)], ids=str
)
def test_an_answer_arrives_as_it_was_said(answer: Answer) -> None:
    line = to_line(answer)
    assert line.endswith("\n")
    assert from_line(line, str) == answer


@pytest.mark.parametrize(
    "result",
    [
        TrainResult(digest="d", images=1, steps=2, loss=0.1 + 0.2, seconds=1e-9, gauges=GAUGES, said=("a", "b")),
        ScoreResult(loss_sum=2.0, count=4, images=9, gauges=GAUGES, knn_auc=0.7),
        UnusableResult(steps=3, said=("no finite loss",)),
        FINDINGS,
    ],
    ids=lambda result: type(result).__name__,
)
def test_a_result_arrives_with_the_same_bits(result: Any) -> None:
    assert from_line(to_line(RequestDone(result_to_json(result))), result_from_json) == RequestDone(result)


def test_a_loss_that_is_no_number_is_told() -> None:
    told = from_line(to_line(WorkProgress("training", loss=math.nan)), str)
    assert isinstance(told, WorkProgress)
    assert math.isnan(told.loss)


def test_a_file_name_that_is_not_utf_8_does_not_break_the_conversation() -> None:
    """The operating system hands such a name over with half characters, for which JSON has no form."""
    said = WorkProgress("x", note=os.fsdecode(b"cannot read caf\xe9.jpg"))
    assert from_line(to_line(said), str) == WorkProgress("x", note="cannot read caf?.jpg")


@pytest.mark.parametrize(
    "line",
    [
        "Loading ...",
        "3",
        "[]",
        "{}",
        '{"news": 1}',
        '{"done": "a", "failed": 1}',
        '{"progress": {"done": 1}}',
        '{"progress": {"stage": "x", "done": "1"}}',
        '{"progress": {"stage": "x", "speed": 1}}',
        '{"stopped": {"kept": 1}}',
        '{"done": {"trained": {}}}',
        '{"done": {"seen": {}}}',
        '{"done": 1}',
    ],
)
def test_what_is_no_answer_is_refused(line: str) -> None:
    with pytest.raises(ForeignAnswerError, match="a line that is not an answer") as caught:
        from_line(line + "\n", result_from_json)
    assert caught.value.next_step


def test_a_foreign_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"^Findings\.cost\.rounds_max: Input should be a valid integer$"):
        from_json(Findings, dataclasses.asdict(FINDINGS) | {"cost": dataclasses.asdict(COST) | {"rounds_max": "5"}})


def test_an_error_arrives_with_its_three_lines_and_what_was_done() -> None:
    error = FAILURE.trouble.error(DataError)
    assert (error.what, error.cause, error.next_step) == (ERROR.what, ERROR.cause, ERROR.next_step)
    assert (FAILURE.kind, FAILURE.stage, FAILURE.exit_code) == ("DataError", "reading", DataError.exit_code)
    assert "ValueError: 4711" in FAILURE.trace
    assert type(FAILURE.trouble.error()) is FedcervixError


# --- the worker's side --------------------------------------------------------------------------------------------


def test_progress_is_told_now_and_then_but_each_stage_s_first_and_last_line_always() -> None:
    now = [100.0]
    lines = io.StringIO()
    said = Answers(lines, clock_s=lambda: now[0])
    said.begin("training")
    for at in (WorkProgress("training", 1, 9), WorkProgress("training", 2, 9), WorkProgress("validating", 1, 9)):
        said.progress(at)
    now[0] += PROGRESS_S
    for at in (WorkProgress("validating", 2, 9), WorkProgress("validating", 3, 9), WorkProgress("validating", 9, 9)):
        said.progress(at)
    told = [json.loads(line)["progress"] for line in lines.getvalue().splitlines()]
    assert [(one["stage"], one["done"]) for one in told] == [
        ("training", 1),
        ("validating", 1),
        ("validating", 2),
        ("validating", 9),
    ]
    assert said.stage == "validating"


def test_a_worker_goes_on_where_nobody_reads() -> None:
    """Its input ends as well, and says so: a study's cell still keeps its checkpoint."""

    class Unread(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    said = Answers(Unread())
    said.say(WorkerStopped(True))
    said.progress(WorkProgress("training"))


def test_requests_come_in_order_and_stop_and_end_are_told_at_once() -> None:
    told: queue.Queue[str] = queue.Queue()
    asked = requests(["one\n", "stop\n", "two\n"], on_stop=lambda: told.put("stop"), on_end=lambda: told.put("end"))
    assert [asked.get(timeout=60), asked.get(timeout=60)] == ["one\n", "two\n"]
    assert [told.get(timeout=60), told.get(timeout=60)] == ["stop", "end"]


# --- both sides ---------------------------------------------------------------------------------------------------

WORKER = """
import sys
from fedcervix.runtime.worker_protocol import Answers, RequestDone, WorkProgress
said = Answers.on_stdout()
print("a library says something")
said.say(WorkProgress("reading " + sys.stdin.readline().strip()))
said.say(RequestDone("key"))
said._lines.write('{"done": "half a li')
said._lines.flush()
"""


def test_what_a_library_prints_and_half_a_line_do_not_break_the_conversation() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        ask(process, {"work": "make"})
        assert list(answers(process, str)) == [WorkProgress('reading {"work": "make"}'), RequestDone("key")]
        assert process.stderr is not None
        assert process.stderr.read() == "a library says something\n"
