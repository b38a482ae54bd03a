"""The agent's loop, between a line and a worker that do as they are told."""

from __future__ import annotations

import dataclasses
import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedcervix import codec
from fedcervix.blobs import BlobStore
from fedcervix.errors import (
    DataError,
    FedcervixError,
    IdentityError,
    LinkError,
    PolicyError,
    RemoteError,
    RunError,
    StorageError,
)
from fedcervix.events import Answer, ModelAdopted, ScoreReported, SiteFailed, Task, TaskKind, UpdateStored
from fedcervix.plan import Plan, Recipe, Terms
from fedcervix.rounds import Instruction, Leave, Outcome, Stand
from site_agent.agent import REMOTE_ERRORS_MAX, Agent
from site_agent.home import SiteHome
from site_agent.home import create as create_home
from site_agent.link import OnBytes
from site_agent.spool import Spool
from site_agent.worker import CancelledError, Worker, WorkFailedError

WAIT_S = 10.0
RUN = "20300101-000000-csfssl-00000000"
OVER = Leave(Outcome.OK, "all rounds done")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


BASE = b"the model to work on"
TRAINED = b"the model after training"
SEED = Task(RUN, TaskKind.SEED, 0, "")
TRAIN = Task(RUN, TaskKind.TRAIN, 1, digest(BASE))
TRAIN_2 = Task(RUN, TaskKind.TRAIN, 2, digest(TRAINED))
SCORE = Task(RUN, TaskKind.SCORE, 1, digest(TRAINED))
ADOPT = Task(RUN, TaskKind.ADOPT, 1, digest(TRAINED))


def plan(**terms: Any) -> Plan:
    return Plan(mode="csfssl", sites=("nhs", "alts"), profile="demo", terms=Terms(**terms), recipe=Recipe())


class Cut:
    """The line ends here; the next `attach` hears what comes after it."""


class FakeLink:
    """A line on which the test speaks; what the agent tells is in `told`, in order."""

    def __init__(self) -> None:
        self._said: queue.Queue[codec.Welcome | Instruction | Cut | FedcervixError] = queue.Queue()
        self.told: list[Any] = []
        self.models = {digest(content): content for content in (BASE, TRAINED)}
        self.answers: Callable[[codec.Report], tuple[Answer, str]] = lambda _report: (Answer.ACCEPTED, "")
        self.before_fetch: Callable[[], None] = lambda: None
        self.chunk_bytes = 1 << 20
        self._changed = threading.Condition()

    def say(self, *what: codec.Welcome | Instruction | Cut | FedcervixError) -> None:
        for one in what:
            self._said.put(one)

    def attach(self) -> Iterator[codec.Welcome | Instruction]:
        while not isinstance(what := self._said.get(), Cut):
            if isinstance(what, FedcervixError):
                raise what
            yield what

    def report(self, report: codec.Report) -> tuple[Answer, str]:
        self._tell(report)
        return self.answers(report)

    def fetch(self, digest: str, blobs: BlobStore, on_bytes: OnBytes) -> None:
        self._tell(("fetch", digest))
        self.before_fetch()
        blobs.receive_all(digest, "coordinator", self._chunks(digest, on_bytes), offset=0)

    def _chunks(self, digest: str, on_bytes: OnBytes) -> Iterator[bytes]:
        content = self.models[digest]
        for start in range(0, len(content), self.chunk_bytes):
            on_bytes(start, len(content))
            yield content[start : start + self.chunk_bytes]

    def push(self, digest: str, blobs: BlobStore, _on_bytes: OnBytes) -> None:
        self._tell(("push", digest))
        assert hashlib.sha256(blobs.path(digest).read_bytes()).hexdigest() == digest

    def _tell(self, what: Any) -> None:
        with self._changed:
            self.told.append(what)
            self._changed.notify_all()

    def hears(self, condition: Callable[[list[Any]], Any]) -> None:
        """Wait until what was told fulfils a condition."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.told), WAIT_S), self.told

    @property
    def reports(self) -> list[Any]:
        """What was told, but progress and readiness."""
        return [what for what in self.told if not isinstance(what, codec.Ready | codec.Progress)]


class FakeWorker:
    """A worker that ends a task when the test lets it; `begun` lists what it was asked."""

    def __init__(self, home: SiteHome) -> None:
        self._blobs = BlobStore(home.blobs)
        self.begun: list[Task] = []
        self.go = threading.Event()
        self.go.set()
        self.ends_with: Exception | None = None
        self._killed = threading.Event()
        self._changed = threading.Condition()
        self.cancels = 0

    def do(
        self, task: Task, _plan: Plan, on_progress: Callable[[dict[str, Any]], None], cancelled: threading.Event
    ) -> dict[str, Any]:
        if cancelled.is_set():
            raise CancelledError
        self._killed.clear()
        with self._changed:
            self.begun.append(task)
            self._changed.notify_all()
        on_progress({"stage": "training", "done": 1, "of": 2, "unit": "steps"})
        while not self.go.wait(0.01):
            if self._killed.is_set():
                raise CancelledError
        if self.ends_with is not None:
            raise self.ends_with
        if task.kind is TaskKind.SCORE:
            return {"loss_sum": 2.0, "count": 4, "images": 9, "gauges": {"unit_std": 0.5, "private": 1.0}}
        making = self._blobs.scratch("made")
        making.write_bytes(TRAINED)
        self._blobs.adopt(making, digest(TRAINED))
        return {"digest": digest(TRAINED), "images": 9, "steps": 3, "loss": 1.5, "seconds": 0.1, "patient": 4711}

    def cancel(self) -> None:
        self.cancels += 1
        self._killed.set()

    def begins(self, count: int) -> None:
        """Wait until it was asked so many tasks."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= count, WAIT_S), self.begun


