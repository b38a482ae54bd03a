"""A malicious coordinator that an agent has let in: what it may ask, and what it gets.

The agent is whole; the line is one on which the test speaks, so each attack takes a second. Each test says what the
attack did before the agent knew better.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.events import Answer, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import Finish, Idle
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import LinkError, PolicyError, RemoteError
from fedcervix.transport import codec
from site_agent.federation import account
from site_agent.federation.asked import again_max
from site_agent.federation.link import OnBytes
from site_agent.home import Policy
from tests.unit.agents import WAIT_S, Site, ThreadedSite, interrupted
from tests.unit.fake_link import OVER, RUN, SCORE, TRAIN, TRAINED, digest, plan

ONE_ROUND = "[policy]\nrounds_max = 1\nepochs_max = 1\n"
CHOSEN = tuple(f"a base of the coordinator's choice, number {number}".encode() for number in range(40))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "site")
    made.link.models |= {digest(model): model for model in CHOSEN}
    return made


def train(model: bytes, *, run: str = RUN, round_: int = 1) -> Task:
    return Task(run, TaskKind.TRAIN, round_, digest(model))


def updates(site: Site) -> list[UpdateStored]:
    return [what for what in site.link.told if isinstance(what, UpdateStored)]


def files(folder: Path) -> dict[str, str]:
    found = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


def named(number: int) -> str:
    return f"20300101-{number:06}-csfssl-00000000"


def welcome(run: str = RUN, **terms: Any) -> codec.Welcome:
    return codec.Welcome("cervix", run, plan(**terms))


# --- the policy is no longer bypassed ----------------------------------------------------------------------------


def test_round_1_is_trained_from_one_base_however_many_the_coordinator_chooses(site: Site) -> None:
    """Before: forty bases for round 1 of a site that allows one round, forty results."""
    site.home.config_file.write_text(ONE_ROUND)
    site.attach(*(train(model) for model in CHOSEN[:1]), rounds=1)
    site.link.hears(lambda _told: updates(site))
    site.says(train(CHOSEN[1]))
    error = site.end()
    assert isinstance(error, PolicyError)
    assert "answered 'train in round 1'" in error.what
    assert site.link.told[-1] == codec.Refusal(RUN, error.what.split("- ", 1)[1])
    assert [what.task.base for what in updates(site)] == [digest(CHOSEN[0])]


def test_nor_after_the_agent_was_started_again(site: Site) -> None:
    """Before: the memory of what was answered ended with the process, and its journal said nothing of it."""
    site.home.config_file.write_text(ONE_ROUND)
    site.attach(train(CHOSEN[0]), rounds=1)
    site.link.hears(lambda _told: updates(site))
    site.shows("delivered")
    site.stop()
    site.end()
    models = site.link.models
    site.begin()
    site.link.models = models
    site.attach(train(CHOSEN[1]), rounds=1)
    assert isinstance(site.end(), PolicyError)
    assert updates(site) == []
    assert site.worker.begun == []


def test_an_answer_counts_from_before_its_first_byte_leaves(site: Site) -> None:
    """Before: a coordinator that took the model and never answered could ask again. Now the note is there first."""

    def asks_again(report: codec.Report) -> tuple[Answer, str]:
        if isinstance(report, UpdateStored):  # the model has left; the answer to it never comes
            site.says(train(CHOSEN[1]))
            raise LinkError("cut")
        return Answer.ACCEPTED, ""

    site.home.config_file.write_text(ONE_ROUND)
    site.link.answers = asks_again
    site.attach(train(CHOSEN[0]), rounds=1)
    assert isinstance(site.end(), PolicyError)
    assert {what.task.base for what in updates(site)} == {digest(CHOSEN[0])}


def test_the_same_round_from_the_same_base_is_not_repeated_for_ever(site: Site) -> None:
    """Before: without end."""
    site.home.config_file.write_text(ONE_ROUND)
    site.attach(rounds=1)
    most = 1 + again_max(plan(rounds=1))
    for number in range(1, most + 1):
        site.says(Idle("well done; once more"), train(CHOSEN[0]))
        site.link.hears(lambda _told, n=number: len(updates(site)) >= n)
        site.link.hears(lambda _told, n=number: delivered(site) >= n)
    site.says(Idle("well done; once more"), train(CHOSEN[0]))
    assert isinstance(site.end(), PolicyError)
    assert len(updates(site)) == most


def delivered(site: Site) -> int:
    return [what for what, _ in site.shown].count("delivered")


def test_a_round_is_scored_with_a_bounded_number_of_models(site: Site) -> None:
    """Before: any number of models of the coordinator's choice, on the women of the validation split."""
    site.attach()
    for model in CHOSEN:
        site.says(Task(RUN, TaskKind.SCORE, 1, digest(model)))
        site.link.hears(lambda told, m=model: scored(told, digest(m)) or ended(site))
    assert isinstance(site.end(), PolicyError)
    found = {what.task.base for what in site.link.told if isinstance(what, ScoreReported)}
    assert len(found) == 1 + again_max(plan())


