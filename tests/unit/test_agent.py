"""The agent's loop, between a line and a worker that do as they are told."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.events import Answer, ModelAdopted, ScoreReported, SiteFailed, UpdateStored
from fedcervix.core.numerics import NUMERICS
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Finish, Idle
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
    TrainingError,
    VersionError,
)
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.worker_protocol import Failure
from fedcervix.transport import codec
from site_agent.federation import compression
from site_agent.federation.context import REMOTE_ERRORS_MAX
from site_agent.federation.heartbeat import Hung
from site_agent.federation.inbox import Broken, ConnectionLost
from site_agent.home import SiteHome
from site_agent.store.run_store import RunStore
from site_agent.worker.hang_detection import Silence
from site_agent.worker.worker import CancelledError, Worker, WorkFailedError
from tests.unit.agents import Site, ThreadedSite, cutting, interrupted
from tests.unit.fake_link import (
    ADOPT,
    BASE,
    OVER,
    RUN,
    SCORE,
    SEED,
    TRAIN,
    TRAIN_2,
    TRAINED,
    Cut,
    digest,
    kinds,
    plan,
    update,
)

KEPT = "the coordinator cannot be reached; the result of round 1 is saved and will be sent on reconnect"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def threaded(tmp_path: Path) -> ThreadedSite:
    return ThreadedSite(tmp_path / "site")


# --- a run -------------------------------------------------------------------------------------------------------


def test_an_agent_does_what_it_is_asked_and_leaves_when_the_run_is_over(site: Site) -> None:
    site.attach(SEED)
    site.link.hears(update(SEED))
    site.says(Idle("waiting"), TRAIN)
    site.link.hears(update(TRAIN))
    site.says(SCORE)
    site.link.hears(lambda told: any(isinstance(what, ScoreReported) for what in told))
    site.says(ADOPT)
    site.link.hears(lambda told: any(isinstance(what, ModelAdopted) for what in told))
    site.says(dataclasses.replace(OVER, record='{"run": "it"}'))

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
    site.says(OVER)
    site.end()


def test_only_numbers_on_the_list_are_told(site: Site) -> None:
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.says(SCORE)
    site.link.hears(lambda told: any(isinstance(what, ScoreReported) for what in told))
    site.says(OVER)
    site.end()
    [score] = [what for what in site.link.told if isinstance(what, ScoreReported)]
    assert score.gauges == (("unit_std", 0.5),)
    assert "4711" not in repr(site.link.told)


def test_a_model_is_there_before_it_is_reported(site: Site) -> None:
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.says(OVER)
    site.end()
    assert kinds(site.link.reports) == ["fetch", "push", "UpdateStored"]


def test_the_same_instruction_twice_is_one_piece_of_work(site: Site) -> None:
    site.worker.meanwhile = [lambda: site.says(TRAIN)]
    site.attach(TRAIN, TRAIN)
    site.link.hears(update(TRAIN))
    site.says(TRAIN, OVER)
    site.end()
    assert site.worker.begun == [TRAIN]
    assert site.worker.cancels == 1  # at the end


# --- the line ----------------------------------------------------------------------------------------------------


def test_work_goes_on_while_the_line_is_down(site: Site) -> None:
    def meanwhile() -> None:
        site.line_down(LinkError("no line"), StorageError("the coordinator's disk is full"))
        site.shows("disconnected", works=True)

    site.worker.meanwhile = [meanwhile]
    site.attach(TRAIN)
    site.shows("resting", reason=KEPT)
    assert not update(TRAIN)(site.link.told)
    site.says(codec.Welcome("cervix", RUN, plan()), Idle("waiting"))
    site.link.hears(update(TRAIN))
    site.says(OVER)
    site.end()
    assert site.worker.begun == [TRAIN]
    assert [what for what, _ in site.shown].count("reconnected") == 1


def test_a_delivery_that_the_line_cuts_short_is_taken_up_again(site: Site) -> None:
    site.link.answers = cutting(site)
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.shows("resting", reason=KEPT)
    told = len(site.link.told)
    site.link.answers = lambda _report: (Answer.ACCEPTED, "")
    site.says(codec.Welcome("cervix", RUN, plan()), TRAIN)
    site.link.hears(lambda told_now: update(TRAIN)(told_now[told:]))
    site.says(Idle("waiting"), OVER)
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
    site.says(OVER)
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


def test_a_refused_certificate_ends_the_agent_at_once(threaded: ThreadedSite) -> None:
    threaded.worker.go.clear()
    threaded.attach(TRAIN)
    threaded.worker.begins(1)
    threaded.link.say(IdentityError("the certificate of site nhs is revoked"))
    assert isinstance(threaded.end(), IdentityError)
    assert threaded.worker.cancels == 1


def test_an_agent_that_is_one_too_many_ends_and_reports_no_failure(site: Site) -> None:
    twin = DuplicateAgentError("another agent of site nhs is connected")
    site.worker.meanwhile = [lambda: site.handle(ConnectionLost(LinkError("closed")), Broken(twin))]
    site.attach(TRAIN)
    assert site.end() is twin
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
    site.says(OVER)
    assert site.end() == OVER


def test_a_coordinator_that_is_back_is_told_how_far_the_work_is(threaded: ThreadedSite) -> None:
    site = threaded
    site.begin(sign_s=3600.0)  # no other sign of life is due
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
    site.says(ADOPT)
    site.link.hears(lambda told: any(isinstance(what, ModelAdopted) for what in told))
    site.line_down(LinkError("the coordinator has closed the connection"))
    assert site.end().outcome == outcome


def test_a_model_may_be_twice_as_long_as_the_run_s_first_one_and_no_longer(site: Site) -> None:
    site.link.models[TRAIN_2.base] = TRAINED
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.says(SCORE)
    site.link.models[digest(b"third")] = b"third"
    site.says(dataclasses.replace(TRAIN_2, base=digest(b"third")))
    site.link.hears(lambda told: any(isinstance(what, UpdateStored) and what.task.round == 2 for what in told))
    site.says(OVER)
    site.end()
    assert site.link.bounds == [8 * 2**30, 2 * len(BASE)]  # what it made itself it did not fetch


def test_all_of_it_goes_by_its_own_threads(threaded: ThreadedSite) -> None:
    """The line is cut while the worker is at work, which ends meanwhile; then the person ends the agent."""
    site = threaded
    site.worker.go.clear()
    site.attach(TRAIN)
    site.worker.begins(1)
    site.link.say(Cut(), LinkError("no line"), StorageError("the coordinator's disk is full"))
    site.shows("disconnected", works=True)
    site.worker.go.set()
    site.shows("resting", reason=KEPT)
    site.link.say(codec.Welcome("cervix", RUN, plan()), Idle("waiting"))
    site.link.hears(update(TRAIN))
    site.shows("delivered")
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    assert site.link.told[-1] == codec.Stopped()


def test_an_agent_of_another_version_waits_and_says_so_once(site: Site) -> None:
    site.attach(Idle("waiting"))
    told = VersionError("the coordinator speaks version 3", next_step="install fedcervix 0.2.0")
    site.line_down(told, told)
    assert [values["error"] for what, values in site.shown if what == "trouble"] == [told]
    site.says(codec.Welcome("cervix", RUN, plan()), TRAIN)
    site.link.hears(update(TRAIN))
    site.says(OVER)
    assert site.end() == OVER


# --- changes of mind ---------------------------------------------------------------------------------------------


def test_work_that_is_no_longer_wanted_is_killed(site: Site) -> None:
    site.link.models[TRAIN_2.base] = TRAINED
    site.worker.meanwhile = [lambda: site.says(TRAIN_2)]
    site.attach(TRAIN)
    site.link.hears(update(TRAIN_2))
    assert site.worker.cancels == 1
    site.says(OVER)
    site.end()
    assert site.worker.begun == [TRAIN, TRAIN_2]
    assert [what.task for what in site.link.told if isinstance(what, UpdateStored)] == [TRAIN_2]


def test_work_that_breaks_when_it_is_no_longer_wanted_does_not_end_the_agent(site: Site) -> None:
    def meanwhile() -> None:
        site.worker.cancel = lambda: None  # type: ignore[method-assign]  # it breaks before it is killed
        site.worker.ends_with = StorageError("the disk is full")
        site.says(Idle("waiting"))

    site.worker.meanwhile = [meanwhile]
    site.attach(TRAIN)
    site.shows("resting", reason="waiting")
    site.says(OVER)
    assert site.end() == OVER


def test_what_breaks_because_it_is_no_longer_wanted_is_not_shown_as_the_coordinators_fault(site: Site) -> None:
    """GRPC says that an upload has failed whose bytes were held back."""

    def gives_up(report: codec.Report) -> tuple[Answer, str]:
        if isinstance(report, UpdateStored):
            site.says(SCORE)
            raise RemoteError("the coordinator failed at this call (Exception iterating requests!)")
        return Answer.ACCEPTED, ""

    site.link.answers = gives_up
    site.attach(TRAIN)
    assert site.worker.begun == [TRAIN, SCORE]
    assert "trouble" not in [what for what, _ in site.shown]


def test_a_download_that_is_no_longer_wanted_is_not_finished_and_its_task_never_begins(site: Site) -> None:
    """A slow line must not make a site train for a round that was closed without it."""

    def slow() -> None:
        site.link.before_fetch = lambda: None
        site.says(Idle("round 1 was closed without this site"))

    site.link.before_fetch = slow
    site.link.chunk_bytes = 4
    site.attach(TRAIN)
    site.shows("resting", reason="round 1 was closed without this site")
    assert site.worker.begun == []
    site.says(TRAIN_2)
    site.link.hears(update(TRAIN_2))
    site.says(OVER)
    site.end()
    assert site.worker.begun == [TRAIN_2]
    assert not BlobStore(site.home.blobs).has(TRAIN.base)


def test_a_result_of_an_abandoned_run_does_not_get_into_the_next_one(site: Site) -> None:
    """`coordinator start --new`, while a site is in the middle of something that does not end at once."""
    other = "20300102-000000-csfssl-00000000"

    def meanwhile() -> None:
        site.worker.cancel = lambda: None  # type: ignore[method-assign]  # as if it had ended just before it was killed
        site.line_down()
        site.says(codec.Welcome("cervix", other, plan(seed=1)), Idle("waiting for alts to attach"))

    site.worker.meanwhile = [meanwhile]
    site.attach(TRAIN)
    site.link.hears(lambda told: codec.Ready(other, plan(seed=1).digest) in told)
    second = dataclasses.replace(TRAIN, run=other)
    site.says(second)
    site.link.hears(update(second))
    site.says(OVER)
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


def test_a_finished_result_outlives_the_process_and_is_not_worked_on_again(site: Site) -> None:
    site.link.answers = cutting(site)
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.stop()
    assert isinstance(site.end(), KeyboardInterrupt)

    site.begin()
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.says(OVER)
    assert site.end() == OVER
    assert site.worker.begun == []
    assert kinds(site.link.reports) == ["push", "UpdateStored"]


def test_an_acknowledged_result_is_not_told_by_the_next_process(site: Site) -> None:
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.says(Idle("waiting"))
    site.shows("resting", reason="waiting")
    site.stop()
    site.end()
    site.begin()
    site.attach(Idle("waiting"), OVER)
    site.end()
    assert site.link.reports == []
    assert site.worker.begun == []


def test_a_restarted_agent_trains_before_its_coordinator_is_back_and_keeps_the_result(site: Site) -> None:
    interrupted(site)
    site.alone()
    assert site.worker.begun == [TRAIN]
    site.shows("resumed", run=RUN, task=TRAIN)
    site.line_down(LinkError("nobody there"))
    site.shows("resting", reason=KEPT)
    assert site.link.told == []

    site.says(codec.Welcome("cervix", RUN, plan()), Idle("waiting"))
    site.link.hears(update(TRAIN))
    site.says(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN]
    assert [what for what, _ in site.shown].count("attached") == 1


def test_an_agent_that_computes_otherwise_than_the_one_before_it_does_no_work_by_itself(site: Site) -> None:
    """Else the version that began the run would come back, find the result, and deliver it as its own."""
    interrupted(site)
    journal = site.home.run_folder(RUN) / "journal.json"
    kept = journal.read_text()
    assert kept.count(f'"numerics": {NUMERICS}') == 1
    journal.write_text(kept.replace(f'"numerics": {NUMERICS}', f'"numerics": {NUMERICS + 1}'))
    before = journal.read_text()
    site.alone()
    assert (site.worker.begun, journal.read_text()) == ([], before)
    assert "its work waits" in str(site.shown)


def test_a_restarted_agent_that_is_asked_for_something_else_gives_up_what_it_goes_on_with(site: Site) -> None:
    interrupted(site)
    site.link.models[TRAIN_2.base] = TRAINED
    site.worker.meanwhile = [lambda: site.says(codec.Welcome("cervix", RUN, plan()), TRAIN_2)]
    site.alone()
    site.link.hears(update(TRAIN_2))
    site.says(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN, TRAIN_2]


def test_a_restarted_agent_whose_model_is_not_here_says_so_and_waits(site: Site) -> None:
    interrupted(site)
    BlobStore(site.home.blobs).retire(())
    site.alone()
    site.line_down(LinkError("nobody there"))
    site.shows("resting", reason="cannot train in round 1: the coordinator, which has the model, cannot be reached")
    assert site.worker.begun == []
    site.says(codec.Welcome("cervix", RUN, plan()), TRAIN)
    site.link.hears(update(TRAIN))
    site.says(OVER)
    assert site.end() == OVER


def test_a_policy_that_was_tightened_meanwhile_holds_for_what_was_begun(site: Site) -> None:
    interrupted(site)
    site.home.config_file.write_text("[policy]\nrounds_max = 1\n")
    site.alone()
    site.line_down(LinkError("nobody there"))
    site.shows("disconnected")
    [said] = [values["text"] for what, values in site.shown if what == "message"]
    assert "[policy] rounds_max is 1" in said
    assert site.worker.begun == []
    site.says(codec.Welcome("cervix", RUN, plan()))
    assert isinstance(site.end(), PolicyError)
    assert [type(what) for what in site.link.told] == [codec.Refusal]


def test_a_plan_that_cannot_be_read_any_more_is_told_anew(site: Site) -> None:
    interrupted(site)
    (site.home.run_folder(RUN) / "plan.json").write_text("{")
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.says(OVER)
    assert site.end() == OVER


def test_a_run_that_is_over_does_not_go_on(site: Site) -> None:
    interrupted(site)
    site.run_store().end("OK", "")
    site.alone()
    site.line_down(LinkError("nobody there"))
    site.shows("disconnected")
    site.stop()
    site.end()
    assert site.worker.begun == []


def test_a_journal_that_cannot_be_written_is_said_once_and_the_run_goes_on(site: Site) -> None:
    """A full disk: what is not remembered would only be done again."""
    site.attach(Idle("waiting"))
    site.shows("resting", reason="waiting")
    (site.home.run_folder(RUN) / "journal.json").mkdir()
    site.says(TRAIN)
    site.link.hears(update(TRAIN))
    site.says(OVER)
    assert site.end() == OVER
    assert [what for what, _ in site.shown].count("trouble") == 1


# --- a full disk -------------------------------------------------------------------------------------------------


class FullDisk:
    """Stands in for what writes to a disk that is full at first."""

    def __init__(self, write: Callable[..., Any]) -> None:
        self.write, self.tried = write, 0
        self.when_full: Callable[[], object] = lambda: None

    def __call__(self, *given: Any) -> Any:
        self.tried += 1
        if self.tried <= 2:
            self.when_full()
            raise FullDiskError("cannot write it", cause="the disk is full", next_step="df -h")
        return self.write(*given)


@pytest.mark.parametrize("name", ["rounded", "keep", "settle"])
def test_what_is_carried_on_waits_for_room(site: Site, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(compression, name, FullDisk(getattr(compression, name)))
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.shows("delivered")
    site.says(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN]
    assert [what for what, _ in site.shown].count("trouble") == 1


@pytest.fixture(params=["open", "end"])
def full_disk(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> FullDisk:
    """Return the disk on which a run cannot be begun, or ended, for want of room."""
    disk = FullDisk(getattr(RunStore, request.param))
    monkeypatch.setattr(RunStore, request.param, lambda *given: disk(*given))
    return disk


def test_how_a_run_begins_and_ends_waits_for_room(site: Site, full_disk: FullDisk) -> None:
    site.attach(OVER)
    assert site.end() == OVER
    assert site.run_store().outcome() == "OK"
    assert full_disk.tried == 3
    assert [what for what, _ in site.shown].count("trouble") == 1


def test_an_agent_that_waits_for_room_can_be_stopped(site: Site, full_disk: FullDisk) -> None:
    full_disk.when_full = site.agent.stop
    site.attach(OVER)
    assert isinstance(site.end(), KeyboardInterrupt)
    assert not site.run_store().ended()
    assert full_disk.tried == 1


# --- the end -----------------------------------------------------------------------------------------------------


def test_stopping_lets_the_worker_end_in_order_and_keeps_nothing_half_done(site: Site) -> None:
    site.worker.meanwhile = [site.stop]
    site.attach(TRAIN)
    assert isinstance(site.end(), KeyboardInterrupt)
    assert site.link.told[-1] == codec.Stopped()
    assert (site.worker.stops, site.worker.cancels) == (1, 1)  # the process itself ends at the end
    assert site.run_store().kept() == PersistentState(TRAIN)


def test_work_that_is_nearly_done_when_the_agent_is_stopped_is_finished_and_kept(site: Site) -> None:
    site.worker.on_stop = lambda: site.shows("stopping")  # that is said first
    site.worker.meanwhile = [site.stop]
    site.attach(TRAIN)
    assert isinstance(site.end(), KeyboardInterrupt)
    assert isinstance(site.run_store().kept().result, UpdateStored)


def test_nothing_but_the_end_of_its_work_is_taken_in_while_an_agent_stops(site: Site) -> None:
    def meanwhile() -> None:
        site.stop()
        site.says(OVER)
        site.handle(Broken(LinkError("never mind")))

    site.worker.on_stop = lambda: None
    site.worker.meanwhile = [meanwhile]
    site.attach(TRAIN)
    assert isinstance(site.end(), KeyboardInterrupt)
    assert isinstance(site.run_store().kept().result, UpdateStored)


def test_a_worker_that_does_not_end_in_time_is_killed_and_that_is_said(threaded: ThreadedSite) -> None:
    site = threaded
    site.begin(stop_s=0.1)
    site.worker.go.clear()
    site.worker.on_stop = lambda: None
    site.attach(TRAIN)
    site.worker.begins(1)
    site.agent.stop()
    assert isinstance(site.end(), KeyboardInterrupt)
    site.shows("message", text="training did not end within 0 s and is killed")
    assert site.worker.cancels == 1


def test_a_site_at_rest_leaves_at_once(site: Site) -> None:
    site.attach(Idle("waiting"))
    site.shows("resting", reason="waiting")
    site.stop()
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
    broken = DataError("images/zamora.jpg cannot be read", cause="the disk", next_step="look")
    site.worker.ends_with = WorkFailedError(Failure.of(broken, broken, "reading images"))
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, WorkFailedError)
    [_, failure] = site.link.reports
    assert isinstance(failure, SiteFailed)
    assert (failure.stage, "zamora" in failure.hint) == ("reading images", False)
    account = site.home.incidents / f"{failure.incident}.txt"
    assert "zamora" in account.read_text()
    assert str(account) in error.cause


def no_failure(report: codec.Report) -> tuple[Answer, str]:
    """What a line answers that is cut whenever a failure is told."""
    if isinstance(report, SiteFailed):
        raise LinkError("cut")
    return Answer.ACCEPTED, ""


def test_a_failure_that_cannot_be_told_ends_the_agent_all_the_same(site: Site) -> None:
    site.begin(tell_s=0.1)
    site.link.answers = no_failure
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
    assert site.run_store().kept() == PersistentState(), "the next process would tell it again"


def test_a_site_leaves_an_aborted_run(site: Site) -> None:
    site.attach(Finish(Outcome.ABORTED, "the quorum cannot be met"))
    assert site.end().outcome is Outcome.ABORTED


# --- signs of life -----------------------------------------------------------------------------------------------


def test_a_step_longer_than_a_lease_is_bridged_by_repeated_progress(threaded: ThreadedSite) -> None:
    site = threaded
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


def test_a_worker_that_hangs_is_killed_told_of_and_begun_again(threaded: ThreadedSite) -> None:
    site = threaded
    site.begin(silence_s=0.5)
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


HANGS = Hung(codec.Progress(TRAIN, "training", 1, 2, "steps", 0.0, 0.0), Silence(0.0))


def test_a_worker_that_hangs_at_the_same_task_again_ends_the_agent(site: Site) -> None:
    site.worker.meanwhile = [lambda: site.handle(HANGS)] * 2
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, WorkFailedError)
    assert error.exit_code == 9
    assert all(
        words in error.explain() for words in ("not reported for", "likely cause: a GPU", "next: look at nvidia")
    )
    assert site.worker.begun == [TRAIN, TRAIN]
    assert [failure.goes_on for failure in failures(site.link.told)] == [True, False]


def test_a_hung_worker_that_is_no_longer_wanted_is_let_go(site: Site) -> None:
    """What it was asked has changed in the meantime."""
    site.worker.meanwhile = [lambda: (site.says(Idle("waiting")), site.handle(HANGS))]
    site.attach(TRAIN)
    site.shows("resting", reason="waiting")
    assert site.worker.cancels == 1
    assert failures(site.link.told) == []


def test_a_slow_line_is_no_hung_worker(threaded: ThreadedSite) -> None:
    """A large model may take long to come; that is no business of the worker's."""
    site, fetched = threaded, threading.Event()
    site.begin(silence_s=0.05)
    site.link.before_fetch = lambda: fetched.wait(0.5) and None  # type: ignore[func-returns-value]
    site.attach(TRAIN)
    site.link.hears(update(TRAIN))
    site.link.say(OVER)
    assert site.end() == OVER
    assert site.worker.begun == [TRAIN]