class Site:
    """An agent on its own thread, its home, line and worker; `end` is what it returned or raised."""

    def __init__(self, folder: Path) -> None:
        self.home = SiteHome(folder)
        create_home(self.home)
        self.begin()

    def begin(self) -> None:
        """Start an agent on this home, as after a restart of the process."""
        self.link, self.worker = FakeLink(), FakeWorker(self.home)
        self.shown: list[tuple[str, dict[str, Any]]] = []
        self.agent = Agent(
            self.home,
            "nhs",
            self.link,
            self.worker,  # type: ignore[arg-type]
            lambda what, values: self.shown.append((what, values)),
        )
        self._ended: list[Leave | BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._ended.append(self.agent.run())
        except (FedcervixError, KeyboardInterrupt) as error:
            self._ended.append(error)

    def attach(self, *said: Instruction, **terms: Any) -> None:
        """Start the thread; the coordinator says welcome, and then this."""
        self._thread.start()
        self.link.say(codec.Welcome("cervix", RUN, plan(**terms)), *said)

    def end(self) -> Any:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), f"the agent goes on; told: {self.link.told}"
        self.link.say(Cut())  # lets the listener's thread end
        return self._ended[0]

    def spool(self) -> Spool:
        return Spool(self.home.run_folder(RUN))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def kinds(reports: list[Any]) -> list[str]:
    return [what[0] if isinstance(what, tuple) else type(what).__name__ for what in reports]


def update(task: Task) -> Callable[[list[Any]], bool]:
    return lambda told: any(isinstance(what, UpdateStored) and what.task == task for what in told)


# --- a run -------------------------------------------------------------------------------------------------------