def scored(told: list[Any], base: str) -> bool:
    return any(isinstance(what, ScoreReported) and what.task.base == base for what in told)


def ended(site: Site) -> bool:
    return any(isinstance(what, codec.Refusal) for what in site.link.told)


def test_rounds_are_counted_across_runs(site: Site) -> None:
    """Before: each run began at nothing; a new run a minute was a round a minute, for ever."""
    site.home.config_file.write_text("[policy]\nrounds_max = 1\nrounds_per_month = 2\n")
    site.alone()
    for number in range(3):
        site.says(welcome(named(number), rounds=1, seed=number), train(CHOSEN[number], run=named(number)))
        if number < 2:
            site.link.hears(lambda _told, n=number: len(updates(site)) > n)
    error = site.end()
    assert isinstance(error, PolicyError)
    assert "3 rounds in 30 days; [policy] rounds_per_month is 2" in error.what
    assert len(updates(site)) == 2


def test_bytes_that_leave_are_counted(site: Site) -> None:
    """Before: nobody counted them."""
    site.home.config_file.write_text("[policy]\nupload_gib_per_month = 0\n")
    site.attach(TRAIN)
    assert isinstance(site.end(), PolicyError)
    assert ("push", digest(b"the model after training")) not in site.link.told
    assert updates(site) == []


def test_bytes_are_counted_each_time_they_leave(site: Site) -> None:
    """Before: once for each model, and a coordinator that took it and then failed had it 21 times in 30 s."""

    def takes_it_and_fails(size: int, on_bytes: OnBytes) -> None:
        on_bytes(size, size)
        raise LinkError("unavailable")

    site.home.config_file.write_text("[policy]\nupload_gib_per_month = 1\n")
    account.spend(site.home.account, Policy(), account.Spent(bytes=account.GIB - 2 * len(TRAINED)))
    site.link.push_chunks = takes_it_and_fails
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, PolicyError)
    assert "[policy] upload_gib_per_month is 1" in error.what
    assert site.link.told.count(("push", digest(TRAINED))) == 2
    assert spent(site).bytes == account.GIB


def test_bytes_that_did_not_leave_are_not_counted(site: Site) -> None:
    cut = iter([LinkError("cut")] * 2)

    def is_cut(size: int, on_bytes: OnBytes) -> None:
        on_bytes(5, size)
        if error := next(cut, None):
            raise error
        on_bytes(size, size)

    site.link.push_chunks = is_cut
    site.attach(TRAIN)
    site.shows("delivered")
    assert spent(site).bytes == 5 + 5 + len(TRAINED)


def spent(site: Site) -> account.Spent:
    return account.month(account.read(site.home.account), datetime.now(UTC).date())


def test_run_folders_are_bounded(site: Site) -> None:
    """Before: 1,030 folders in 12 s."""
    site.home.config_file.write_text("[policy]\nruns_per_month = 5\n")
    site.alone()
    site.says(*(welcome(named(number), seed=number) for number in range(40)))
    error = site.end()
    assert isinstance(error, PolicyError)
    assert "6 runs in 30 days; [policy] runs_per_month is 5" in error.what
    assert len(list((site.home.folder / "runs").iterdir())) == 5