def test_kept_work_that_fails_before_the_coordinator_is_heard_waits_until_it_is_asked_for_again(site: Site) -> None:
    interrupted(site)
    site.worker.ends_with = RemoteError("out of range")
    site.alone()
    site.shows("message", text=f"{TRAIN} has failed: out of range; waits until it is asked for again")
    assert site.run_store().kept() == PersistentState()
    site.says(codec.Welcome("cervix", RUN, plan()), TRAIN)
    assert isinstance(site.end(), RemoteError)
    assert site.worker.begun == [TRAIN, TRAIN]


def test_kept_work_that_fails_each_time_does_not_keep_a_site_from_the_next_run(site: Site) -> None:
    interrupted(site)
    site.worker.ends_with = RemoteError("out of range")
    site.alone()
    site.worker.ends_with = None
    after = dataclasses.replace(TRAIN, run=f"{RUN[:-1]}1")
    site.says(codec.Welcome("cervix", after.run, plan()), after)
    assert site.worker.begun == [TRAIN, after]
    assert site.link.told, "its result is delivered"


# --- failures are told -------------------------------------------------------------------------------------------


def test_a_failure_that_cannot_be_told_is_told_by_the_next_process_before_it_is_ready(site: Site) -> None:
    site.begin(tell_s=0.3)

    site.link.answers = no_failure
    broken = TrainingError("broken")
    site.worker.ends_with = WorkFailedError(Failure.of(broken, broken, "training"))
    site.attach(TRAIN)
    assert isinstance(site.end(), WorkFailedError)
    assert len(failures(site.link.told)) > 1, "it was not tried again"
    said = failures(site.link.told)[-1]
    site.shows("message", text=f"the coordinator cannot be reached now; {said.incident} will be reported later")

    for expected in (dataclasses.replace(said, goes_on=True), None):
        site.begin()
        site.attach(Idle("waiting"))
        site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
        told = [what for what in site.link.told if isinstance(what, SiteFailed | codec.Ready)]
        assert told == [*([expected] if expected else []), codec.Ready(RUN, plan().digest)]
        site.stop()
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
        self.meanwhile: Callable[[], object] = lambda: None
        self.asked = 0

    def __call__(self, _plan: Plan, _on_progress: object, _cancelled: threading.Event) -> None:
        self.asked += 1
        self.meanwhile()
        if self._answers and (answer := self._answers.pop(0)) is not None:
            raise answer


