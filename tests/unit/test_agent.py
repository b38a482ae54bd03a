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

from fedcervix.core.compression import Packed
from fedcervix.core.events import Answer, ModelAdopted, ScoreReported, SiteFailed, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import Finish, Idle, Instruction
from fedcervix.core.rounds.state import Outcome
from fedcervix.core.session import PersistentState
from fedcervix.errors import (
    DataError,
    DuplicateAgentError,
    FedcervixError,
    FullDiskError,
    IdentityError,
    LinkError,
    PolicyError,
    RemoteError,
    RunError,
    StorageError,
)
from fedcervix.models.blobs import BlobStore
from fedcervix.network import codec
from site_agent.federation import compression
from site_agent.federation.agent import REMOTE_ERRORS_MAX, Agent
from site_agent.federation.link import OnBytes
from site_agent.home import SiteHome
from site_agent.home import create as create_home
from site_agent.store.run_store import RunStore
from site_agent.worker.worker import CancelledError, Worker, WorkFailedError

WAIT_S = 60.0
RUN = "20300101-000000-csfssl-00000000"
OVER = Finish(Outcome.OK, "all rounds done")
KEPT = "the coordinator is away; the result of round 1 is saved and will be sent on reconnect"


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
        self.bounds: list[int] = []
        """how long a model might be, at each fetch"""
        self.models = {digest(content): content for content in (BASE, TRAINED)}
        self.forms: dict[str, Packed] = {}
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

    def sign(self, report: codec.Heartbeat) -> None:
        self.report(report)

    def fetch(self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, bytes_max: int = 8 * 2**30) -> None:
        self._tell(("fetch", digest))
        self.before_fetch()
        self.bounds.append(bytes_max)
        if digest not in self.models:
            raise RunError("the model is not for this site now")
        size, have = len(self.models[digest]), blobs.resume_at(digest, "coordinator")
        assert blobs.expect(digest, "coordinator", size_bytes=size) == have
        blobs.receive(digest, "coordinator", self._chunks(digest, have, on_bytes), offset=have, size_bytes=size)

    def _chunks(self, digest: str, have: int, on_bytes: OnBytes) -> Iterator[bytes]:
        content = self.models[digest]
        for start in range(have, len(content), self.chunk_bytes):
            chunk = content[start : start + self.chunk_bytes]
            on_bytes(start + len(chunk), len(content))
            yield chunk

    def push(self, digest: str, blobs: BlobStore, _on_bytes: OnBytes) -> None:
        self._tell(("push", digest))
        assert hashlib.sha256(blobs.path(digest).read_bytes()).hexdigest() == digest

    def packed(self, digest: str) -> Packed | None:
        return self.forms.get(digest)

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
        self.cancels = self.stops = 0
        self.on_stop: Callable[[], None] = lambda: self._killed.set()

    def do(
        self, task: Task, _plan: Plan, on_progress: Callable[[dict[str, Any]], None], cancelled: threading.Event
    ) -> dict[str, Any]:
        if cancelled.is_set():
            raise CancelledError
        killed = self._killed = threading.Event()  # its own: one that was killed must not live on with the next
        with self._changed:
            self.begun.append(task)
            self._changed.notify_all()
        on_progress({"stage": "training", "done": 1, "of": 2, "unit": "steps"})
        while not self.go.wait(0.01):
            if killed.is_set():
                break
        if killed.is_set():  # also where it was let go after that: the dead make no model
            raise CancelledError
        if self.ends_with is not None:
            raise self.ends_with
        if task.kind is TaskKind.SCORE:
            return {"loss_sum": 2.0, "count": 4, "images": 9, "gauges": {"unit_std": 0.5, "private": 1.0}}
        making = self._blobs.scratch("made")
        making.write_bytes(TRAINED)
        self._blobs.adopt(making, digest(TRAINED))
        return {"digest": digest(TRAINED), "images": 9, "steps": 3, "loss": 1.5, "seconds": 0.1, "patient": 4711}

    def stop(self) -> None:
        self.stops += 1
        self.on_stop()

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

    def begin(self, **options: Any) -> None:
        """Start an agent on this home, as after a restart of the process."""
        self.link, self.worker = FakeLink(), FakeWorker(self.home)
        self.shown: list[tuple[str, dict[str, Any]]] = []
        self._shown = threading.Condition()
        self.agent = Agent(
            self.home,
            "nhs",
            self.link,
            self.worker,  # type: ignore[arg-type]
            self._show,
            federation="cervix",
            **options,
        )
        self._ended: list[Finish | BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._ended.append(self.agent.run())
        except (FedcervixError, KeyboardInterrupt) as error:
            self._ended.append(error)

    def _show(self, what: str, values: dict[str, Any]) -> None:
        with self._shown:
            self.shown.append((what, values))
            self._shown.notify_all()

    def shows(self, what: str, **values: Any) -> None:
        """Wait until the agent has told a person something."""

        def shown() -> bool:
            return any(name == what and values.items() <= found.items() for name, found in self.shown)

        with self._shown:
            assert self._shown.wait_for(shown, WAIT_S), self.shown

    def alone(self) -> None:
        """Start the thread; what the line does, the test says."""
        self._thread.start()

    def attach(self, *said: Instruction, **terms: Any) -> None:
        """Start the thread; the coordinator says welcome, and then this."""
        self.alone()
        self.link.say(codec.Welcome("cervix", RUN, plan(**terms)), *said)

    def end(self) -> Any:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), f"the agent goes on; told: {self.link.told}"
        self.link.say(Cut())  # lets the listener's thread end
        return self._ended[0]

    def run_store(self) -> RunStore:
        return RunStore(self.home.run_folder(RUN))


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
    site.link.say(Idle("waiting"), TRAIN)
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
    assert site.run_store().outcome() == "OK"
    assert site.run_store().kept() == PersistentState()