@pytest.mark.parametrize("change", [{"image_px": 1024}, {"width": 4096}, {"batch_images": 65_536}])
def test_a_plan_that_asks_for_the_whole_machine_is_refused(site: Site, change: dict[str, Any]) -> None:
    """Before: resnet50 at 1,024 px, width 4,096 and batches of 65,536 images passed."""
    site.alone()
    asked = dataclasses.replace(plan(), recipe=Recipe(**change))
    site.says(codec.Welcome("cervix", RUN, asked))
    assert isinstance(site.end(), PolicyError)


def test_a_lease_cannot_make_a_site_report_a_thousand_times_a_second() -> None:
    """Before: lease_s = 1e-9 made 1,273 reports a second."""
    text = plan().canonical().replace('"lease_s":60.0', '"lease_s":1e-09')
    assert "1e-09" in text
    with pytest.raises(ValueError, match="lease_s must be 1 or more"):
        Plan.parse(text)
    assert Terms(lease_s=1.0).lease_s == 1.0


@pytest.mark.parametrize("task", [dataclasses.replace(TRAIN, round=0), dataclasses.replace(TRAIN, round=51)])
def test_rounds_that_the_plan_does_not_have_are_refused(site: Site, task: Task) -> None:
    """Before: a round 0 was trained beside the plan's rounds."""
    site.attach(task)
    assert isinstance(site.end(), RemoteError)
    assert updates(site) == []


# --- what it repeats without end ---------------------------------------------------------------------------------


def ready(site: Site) -> list[str]:
    return [what.run for what in site.link.told if isinstance(what, codec.Ready)]


@pytest.mark.parametrize("runs", [[RUN], [RUN, named(1)]], ids=["the same run", "two runs in turn"])
def test_welcomes_without_end_start_one_thread(tmp_path: Path, runs: list[str]) -> None:
    """Before: a thread for each; 9,225 in 12 s, where the coordinator did not answer."""
    site, answers = ThreadedSite(tmp_path / "site"), threading.Event()

    def holds(report: codec.Report) -> tuple[Answer, str]:
        if isinstance(report, codec.Ready):
            answers.wait(WAIT_S)
        return Answer.ACCEPTED, ""

    site.link.answers = holds
    before = threading.active_count()
    site.attach()
    site.link.hears(lambda _told: ready(site))
    site.says(*(welcome(run) for run in runs * 100), Idle("that was all"))
    site.shows("resting", reason="that was all")
    assert threading.active_count() - before <= 6
    assert len(ready(site)) == 1
    answers.set()
    site.link.hears(lambda _told: ready(site)[-1] == runs[-1])
    site.says(OVER)
    site.end()
    assert len(ready(site)) <= 2


# --- what is known stays -----------------------------------------------------------------------------------------


RECORD = json.dumps({"ledger": [{"round": 1, "loss": 0.5, "contributions": [], "missing": []}]})


def finished(site: Site) -> dict[str, str]:
    """Let a run end, and start the agent again; return what its folder holds."""
    site.attach(dataclasses.replace(OVER, record=RECORD))
    assert site.end().outcome is Outcome.OK
    site.begin()
    return files(site.home.run_folder(RUN))


def test_a_finished_run_that_is_named_again_keeps_its_outcome_and_record(site: Site) -> None:
    """Before: outcome and record were those that came last."""
    before = finished(site)
    forged = Finish(Outcome.ABORTED, "never happened", RECORD.replace("0.5", "0.1"))
    site.attach(forged)
    assert site.end() == forged
    assert files(site.home.run_folder(RUN)) == before


def test_a_finished_run_keeps_its_plan(site: Site) -> None:
    """Before: the plan was overwritten, and with it what the report said of every number."""
    before = finished(site)
    site.attach(TRAIN, seed=7)
    error = site.end()
    assert isinstance(error, RemoteError)
    assert "another plan" in error.what
    assert files(site.home.run_folder(RUN)) == before