def test_ready_is_said_only_when_the_plan_is_known_to_be_feasible(site: Site) -> None:
    examined = Examined()
    examined.meanwhile = lambda: (site.shows("attached"), unready(site))
    site.begin(examined)
    site.attach(Idle("waiting"))
    assert examined.asked == 1
    site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
    site.says(OVER)
    site.end()


def unready(site: Site) -> None:
    assert not any(isinstance(what, codec.Ready) for what in site.link.told)


def test_a_site_that_cannot_train_ends_before_it_is_waited_for_and_says_why(site: Site) -> None:
    site.begin(Examined(DataError("one picture to validate on")))
    site.attach(Idle("waiting"))
    assert isinstance(site.end(), DataError)
    assert kinds(site.link.reports) == ["SiteFailed"]
    unready(site)


def test_a_line_that_comes_back_does_not_ask_twice(site: Site) -> None:
    def meanwhile() -> None:
        site.line_down()
        site.shows("disconnected")
        site.says(codec.Welcome("cervix", RUN, plan()), Idle("waiting"))
        site.shows("reconnected")

    examined = Examined()
    examined.meanwhile = meanwhile
    site.begin(examined)
    site.attach()
    site.link.hears(lambda told: sum(isinstance(what, codec.Ready) for what in told) == 2)
    assert examined.asked == 1
    site.says(OVER)
    site.end()


def test_what_is_found_out_about_a_run_that_was_abandoned_ends_nothing(site: Site) -> None:
    other = codec.Welcome("cervix", "20300102-000000-csfssl-00000000", plan(seed=1))
    examined = Examined(DataError("one picture to validate on"))

    def meanwhile() -> None:
        examined.meanwhile = lambda: None
        site.says(other, Idle("waiting"))

    examined.meanwhile = meanwhile
    site.begin(examined)
    site.attach(Idle("waiting"))
    assert [what.run for what in site.link.told if isinstance(what, codec.Ready)] == [other.run]
    site.says(OVER)
    assert site.end() == OVER


def test_a_process_that_was_killed_for_another_reason_is_asked_again(site: Site) -> None:
    examined = Examined(CancelledError())
    site.begin(examined)
    site.attach(Idle("waiting"))
    site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
    assert examined.asked == 2
    site.says(OVER)
    site.end()


def test_a_site_that_goes_on_with_work_asks_nothing(site: Site) -> None:
    interrupted(site)
    examined = Examined()
    site.begin(examined)
    site.attach(TRAIN)
    site.link.hears(lambda told: codec.Ready(RUN, plan().digest) in told)
    assert examined.asked == 0
    site.says(OVER)
    site.end()