def test_an_agent_does_what_it_is_asked_and_leaves_when_the_run_is_over(site: Site) -> None:
    site.attach(SEED)
    site.link.hears(update(SEED))
    site.link.say(Stand("waiting"), TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(SCORE)
    site.link.hears(lambda told: any(isinstance(what, ScoreReported) for what in told))
    site.link.say(ADOPT)
    site.link.hears(lambda told: any(isinstance(what, ModelAdopted) for what in told))
    site.link.say(dataclasses.replace(OVER, record='{"run": "it"}'))

    assert site.end().outcome is Outcome.OK
    assert site.worker.begun == [SEED, TRAIN, SCORE]
    trained = ["fetch", "push", "UpdateStored"]
    assert kinds(site.link.reports) == ["push", "UpdateStored", *trained, "ScoreReported", "ModelAdopted"]
    model = site.home.models / RUN / "cervix-model.safetensors"
    assert model.read_bytes() == TRAINED
    assert site.spool().outcome() == "OK"
    assert site.spool().waiting() is None


def test_ready_names_the_contract_that_was_accepted(site: Site) -> None:
    site.attach(Stand("waiting"))
    site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
    site.link.say(OVER)
    site.end()


def test_only_numbers_on_the_list_are_told(site: Site) -> None:
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(SCORE)
    site.link.hears(lambda told: any(isinstance(what, ScoreReported) for what in told))
    site.link.say(OVER)
    site.end()
    [score] = [what for what in site.link.told if isinstance(what, ScoreReported)]
    assert score.gauges == (("unit_std", 0.5),)
    assert "4711" not in repr(site.link.told)


def test_a_model_is_there_before_it_is_reported(site: Site) -> None:
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    site.end()
    assert kinds(site.link.reports) == ["fetch", "push", "UpdateStored"]


def test_the_same_instruction_twice_is_one_piece_of_work(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN, TRAIN)
    site.worker.begins(1)
    site.link.say(TRAIN)
    site.worker.go.set()
    site.link.hears(update(TRAIN))
    site.link.say(TRAIN, OVER)
    site.end()
    assert site.worker.begun == [TRAIN]
    assert site.worker.cancels == 1  # at the end


# --- the line ----------------------------------------------------------------------------------------------------


def test_work_goes_on_while_the_line_is_down(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.link.say(Cut(), LinkError("no line"), StorageError("the coordinator's disk is full"))
    site.worker.go.set()
    site.link.hears(update(TRAIN))
    site.link.say(codec.Welcome("cervix", RUN, plan()), Stand("waiting"), OVER)
    site.end()
    assert site.worker.begun == [TRAIN]
    assert [what for what, _ in site.shown].count("line up") == 1


def test_an_answer_that_was_lost_is_asked_for_again(site: Site) -> None:
    lost = [LinkError("cut"), StorageError("the coordinator's disk is full"), RunError("send it again")]

    def answer(report: codec.Report) -> tuple[Answer, str]:
        if isinstance(report, UpdateStored) and lost:
            raise lost.pop(0)
        return Answer.DUPLICATE, ""

    site.link.answers = answer
    site.attach(TRAIN)
    site.link.hears(lambda told: sum(isinstance(what, UpdateStored) for what in told) == 4)
    site.link.say(OVER)
    site.end()
    assert kinds(site.link.reports) == ["fetch", *["push", "UpdateStored"] * 4]
    assert site.worker.begun == [TRAIN]


def test_bytes_that_arrive_wrong_again_and_again_end_the_agent(site: Site) -> None:
    site.link.models[TRAIN.base] = b"not what its digest says"
    site.attach(TRAIN)
    assert isinstance(site.end(), RemoteError)
    fetches = [what for what in site.link.told if what == ("fetch", TRAIN.base)]
    assert len(fetches) == REMOTE_ERRORS_MAX
    assert site.worker.begun == []


def test_a_refused_certificate_ends_the_agent_at_once(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.link.say(IdentityError("the certificate of site nhs is revoked"))
    assert isinstance(site.end(), IdentityError)
    assert site.worker.cancels == 1


@pytest.mark.parametrize("outcome", ["OK", "DEGRADED"])
def test_a_line_that_closes_after_the_model_was_adopted_is_the_end(site: Site, outcome: str) -> None:
    """The answer to the adoption tells how the run ended, so that a lost last word does not read as OK."""
    site.link.answers = lambda told: (Answer.ACCEPTED, outcome if isinstance(told, ModelAdopted) else "")
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(ADOPT)
    site.link.hears(lambda told: any(isinstance(what, ModelAdopted) for what in told))
    site.link.say(Cut(), LinkError("nobody there"), LinkError("nobody there"))
    assert site.end().outcome == outcome


# --- changes of mind ---------------------------------------------------------------------------------------------


def test_work_that_is_no_longer_wanted_is_killed(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.link.models[TRAIN_2.base] = TRAINED
    site.link.say(TRAIN_2)
    site.worker.begins(2)
    site.worker.go.set()
    site.link.hears(update(TRAIN_2))
    site.link.say(OVER)
    site.end()
    assert site.worker.begun == [TRAIN, TRAIN_2]
    assert [what.task for what in site.link.told if isinstance(what, UpdateStored)] == [TRAIN_2]


def test_a_download_that_is_no_longer_wanted_is_not_finished_and_its_task_never_begins(site: Site) -> None:
    """A slow line must not make a site train for a round that was closed without it."""
    fetching, go = threading.Event(), threading.Event()

    def slow() -> None:
        fetching.set()
        assert go.wait(WAIT_S)

    site.link.before_fetch = slow
    site.link.chunk_bytes = 4
    site.attach(TRAIN)
    assert fetching.wait(WAIT_S)
    site.link.say(Stand("round 1 was closed without this site"))
    cancelled = threading.Event()
    site.agent._worker.cancel = cancelled.set  # type: ignore[method-assign]
    assert cancelled.wait(WAIT_S)
    site.link.before_fetch = lambda: None
    go.set()
    site.link.say(TRAIN_2)
    site.worker.begins(1)
    site.link.hears(update(TRAIN_2))
    site.link.say(OVER)
    site.end()
    assert site.worker.begun == [TRAIN_2]
    assert not BlobStore(site.home.blobs).has(TRAIN.base)


def test_a_result_of_an_abandoned_run_does_not_get_into_the_next_one(site: Site) -> None:
    """`coordinator start --new`, while a site is in the middle of something that does not end at once."""
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.worker.cancel = lambda: None  # type: ignore[method-assign]  # as if it had ended just before it was killed
    other = "20300102-000000-csfssl-00000000"
    site.link.say(Cut(), codec.Welcome("cervix", other, plan(seed=1)), Stand("waiting for alts to attach"))
    site.link.hears(lambda told: codec.Ready(other, plan(seed=1).digest) in told)
    site.worker.go.set()
    second = dataclasses.replace(TRAIN, run=other)
    site.link.say(second)
    site.link.hears(update(second))
    site.link.say(OVER)
    assert site.end() == OVER
    assert [what.task.run for what in site.link.told if isinstance(what, UpdateStored)] == [other]
    waiting = site.spool().waiting()
    assert waiting is not None
    assert waiting.task == TRAIN  # it lies in the folder of its own run


def test_a_task_that_was_given_up_before_its_worker_was_there_starts_none(tmp_path: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    worker = Worker(SiteHome(tmp_path), "nhs")
    with pytest.raises(CancelledError):
        worker.do(TRAIN, plan(), lambda _values: None, cancelled)
    assert worker._process is None


# --- restarts ----------------------------------------------------------------------------------------------------


def test_a_finished_result_outlives_the_process_and_is_not_worked_on_again(site: Site) -> None:
    def cut(report: codec.Report) -> tuple[Answer, str]:
        if isinstance(report, UpdateStored):
            raise LinkError("cut")
        return Answer.ACCEPTED, ""

    site.link.answers = cut
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)

    site.begin()
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    assert site.end() == OVER
    assert site.worker.begun == []
    assert kinds(site.link.reports) == ["push", "UpdateStored"]


def test_an_acknowledged_result_is_not_told_by_the_next_process(site: Site) -> None:
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(Stand("waiting"))
    site.agent.stop()
    site.end()
    site.spool().clear()  # at the latest when the answer came
    site.begin()
    site.attach(Stand("waiting"), OVER)
    site.end()
    assert site.link.reports == []


def test_stopping_kills_the_work_and_keeps_nothing_half_done(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    assert site.worker.cancels == 1
    assert site.spool().waiting() is None


# --- what ends it ------------------------------------------------------------------------------------------------


def test_a_plan_that_the_policy_forbids_is_refused_in_words_before_anything_is_done(site: Site) -> None:
    site.home.config_file.write_text("[policy]\nrounds_max = 1\n")
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, PolicyError)
    [refusal] = site.link.reports
    assert refusal == codec.Refusal(RUN, "the plan asks up to 50 rounds; [policy] rounds_max is 1")
    assert "rounds_max is 1" in error.what
    assert site.worker.begun == []
    assert not site.home.run_folder(RUN).exists()


def test_work_that_breaks_is_told_under_a_number_and_the_account_stays_here(site: Site) -> None:
    site.worker.ends_with = WorkFailedError(
        "images/zamora.jpg cannot be read",
        cause="the disk",
        next_step="look",
        stage="reading images",
        trace="Traceback: zamora",
        exit_code=DataError.exit_code,
    )
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, WorkFailedError)
    [_, failure] = site.link.reports
    assert isinstance(failure, SiteFailed)
    assert (failure.stage, "zamora" in failure.hint) == ("reading images", False)
    account = site.home.incidents / f"{failure.incident}.txt"
    assert "zamora" in account.read_text()
    assert str(account) in error.cause


def test_a_failure_that_cannot_be_told_ends_the_agent_all_the_same(site: Site) -> None:
    def cut(_report: codec.Report) -> tuple[Answer, str]:
        raise LinkError("cut")

    site.link.answers = cut
    site.worker.ends_with = StorageError("the disk is full")
    site.attach(TRAIN)
    assert isinstance(site.end(), StorageError)
    assert len(list(site.home.incidents.iterdir())) == 1


def test_a_bug_in_a_thread_ends_the_agent_instead_of_leaving_it_waiting(site: Site) -> None:
    site.worker.ends_with = KeyError("no such number")
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, FedcervixError)
    assert "no such number" in error.what


def test_a_result_that_no_correct_site_gives_ends_the_agent(site: Site) -> None:
    site.link.answers = lambda report: (
        (Answer.REFUSED, "unknown round") if isinstance(report, UpdateStored) else (Answer.ACCEPTED, "")
    )
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, RunError)
    assert "unknown round" in error.what


def test_a_revoked_site_leaves_as_aborted(site: Site) -> None:
    site.attach(Leave(Outcome.ABORTED, "this site's certificate was revoked"))
    assert site.end().outcome is Outcome.ABORTED


# --- signs of life -----------------------------------------------------------------------------------------------


def test_a_step_longer_than_a_lease_is_bridged_by_repeated_progress(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site_agent.agent.PROGRESS_S", 0.01)
    site.worker.go.clear()
    site.attach(TRAIN, lease_s=0.2)
    site.link.hears(lambda told: sum(isinstance(what, codec.Progress) for what in told) >= 4)
    site.worker.go.set()
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    site.end()
    progress = [what for what in site.link.told if isinstance(what, codec.Progress)]
    assert {what.task for what in progress} == {TRAIN}
    assert progress[-1].stage == "training"