def test_ready_names_the_contract_that_was_accepted(site: Site) -> None:
    site.attach(Idle("waiting"))
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
    site.shows("line down", works=True)
    site.worker.go.set()
    site.shows("resting", reason=KEPT)
    assert not update(TRAIN)(site.link.told)
    site.link.say(codec.Welcome("cervix", RUN, plan()), Idle("waiting"))
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    site.end()
    assert site.worker.begun == [TRAIN]
    assert [what for what, _ in site.shown].count("line up") == 1


def test_a_delivery_that_the_line_cuts_short_is_taken_up_again(site: Site) -> None:
    site.link.answers = cut_line
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(LinkError("no line"))
    site.shows("resting", reason=KEPT)
    told = len(site.link.told)
    site.link.answers = lambda _report: (Answer.ACCEPTED, "")
    site.link.say(codec.Welcome("cervix", RUN, plan()), TRAIN)
    site.link.hears(lambda told_now: update(TRAIN)(told_now[told:]))
    site.link.say(Idle("waiting"), OVER)
    site.end()
    assert site.worker.begun == [TRAIN]


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


def test_an_agent_that_is_one_too_many_ends_and_reports_no_failure(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.link.say(Cut(), DuplicateAgentError("another agent of site nhs is connected"))
    assert isinstance(site.end(), DuplicateAgentError)
    assert site.worker.cancels == 1
    assert kinds(site.link.reports) == ["fetch"]
    assert list(site.home.incidents.iterdir()) == []


def test_a_call_that_is_taken_for_a_twin_s_is_tried_again(site: Site) -> None:
    """Whether this agent is the one too many is said when it attaches."""
    refused = [DuplicateAgentError("another agent of site nhs is connected")] * 2

    def answer(report: codec.Report) -> tuple[Answer, str]:
        if refused and not isinstance(report, codec.Progress):
            raise refused.pop()
        return Answer.ACCEPTED, ""

    site.link.answers = answer
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
    site.link.say(OVER)
    assert site.end() == OVER


def test_a_coordinator_that_is_back_is_told_how_far_the_work_is(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN, lease_s=3600.0)
    site.link.hears(lambda told: any(isinstance(what, codec.Progress) and what.stage == "training" for what in told))
    before = len(site.link.told)
    site.link.say(Cut(), codec.Welcome("cervix", RUN, plan(lease_s=3600.0)), TRAIN)
    site.link.hears(lambda told: any(isinstance(what, codec.Progress) for what in told[before:]))
    site.worker.go.set()
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    site.end()


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


def test_a_model_may_be_twice_as_long_as_the_run_s_first_one_and_no_longer(site: Site) -> None:
    site.link.models[TRAIN_2.base] = TRAINED
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(SCORE, dataclasses.replace(TRAIN_2, base=digest(b"third")))
    site.link.models[digest(b"third")] = b"third"
    site.link.hears(lambda told: any(isinstance(what, UpdateStored) and what.task.round == 2 for what in told))
    site.link.say(OVER)
    site.end()
    assert site.link.bounds == [8 * 2**30, 2 * len(BASE)]  # what it made itself it did not fetch


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
    site.link.say(Idle("round 1 was closed without this site"))
    site.shows("instructed", instruction=Idle("round 1 was closed without this site"))
    assert site.agent._job is not None
    assert site.agent._job.cancelled.wait(WAIT_S)
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
    site.link.say(Cut(), codec.Welcome("cervix", other, plan(seed=1)), Idle("waiting for alts to attach"))
    site.link.hears(lambda told: codec.Ready(other, plan(seed=1).digest) in told)
    site.worker.go.set()
    second = dataclasses.replace(TRAIN, run=other)
    site.link.say(second)
    site.link.hears(update(second))
    site.link.say(OVER)
    assert site.end() == OVER
    assert [what.task.run for what in site.link.told if isinstance(what, UpdateStored)] == [other]
    waiting = site.run_store().kept().result
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


def cut_line(report: codec.Report) -> tuple[Answer, str]:
    """What a line answers on which no result comes through."""
    if isinstance(report, UpdateStored):
        raise LinkError("cut")
    return Answer.ACCEPTED, ""


def test_a_finished_result_outlives_the_process_and_is_not_worked_on_again(site: Site) -> None:
    site.link.answers = cut_line
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
    site.link.say(Idle("waiting"))
    site.shows("resting", reason="waiting")
    site.agent.stop()
    site.end()
    site.begin()
    site.attach(Idle("waiting"), OVER)
    site.end()
    assert site.link.reports == []
    assert site.worker.begun == []


def interrupted(site: Site, **terms: Any) -> None:
    """Let an agent be ended while it trains."""
    site.worker.go.clear()
    site.attach(TRAIN, **terms)
    site.worker.begins(1)
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    site.begin()


def test_a_restarted_agent_trains_before_its_coordinator_is_back_and_keeps_the_result(site: Site) -> None:
    interrupted(site)
    site.alone()
    site.worker.begins(1)
    site.shows("resumed", run=RUN, task=TRAIN)
    site.link.say(LinkError("nobody there"))
    site.shows("resting", reason=KEPT)
    assert site.link.told == []

    site.link.say(codec.Welcome("cervix", RUN, plan()), Idle("waiting"))
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN]
    assert [what for what, _ in site.shown].count("attached") == 1