def test_a_finished_run_does_not_go_on(site: Site) -> None:
    """Before: it did, and its outcome was unknown again only when the next one came."""
    finished(site)
    site.attach(TRAIN)
    error = site.end()
    assert isinstance(error, RemoteError)
    assert "has ended here: OK" in error.what
    assert site.worker.begun == []


def test_an_unfinished_run_keeps_its_plan_over_a_restart(site: Site) -> None:
    """This held before."""
    interrupted(site)
    site.attach(TRAIN, seed=7)
    assert isinstance(site.end(), RemoteError)


@pytest.mark.parametrize("run", ["ssl", "cssl", "20300101-000000-csfssl-0000000", "20300101-000000-ssl-00000000"])
def test_a_run_is_named_as_coordinators_name_them(site: Site, run: str) -> None:
    """Before: a run named `ssl` blocked the site's own pretraining."""
    site.alone()
    site.says(welcome(run))
    assert isinstance(site.end(), RemoteError)
    assert not (site.home.folder / "runs").exists()


def test_another_federation_is_not_this_sites(site: Site) -> None:
    """Before: the name was not looked at."""
    site.alone()
    site.says(codec.Welcome("another", RUN, plan()))
    error = site.end()
    assert isinstance(error, RemoteError)
    assert "'another'" in error.what
    assert not (site.home.folder / "runs").exists()


@pytest.mark.parametrize(
    "record",
    [
        "[" * 100_000,
        "[1, 2]",
        RECORD.replace("0.5", "NaN"),
        RECORD.replace("0.5", "-1e308"),
        RECORD.replace('"round": 1', f'"round": {10**400}'),
        RECORD.replace('"missing": []', '"missing": [{"site": "\\ud800", "reason": ""}]'),
        RECORD.replace('"contributions": []', '"contributions": [{"site": "mallory", "images": 1, "steps": 1}]'),
        RECORD.replace("{", '{"run": "other-run", ', 1),
    ],
    ids=[
        *("deep", "a list", "not a number", "a huge loss", "a huge round", "half a character", "a stranger"),
        "another run",
    ],
)
def test_a_malformed_record_is_not_kept(site: Site, record: str) -> None:
    """Before: it was, and each `evaluate` after it ended with code 1, "a bug"."""
    site.attach(dataclasses.replace(OVER, record=record))
    assert site.end().outcome is Outcome.OK
    assert site.run_store().ledger() == ()
    assert (site.home.run_folder(RUN) / "record.json").read_text() == "{}"
    assert "is not saved" in [values["text"] for what, values in site.shown if what == "message"][-1]


# --- what an honest coordinator does goes on working -------------------------------------------------------------


def test_a_record_of_a_later_version_is_kept_as_it_came(site: Site) -> None:
    later = RECORD.replace("{", '{"later": {"a": [1]}, ', 1).replace('"round": 1', '"later": null, "round": 1')
    site.attach(dataclasses.replace(OVER, record=later))
    assert site.end().outcome is Outcome.OK
    assert (site.home.run_folder(RUN) / "record.json").read_text() == later
    assert [line.round for line in site.run_store().ledger()] == [1]


def test_an_honest_run_is_counted_once_whatever_is_lost_and_repeated(site: Site) -> None:
    """The same task twice, a lost answer, a restarted agent, a round that is scored again with another average."""
    answers = iter([LinkError("cut")] * 3)

    def loses(report: codec.Report) -> tuple[Answer, str]:
        if isinstance(report, UpdateStored) and (error := next(answers, None)):
            raise error
        return Answer.ACCEPTED, ""

    site.link.answers = loses
    site.attach(TRAIN, TRAIN)
    site.shows("delivered")
    site.line_down()
    site.says(welcome(), Idle("waiting"), SCORE)
    site.link.hears(lambda told: scored(told, SCORE.base))
    site.says(dataclasses.replace(SCORE, base=TRAIN.base))
    site.link.hears(lambda told: scored(told, TRAIN.base))
    site.says(OVER)
    assert site.end() == OVER
    assert spent(site) == account.Spent(runs=1, rounds=1, epochs=1, bytes=len(b"the model after training"))