def test_a_restarted_agent_that_is_asked_for_something_else_gives_up_what_it_goes_on_with(site: Site) -> None:
    interrupted(site)
    site.worker.go.clear()
    site.link.models[TRAIN_2.base] = TRAINED
    site.alone()
    site.worker.begins(1)
    site.link.say(codec.Welcome("cervix", RUN, plan()), TRAIN_2)
    site.worker.begins(2)
    site.worker.go.set()
    site.link.hears(update(TRAIN_2))
    site.link.say(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN, TRAIN_2]


def test_a_restarted_agent_whose_model_is_not_here_says_so_and_waits(site: Site) -> None:
    interrupted(site)
    BlobStore(site.home.blobs).retire(())
    site.alone()
    site.link.say(LinkError("nobody there"))
    site.shows("resting", reason="the coordinator is away, and with it the model needed to train in round 1")
    assert site.worker.begun == []
    site.link.say(codec.Welcome("cervix", RUN, plan()), TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    assert site.end() == OVER


def test_a_policy_that_was_tightened_meanwhile_holds_for_what_was_begun(site: Site) -> None:
    interrupted(site)
    site.home.config_file.write_text("[policy]\nrounds_max = 1\n")
    site.alone()
    site.link.say(LinkError("nobody there"))
    site.shows("line down")
    [said] = [values["text"] for what, values in site.shown if what == "said"]
    assert "[policy] rounds_max is 1" in said
    assert site.worker.begun == []
    site.link.say(codec.Welcome("cervix", RUN, plan()))
    assert isinstance(site.end(), PolicyError)
    assert [type(what) for what in site.link.told] == [codec.Refusal]


def test_a_plan_that_cannot_be_read_any_more_is_told_anew(site: Site) -> None:
    interrupted(site)
    (site.home.run_folder(RUN) / "plan.json").write_text("{")
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    assert site.end() == OVER


def test_a_run_that_is_over_does_not_go_on(site: Site) -> None:
    interrupted(site)
    site.run_store().end("OK", "")
    site.alone()
    site.link.say(LinkError("nobody there"))
    site.shows("line down")
    site.agent.stop()
    site.end()
    assert site.worker.begun == []


def test_a_journal_that_cannot_be_written_is_said_once_and_the_run_goes_on(site: Site) -> None:
    """A full disk: what is not remembered would only be done again."""
    site.worker.go.clear()
    site.attach(Idle("waiting"))
    site.shows("resting", reason="waiting")
    (site.home.run_folder(RUN) / "journal.json").mkdir()
    site.link.say(TRAIN)
    site.worker.begins(1)
    site.worker.go.set()
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    assert site.end() == OVER
    assert [what for what, _ in site.shown].count("trouble") == 1


# --- a full disk -------------------------------------------------------------------------------------------------


class FullDisk:
    """Stands in for what writes to a disk that is full until the test makes room."""

    def __init__(self, write: Callable[..., Any]) -> None:
        self.write, self.room, self.tried = write, threading.Event(), threading.Event()

    def __call__(self, *given: Any) -> Any:
        self.tried.set()
        if not self.room.is_set():
            raise FullDiskError("cannot write it", cause="the disk is full", next_step="df -h")
        return self.write(*given)

    def makes_room(self) -> None:
        """Make room, once it was tried in vain."""
        assert self.tried.wait(WAIT_S)
        self.room.set()


@pytest.mark.parametrize("name", ["rounded", "keep", "settle"])
def test_what_is_carried_on_waits_for_room(site: Site, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    disk = FullDisk(getattr(compression, name))
    monkeypatch.setattr(compression, name, disk)
    site.attach(TRAIN)
    site.shows("trouble")
    disk.makes_room()
    site.link.hears(update(TRAIN))
    site.shows("delivered")
    site.link.say(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN]
    assert [what for what, _ in site.shown].count("trouble") == 1


@pytest.fixture(params=["open", "end"])
def full_disk(site: Site, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> FullDisk:
    """Return the disk on which a run cannot be begun, or ended, for want of room; the site is in trouble with it."""
    disk = FullDisk(getattr(RunStore, request.param))
    monkeypatch.setattr(RunStore, request.param, lambda *given: disk(*given))
    site.attach(OVER)
    site.shows("trouble")
    return disk


def test_how_a_run_begins_and_ends_waits_for_room(site: Site, full_disk: FullDisk) -> None:
    full_disk.makes_room()
    assert site.end() == OVER
    assert site.run_store().outcome() == "OK"


@pytest.mark.usefixtures("full_disk")
def test_an_agent_that_waits_for_room_can_be_stopped(site: Site) -> None:
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    assert not site.run_store().ended()


# --- the end -----------------------------------------------------------------------------------------------------


def test_stopping_lets_the_worker_end_in_order_and_keeps_nothing_half_done(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    assert site.link.told[-1] == codec.Stopped()
    assert (site.worker.stops, site.worker.cancels) == (1, 1)  # the process itself ends at the end
    assert site.run_store().kept() == PersistentState(TRAIN)


def test_work_that_is_nearly_done_when_the_agent_is_stopped_is_finished_and_kept(site: Site) -> None:
    site.worker.go.clear()
    site.worker.on_stop = site.worker.go.set
    site.attach(TRAIN)
    site.worker.begins(1)
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    assert isinstance(site.run_store().kept().result, UpdateStored)


def test_a_worker_that_does_not_end_in_time_is_killed_and_that_is_said(site: Site) -> None:
    site.begin(stop_s=0.1)
    site.worker.go.clear()
    site.worker.on_stop = lambda: None
    site.attach(TRAIN)
    site.worker.begins(1)
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    site.shows("said", text="training did not end within 0 s and is killed")
    assert site.worker.cancels == 1


def test_a_site_at_rest_leaves_at_once(site: Site) -> None:
    site.attach(Idle("waiting"))
    site.shows("resting", reason="waiting")
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    assert site.worker.stops == 0


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

    site.begin(tell_s=0.1)
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
    site.attach(Finish(Outcome.ABORTED, "this site's certificate was revoked"))
    assert site.end().outcome is Outcome.ABORTED


# --- signs of life -----------------------------------------------------------------------------------------------


def test_a_step_longer_than_a_lease_is_bridged_by_repeated_progress(site: Site) -> None:
    site.worker.go.clear()
    site.attach(TRAIN, lease_s=1.0)
    site.link.hears(lambda told: sum(isinstance(what, codec.Progress) for what in told) >= 4)
    site.worker.go.set()
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    site.end()
    progress = [what for what in site.link.told if isinstance(what, codec.Progress)]
    assert {what.task for what in progress} == {TRAIN}
    assert progress[-1].stage == "training"


def failures(told: list[Any]) -> list[SiteFailed]:
    return [what for what in told if isinstance(what, SiteFailed)]


def test_a_worker_that_hangs_is_killed_told_of_and_begun_again(site: Site) -> None:
    site.begin(silence_s=1.0)
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.worker.begins(2)
    site.worker.go.set()
    site.link.hears(update(TRAIN))
    site.link.hears(failures)
    site.link.say(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN, TRAIN]
    [failure] = failures(site.link.told)
    assert (failure.stage, failure.kind, failure.goes_on) == ("training", "TrainingError", True)
    assert "has not reported for" in failure.hint
    site.shows("trouble")
    assert (site.home.incidents / f"{failure.incident}.txt").exists()


def test_a_worker_that_hangs_at_the_same_task_again_ends_the_agent(site: Site) -> None:
    site.begin(silence_s=0.2)
    site.worker.go.clear()
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, WorkFailedError)
    assert error.exit_code == 9
    assert all(
        words in error.explain() for words in ("not reported for", "likely cause: a GPU", "next: look at nvidia")
    )
    assert site.worker.begun == [TRAIN, TRAIN]
    assert [failure.goes_on for failure in failures(site.link.told)] == [True, False]


def test_a_slow_line_is_no_hung_worker(site: Site) -> None:
    """A large model may take long to come; that is no business of the worker's."""
    fetched = threading.Event()
    site.begin(silence_s=0.05)
    site.link.before_fetch = lambda: fetched.wait(0.5) and None  # type: ignore[func-returns-value]
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN]


# --- failures are told -------------------------------------------------------------------------------------------


def test_a_failure_that_cannot_be_told_is_told_by_the_next_process_before_it_is_ready(site: Site) -> None:
    site.begin(tell_s=0.3)

    def cut(_report: codec.Report) -> tuple[Answer, str]:
        raise LinkError("cut")

    site.link.answers = cut
    site.worker.ends_with = WorkFailedError("broken", cause="", next_step="", stage="training", trace="t")
    site.attach(TRAIN)
    assert isinstance(site.end(), WorkFailedError)
    assert len(failures(site.link.told)) > 1, "it was not tried again"
    said = failures(site.link.told)[-1]
    site.shows("said", text=f"the coordinator cannot be reached now; {said.incident} will be reported later")

    for expected in (dataclasses.replace(said, goes_on=True), None):
        site.begin()
        site.attach(Idle("waiting"))
        site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
        told = [what for what in site.link.told if isinstance(what, SiteFailed | codec.Ready)]
        assert told == [*([expected] if expected else []), codec.Ready(RUN, plan().digest)]
        site.agent.stop()
        site.end()


def test_a_failure_is_told_as_soon_as_the_line_is_back(site: Site) -> None:
    lost = [LinkError("cut"), StorageError("the coordinator's disk is full")]

    def answer(report: codec.Report) -> tuple[Answer, str]:
        if isinstance(report, SiteFailed) and lost:
            raise lost.pop(0)
        return Answer.ACCEPTED, ""

    site.link.answers = answer
    site.worker.ends_with = StorageError("the disk is full")
    site.attach(TRAIN)
    assert isinstance(site.end(), StorageError)
    assert {(failure.kind, failure.goes_on) for failure in failures(site.link.told)} == {("StorageError", False)}
    assert not list(site.home.untold.iterdir())


def test_a_failure_that_cannot_even_be_written_down_is_told(site: Site) -> None:
    site.home.incidents.rmdir()
    site.home.incidents.write_text("a full disk does not take it")
    site.worker.ends_with = StorageError("the disk is full")
    site.attach(TRAIN)
    assert isinstance(site.end(), StorageError)
    assert len(failures(site.link.told)) == 1


def test_what_breaks_in_the_agent_itself_is_told_as_well(site: Site) -> None:
    site.attach(dataclasses.replace(TRAIN, round=1000))
    assert isinstance(site.end(), RemoteError)
    assert [failure.kind for failure in failures(site.link.told)] == ["RemoteError"]


# --- before round 1 ----------------------------------------------------------------------------------------------


class Examined:
    """What an agent asks before it says that it is ready; the test answers."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.go = threading.Event()
        self.asked = 0

    def __call__(self, _plan: Plan, _on_progress: object, _cancelled: threading.Event) -> None:
        self.asked += 1
        assert self.go.wait(WAIT_S)
        if self._answers and (answer := self._answers.pop(0)) is not None:
            raise answer


def test_ready_is_said_only_when_the_plan_is_known_to_be_feasible(tmp_path: Path) -> None:
    site, examined = Site(tmp_path), Examined()
    site.begin(examine=examined)
    site.attach(Idle("waiting"))
    site.shows("attached")
    assert not any(isinstance(what, codec.Ready) for what in site.link.told)
    examined.go.set()
    site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
    site.link.say(OVER)
    site.end()


def test_a_site_that_cannot_train_ends_before_it_is_waited_for_and_says_why(tmp_path: Path) -> None:
    site, examined = Site(tmp_path), Examined(DataError("one picture to validate on"))
    examined.go.set()
    site.begin(examine=examined)
    site.attach(Idle("waiting"))
    assert isinstance(site.end(), DataError)
    assert kinds(site.link.reports) == ["SiteFailed"]
    assert not any(isinstance(what, codec.Ready) for what in site.link.told)


def test_a_line_that_comes_back_does_not_ask_twice(tmp_path: Path) -> None:
    site, examined = Site(tmp_path), Examined()
    site.begin(examine=examined)
    site.attach(Cut())
    site.shows("line down")
    site.link.say(codec.Welcome("cervix", RUN, plan()), Idle("waiting"))
    site.shows("line up")
    examined.go.set()
    site.link.hears(lambda told: sum(isinstance(what, codec.Ready) for what in told) == 2)
    assert examined.asked == 1
    site.link.say(OVER)
    site.end()


def test_a_process_that_was_killed_for_another_reason_is_asked_again(tmp_path: Path) -> None:
    site, examined = Site(tmp_path), Examined(CancelledError())
    examined.go.set()
    site.begin(examine=examined)
    site.attach(Idle("waiting"))
    site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
    assert examined.asked == 2
    site.link.say(OVER)
    site.end()


def test_a_site_that_goes_on_with_work_asks_nothing(tmp_path: Path) -> None:
    site, examined = Site(tmp_path), Examined()
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    site.begin(examine=examined)
    site.attach(TRAIN)
    site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
    assert examined.asked == 0
    site.link.say(OVER)
    site.end()
