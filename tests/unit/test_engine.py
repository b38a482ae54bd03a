"""The loop around the round machine, with real files: what is averaged from what, and what is kept for it on disk."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.limits.allowances import OF_ROUND_MAX, OF_RUN_MAX
from coordinator.run.engine import Engine
from coordinator.run.round_average import average
from coordinator.run.streams import Bell, KeysChanged, RosterKeys, Stream, instructions
from fedcervix.core.events import (
    Answer,
    Event,
    ModelAdopted,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteSilent,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.coordinator_work import AverageWork, coordinator_work
from fedcervix.core.rounds.instructions import Finish, Instruction
from fedcervix.core.rounds.state import Phase, Presence
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.errors import BusyError, DuplicateAgentError, FullDiskError, ModelError, RemoteError, RunError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.step_norms import Group, Meter, measure_groups
from fedcervix.models.stream_validation import Arriving
from fedcervix.models.weights import read_tensors, write_tensors
from fedcervix.transport.codec import InstanceClaim
from fedcervix.transport.versions import NUMERICS, Build
from fedcervix.trust.fingerprints import SiteKeys

SITES = ("ada", "bob")
INSTANCE = "0" * 32
NO_KEYS: SiteKeys = {}
PULL = {"ada": 1.0, "bob": 3.0}
"""how far a site's training moves the weight; so the average of both moves it by 2"""

pytestmark = pytest.mark.timeout(30)


class Federation:
    """A home on disk, the sites' work as arithmetic, and an engine that can be replaced as by a restart."""

    def __init__(self, folder: Path, **terms: Any) -> None:
        self.blobs = BlobStore(folder / "blobs")
        first = self.blobs.scratch("first")
        base = write_tensors(first, model(0.0, steps=0))
        self.blobs.adopt(first, base)
        given = Terms(**{"rounds": 9, "patience_rounds": 9, "lease_s": 1e6, "step_max": 1e36, **terms})
        plan = Plan(mode="csfssl", sites=SITES, profile="paper", terms=given, recipe=Recipe())
        self.record = RunRecord("run", plan, base, 0.0)
        self.journal = Journal(folder / "journal.db")
        self.journal.begin(self.record)
        self.restart()

    def restart(self) -> None:
        self.engine = Engine(self.journal, self.blobs, self.record, clock_s=lambda: 0.0)

    def weight(self, digest: str) -> float:
        return float(read_tensors(self.blobs.path(digest))["w"][0])

    def asked(self, site: str) -> Task:
        """Return the next task of a site; waits until the coordinator has done its own work."""
        for news in listened(self.engine, site):
            if isinstance(news, Task):
                return news
        raise AssertionError("the run has ended")

    def attach(self) -> None:
        for site in SITES:
            assert self.engine.submit(SiteAttached(site, 0.0)) is Answer.ACCEPTED

    def take(self, update: UpdateStored) -> Answer:
        """A site reports the model that it has brought."""
        self.blobs.note_brought(update.packed or update.digest, update.site)
        return self.engine.models.take_update(update)

    def train(self, site: str) -> None:
        task = self.asked(site)
        assert task.kind is TaskKind.TRAIN
        made = self.blobs.scratch(f"{site}-{task.round}")
        digest = write_tensors(made, model(self.weight(task.base) + PULL[site], steps=task.round))
        self.blobs.note_brought(digest, site)
        self.blobs.adopt(made, digest)
        update = UpdateStored(site, task, digest, 10, 1, 0.5, 1.0, 0.0)
        assert self.take(update) is Answer.ACCEPTED

    def score(self, site: str) -> None:
        task = self.asked(site)
        assert task.kind is TaskKind.SCORE
        assert self.engine.submit(ScoreReported(site, task, task.round, 1, 10, (), 0.0)) is Answer.ACCEPTED

    def round(self, sites: tuple[str, ...] = SITES) -> None:
        """A whole round: its loss is its number, so that the first one is and stays the best."""
        with driven(self.engine):
            for site in sites:
                self.train(site)
            for site in sites:
                self.score(site)

    def published(self) -> list[float]:
        """The weight that each finished round published, as far as it is still kept."""
        rounds = [round_ for round_ in self.engine.run.rounds if round_.candidate]
        return [self.weight(r.candidate) for r in rounds if self.blobs.has(r.candidate)]


def model(weight: float, steps: int) -> dict[str, np.ndarray]:
    return {"w": np.float32([weight]), "bn.num_batches_tracked": np.array(steps, np.int64)}


def listened(engine: Engine, site: str) -> Iterator[Instruction]:
    """Yield what a site is told, as the coordinator's service tells it, on an event loop of its own."""
    last: Instruction | None = None
    with asyncio.Runner() as runner:
        bell, stream = Bell(runner.get_loop()), Stream(site, INSTANCE)
        engine.on_change(bell.ring)
        try:
            engine.sites.open_stream(stream)
            told = instructions(engine, stream, bell, lambda: None, RosterKeys(lambda: NO_KEYS), calm_s=0.0)
            while (news := runner.run(_next(told))) is not None:
                assert not isinstance(news, KeysChanged)
                yield (last := news)
                if isinstance(news, Finish):
                    engine.sites.dismiss(site)
        finally:
            engine.sites.close_stream(stream, last)


async def _next(told: AsyncIterator[Instruction | KeysChanged]) -> Instruction | KeysChanged | None:
    return await anext(told, None)


def test_what_moved_until_the_end_of_a_round_is_kept_as_of_that_round(tmp_path: Path) -> None:
    run = Federation(tmp_path)
    run.attach()
    run.engine.moved(SITES[0], received_bytes=10, sent_bytes=1)
    run.round()
    run.engine.moved(SITES[0], sent_bytes=5)  # of the round in progress
    assert [(one.round, one.total_bytes) for one in run.engine.traffic.rounds] == [(1, 11)]
    assert run.engine.lines()[SITES[0]].sent_bytes == 6


def duty_of(run: Federation) -> AverageWork:
    work = coordinator_work(run.engine.run)
    assert work is not None
    return work


@contextmanager
def driven(engine: Engine) -> Iterator[None]:
    """Let the driving thread do the coordinator's own work meanwhile."""
    thread = threading.Thread(target=engine.drive, daemon=True)
    thread.start()
    try:
        yield
    finally:
        engine.stop()
        thread.join()


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    with ExitStack() as stack:

        def make(name: str = "home", **terms: Any) -> Federation:
            (tmp_path / name).mkdir()
            made = Federation(tmp_path / name, **terms)
            stack.callback(made.journal.close)
            made.attach()
            return made

        yield make


def rounds_with_restarts(run: Federation, count: int, sites: tuple[str, ...] = SITES) -> list[float]:
    """Return what each round published; the coordinator is restarted after each."""
    found = []
    for _ in range(count):
        run.round(sites)
        found.append(run.weight(run.engine.run.model))
        run.restart()
    return found


def test_the_plain_mean_moves_the_model_as_far_as_the_sites_do(federation: Callable[..., Federation]) -> None:
    assert rounds_with_restarts(federation(), 3) == [2, 4, 6]


def test_a_disk_without_room_for_the_next_model_is_told_before_anything_fails(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federation()
    run.round()
    assert run.engine.trouble == ""
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr("fedcervix.models.blobs.shutil.disk_usage", lambda _: usage)
    assert run.engine.trouble.startswith("the disk is (nearly) full; nothing has failed yet: no room for a model of ")
    assert "1,000 bytes are free" in run.engine.trouble
    assert "next: free some space (df -h " in run.engine.trouble


def test_server_momentum_adds_its_share_of_the_last_step(federation: Callable[..., Federation]) -> None:
    # Each round the sites move the model by 2: 2, 4 + 2 / 2 = 5, 7 + 3 / 2 = 8.5, 10.5 + 3.5 / 2 = 12.25.
    assert rounds_with_restarts(federation(server_momentum=0.5), 4) == [2, 5, 8.5, 12.25]


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_restarts_between_rounds_give_the_same_digests(federation: Callable[..., Federation], share: float) -> None:
    through, restarted = federation("through", server_momentum=share), federation("restarted", server_momentum=share)
    rounds_with_restarts(restarted, 4)
    with driven(through.engine):
        for _ in range(4):
            for work in (through.train, through.score):
                for site in SITES:
                    work(site)
    ours, theirs = through.engine.run, restarted.engine.run
    assert len(ours.rounds) == 5
    assert [r.candidate for r in ours.rounds] == [r.candidate for r in theirs.rounds]


def test_a_restart_before_the_average_averages_from_the_same_models(federation: Callable[..., Federation]) -> None:
    run = federation(server_momentum=0.5)
    rounds_with_restarts(run, 2)
    for site in SITES:
        run.train(site)
    run.restart()
    assert run.engine.run.phase is Phase.AGGREGATING
    with driven(run.engine):
        assert run.weight(run.asked("ada").base) == 8.5


def test_an_average_that_was_made_but_not_journaled_is_made_again(federation: Callable[..., Federation]) -> None:
    """Killed between the file and the journal: the same work gives the same file."""
    run = federation(server_momentum=0.5)
    rounds_with_restarts(run, 2)
    for site in SITES:
        run.train(site)
    first = average(run.record.plan, run.blobs, duty_of(run))
    run.restart()
    assert average(run.record.plan, run.blobs, duty_of(run)) == first


def test_what_is_measured_of_the_updates_is_journaled_with_the_average(federation: Callable[..., Federation]) -> None:
    run = federation()
    rounds_with_restarts(run, 1)
    run.restart()
    measured = run.engine.run.rounds[0].measured
    assert measured.keys() == set(SITES)
    assert all(one.norm > 0 and one.cosine == pytest.approx(1) for one in measured.values())


def test_a_site_that_was_away_joins_a_momentum_that_went_on_without_it(federation: Callable[..., Federation]) -> None:
    run = federation(server_momentum=0.5, quorum=1, grace_s=0.0)
    run.engine.submit(SiteSilent("bob", 0.0))
    # ada alone moves the model by 1: 1, 2 + 1 / 2; then both move it by 2: 4.5 + 1.5 / 2
    assert rounds_with_restarts(run, 2, sites=("ada",)) == [1, 2.5]
    run.engine.submit(SiteAttached("bob", 0.0))
    assert rounds_with_restarts(run, 1) == [5.25]


def arrived_sound(run: Federation, site: str, digest: str) -> None:
    content = run.blobs.path(digest).read_bytes()
    seen = run.engine.models.arriving(site, len(content))
    seen.see(content)
    assert seen.sound
    run.engine.models.note_arrived(site, digest, seen)
    seen.close()


def test_values_that_were_checked_on_arrival_are_not_read_again_and_all_else_is_checked(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = federation()

    def arrives(site: str, tensors: dict[str, np.ndarray]) -> UpdateStored:
        made = run.blobs.scratch(site)
        run.blobs.note_brought(digest := write_tensors(made, tensors), site)
        run.blobs.adopt(made, digest)
        return UpdateStored(site, run.asked(site), digest, 10, 1, 0.5, 1.0, 0.0)

    looked: list[Path] = []
    monkeypatch.setattr("fedcervix.models.weights._check_values", lambda path, _layout: looked.append(path))
    measured: list[Path] = []

    def measures(path: Path, base: Path) -> tuple[Group, ...]:
        measured.append(path)
        return measure_groups(path, base)

    monkeypatch.setattr("coordinator.run.model_work.measure_groups", measures)
    ada = arrives("ada", {"other": np.float32([1.0])})
    arrived_sound(run, "ada", ada.digest)
    with pytest.raises(RemoteError, match="other is not in the base"):
        run.take(ada)
    ada = arrives("ada", model(1.0, steps=1))
    arrived_sound(run, "ada", ada.digest)
    assert run.take(ada) is Answer.ACCEPTED
    assert not looked
    assert not measured
    bob = arrives("bob", model(2.0, steps=1))
    assert run.take(bob) is Answer.ACCEPTED
    assert looked == measured[-1:] == [run.blobs.path(bob.digest)]


def test_what_was_measured_on_arrival_counts_for_that_model_and_that_base_alone(
    federation: Callable[..., Federation],
) -> None:
    run = federation(step_max=10.0)

    def brought(site: str, weight: float) -> str:
        made = run.blobs.scratch(site)
        digest = write_tensors(made, model(weight, steps=1))
        run.blobs.note_brought(digest, site)
        run.blobs.adopt(made, digest)
        return digest

    far, near = brought("ada", 1e6), brought("ada", 1.0)
    task = run.asked("ada")
    arrived_sound(run, "ada", near)
    with pytest.raises(RemoteError, match="too far"):
        run.take(UpdateStored("ada", task, far, 10, 1, 0.5, 1.0, 0.0))
    content = run.blobs.path(far).read_bytes()
    seen = Arriving(len(content), meter=Meter(run.blobs.path(far)))
    seen.see(content)
    assert [group.moved for group in (seen.moved() or ((), ()))[1] if group.count] == [0.0]  # from itself
    run.engine.models.note_arrived("bob", far, seen)
    seen.close()
    with pytest.raises(RemoteError, match="too far"):
        run.take(UpdateStored("bob", run.asked("bob"), far, 10, 1, 0.5, 1.0, 0.0))


def test_a_model_that_was_refused_is_not_looked_at_again(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of 150 bytes had it parsed and vetted each time."""
    run = federation()
    made = run.blobs.scratch("ada")
    run.blobs.adopt(made, digest := write_tensors(made, {"other": np.float32([1.0])}))
    ada = UpdateStored("ada", run.asked("ada"), digest, 10, 1, 0.5, 1.0, 0.0)
    words = []
    for _ in range(3):
        with pytest.raises(RemoteError, match="other is not in the base") as error:
            run.take(ada)
        words.append(error.value.explain())
        monkeypatch.setattr("coordinator.run.model_work.vet", lambda *_: pytest.fail("it was looked at again"))
    assert len({*words}) == 1


def test_a_model_that_another_site_has_brought_is_not_here_for_this_one(
    federation: Callable[..., Federation],
) -> None:
    """Else a site could count without training, and find out by a digest what others have sent."""
    run = federation()
    run.train("ada")
    [ada] = run.engine.run.current.contributions
    task = run.asked("bob")
    words = []
    for digest in (ada.digest, "c" * 64):
        with pytest.raises(RunError, match="is not at the coordinator") as refused:
            run.engine.models.take_update(UpdateStored("bob", task, digest, 10, 1, 0.5, 1.0, 0.0))
        words.append(refused.value.explain().replace(digest[:12], "DIGEST"))
    assert words[0] == words[1], "no word tells the two apart"


def test_the_disk_keeps_what_the_next_average_needs_and_no_more(federation: Callable[..., Federation]) -> None:
    """The first model (the layout), the best one, the last, and the one before it, which the run may go back to."""
    plain, moved = federation("plain"), federation("moved", server_momentum=0.5)
    rounds_with_restarts(plain, 4)
    rounds_with_restarts(moved, 4)
    assert plain.published() == [2, 6, 8]
    assert moved.published() == [2, 8.5, 12.25]
    assert [len(list(home.blobs.path("x").parent.glob("*.safetensors"))) for home in (plain, moved)] == [4, 4]


# --- floods ------------------------------------------------------------------------------------------------------


def failed(number: int) -> SiteFailed:
    return SiteFailed("ada", "training", "again", f"INC-{number}", 0.0, goes_on=True)


def test_a_flood_of_failures_is_answered_set_aside_and_shown_and_the_round_goes_on(
    federation: Callable[..., Federation],
) -> None:
    run = federation()
    answers = [run.engine.submit(failed(number)) for number in range(1_000)]
    assert answers[:OF_ROUND_MAX] == [Answer.ACCEPTED] * OF_ROUND_MAX
    assert set(answers[OF_ROUND_MAX:]) == {Answer.DUPLICATE}, "an honest agent goes on"
    assert run.engine.lines()["ada"].set_aside == 1_000 - OF_ROUND_MAX
    assert len(list(run.journal.events("run"))) == len(SITES) + OF_ROUND_MAX
    run.round()
    assert run.published() == [2]


def test_a_restart_neither_changes_the_run_nor_gives_a_new_allowance(federation: Callable[..., Federation]) -> None:
    run = federation()
    for number in range(200):
        run.engine.submit(failed(number))
    before = run.engine.run
    run.restart()
    assert run.engine.run == before
    assert run.engine.submit(failed(201)) is Answer.DUPLICATE


def test_a_journal_that_was_written_before_there_were_allowances_is_replayed_whole(
    federation: Callable[..., Federation],
) -> None:
    run = federation()
    run.journal._db.execute("BEGIN")
    for number in range(OF_RUN_MAX + 10):
        run.journal.append("run", failed(number))
    run.journal._db.execute("COMMIT")
    run.restart()
    assert run.engine.run.failures[-1] == failed(OF_RUN_MAX + 9)
    assert run.engine.submit(failed(0)) is Answer.DUPLICATE


def test_a_model_that_goes_while_it_is_vetted_does_not_count(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site offers another one while its report of the first is looked at."""
    run = federation()

    def measures(update: Path, base: Path) -> tuple[Group, ...]:
        run.engine.models.expect("ada", "d" * 64, 100)
        return measure_groups(base, base)

    monkeypatch.setattr("coordinator.run.model_work.measure_groups", measures)
    with pytest.raises(RunError, match="is not at the coordinator"):
        run.train("ada")
    assert run.engine.run.current.contributions == ()


def test_a_report_that_comes_again_while_its_model_is_looked_at_waits_on_no_thread(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site has few threads: its signs of life would stand behind it, and a large model takes longer than a lease."""
    run, again = federation(), []

    def measures(update: Path, base: Path) -> tuple[Group, ...]:
        task = run.asked("ada")
        with pytest.raises(BusyError):
            run.engine.models.take_update(UpdateStored("ada", task, update.name.split(".")[0], 10, 1, 0.5, 1.0, 0.0))
        again.append(task)
        return measure_groups(update, base)

    monkeypatch.setattr("coordinator.run.model_work.measure_groups", measures)
    run.train("ada")
    assert again
    assert [update.site for update in run.engine.run.current.contributions] == ["ada"]


# --- trouble -----------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_for_a_while_is_tried_again_and_said_once(federation: Callable[..., Federation]) -> None:
    run = federation()
    in_the_way = run.blobs.scratch("aggregate-1")
    in_the_way.mkdir()  # what is to be written cannot be
    with driven(run.engine):
        for site in SITES:
            run.train(site)
        assert waits_for(lambda: bool(run.engine.trouble))
        in_the_way.rmdir()
        assert run.weight(run.asked("ada").base) == 2
        assert run.engine.trouble == ""


def test_a_coordinator_in_trouble_stops_at_once(federation: Callable[..., Federation]) -> None:
    run = federation()
    run.blobs.scratch("aggregate-1").mkdir()
    with driven(run.engine):
        for site in SITES:
            run.train(site)
        assert waits_for(lambda: bool(run.engine.trouble))
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 5, "it waited for its next try"


def test_a_run_that_cannot_be_averaged_is_aborted_once_the_journal_has_room(
    federation: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, append, full = federation(), Journal.append, threading.Event()

    def averages(*_: Any) -> None:
        full.set()
        raise ModelError("the models differ")

    def appends(journal: Journal, name: str, event: Event) -> None:
        if full.is_set() and not run.engine.trouble:
            raise FullDiskError("no room for the journal")
        append(journal, name, event)

    monkeypatch.setattr("coordinator.run.engine.average_round", averages)
    monkeypatch.setattr(Journal, "append", appends)
    for site in SITES:
        run.train(site)
    run.engine.drive()
    assert run.engine.run.reason == "the round cannot be averaged: the models differ"


# --- a coordinator that stood still -------------------------------------------------------------------------------


@pytest.mark.parametrize("paused", [0.3, 1.5, 100])
def test_a_coordinator_that_stood_still_gives_everyone_a_new_lease(
    federation: Callable[..., Federation], paused: float
) -> None:
    """It was stopped, or its machine was: the sites' reports lie unread."""
    run, lease_s, now_s = federation(lease_s=1000.0), 1000.0, [0.0]
    engine = run.engine = Engine(run.journal, run.blobs, run.record, steady_s=lambda: now_s[0])
    now_s[0] += paused * lease_s
    with driven(engine):
        assert waits_for(lambda: engine.lines()["ada"].lease_ends_in_s != (1 - paused) * lease_s)
        assert [engine.lines()[site].lease_ends_in_s for site in SITES] == [lease_s, lease_s]
        assert {site.presence for site in engine.run.sites} == {Presence.PRESENT}


def test_a_site_is_silent_after_a_lease_for_a_coordinator_that_never_stood_still(
    federation: Callable[..., Federation],
) -> None:
    run, now_s = federation(lease_s=1000.0), [0.0]
    engine = run.engine = Engine(run.journal, run.blobs, run.record, steady_s=lambda: now_s[0])
    for _ in range(4):
        engine._detect_stall()
        now_s[0] += 250
        engine.sites.heard("ada")
    with driven(engine):
        assert waits_for(lambda: engine.run.site("bob").presence is Presence.SILENT)
        assert engine.run.site("ada").presence is Presence.PRESENT


def test_a_sign_of_life_does_not_wait_for_who_journals(federation: Callable[..., Federation]) -> None:
    """Every part of a model is one: while the disk was slow, all threads stood before the lock."""
    engine, now_s = federation().engine, time.monotonic()
    engine.sites.admit("ada", InstanceClaim("a" * 32))
    with ThreadPoolExecutor(1) as other, engine._state.changed:
        other.submit(engine.sites.check_instance, "ada", "a" * 32).result(60)
        with pytest.raises(DuplicateAgentError):
            other.submit(engine.sites.check_instance, "ada", "b" * 32).result(60)
    assert engine.lines()["ada"].unheard_for_s <= time.monotonic() - now_s


def waits_for(holds: Callable[[], bool]) -> bool:
    """Say whether something comes true within some seconds."""
    until_s = time.monotonic() + 10
    while not holds() and time.monotonic() < until_s:
        time.sleep(0.01)
    return holds()


# --- the end -----------------------------------------------------------------------------------------------------


def finished(run: Federation) -> Federation:
    """Do the only round; both sites take the model."""
    run.round()
    with driven(run.engine):
        for site in SITES:
            task = run.asked(site)
            assert task.kind is TaskKind.ADOPT
            assert run.engine.submit(ModelAdopted(site, task, 0.0)) is Answer.ACCEPTED
    assert run.engine.run.ended
    run.restart()  # killed before it had told anybody
    return run


def told(run: Federation, site: str) -> None:
    """Let a site listen to its end."""
    *_, last = listened(run.engine, site)
    assert isinstance(last, Finish)


def test_a_coordinator_whose_run_is_over_stays_until_everybody_has_been_told(
    federation: Callable[..., Federation],
) -> None:
    run = finished(federation(rounds=1))
    thread = threading.Thread(target=run.engine.drive, daemon=True)
    thread.start()
    told(run, "ada")
    assert thread.is_alive()
    told(run, "bob")
    thread.join()


def test_a_site_that_ends_its_stream_as_soon_as_it_is_told_has_been_told(
    federation: Callable[..., Federation],
) -> None:
    run = finished(federation(rounds=1))
    for site in SITES:
        stream = listened(run.engine, site)
        while not isinstance(next(stream), Finish):
            pass
        stream.close()
    run.engine.drive()


def test_it_waits_a_lease_for_who_does_not_come_and_not_at_all_when_it_is_stopped(
    federation: Callable[..., Federation],
) -> None:
    with driven(finished(federation("long", rounds=1)).engine):
        pass
    finished(federation("short", rounds=1, lease_s=1.0)).engine.drive()


def test_an_aborted_run_waits_for_nobody_who_is_not_on_the_line(federation: Callable[..., Federation]) -> None:
    run = federation()
    run.engine.abort("enough")
    run.engine.drive()


def test_another_process_of_a_connected_site_does_not_make_it_wait_for_an_upgrade(
    federation: Callable[..., Federation],
) -> None:
    engine, site = federation().engine, SITES[0]
    sites, build, other = engine.sites, Build("0.1.0"), Build("0.2.0", 9, 9)
    sites.outdated(site, other, "install fedcervix 0.2.0")
    assert (sites.line(site).software, sites.line(site).upgrade) == ("0.2.0", "install fedcervix 0.2.0")
    sites.admit(site, InstanceClaim("a" * 32), build)
    sites.open_stream(Stream(site, "a" * 32))
    sites.outdated(site, other, "install fedcervix 0.2.0")
    assert (sites.line(site).software, sites.line(site).upgrade) == ("0.1.0", "")


def test_the_software_of_a_site_and_the_numerics_of_the_run_outlive_a_restart(
    federation: Callable[..., Federation],
) -> None:
    run, site = federation(), SITES[0]
    for build in (Build("0.1.0"), Build("0.1.0"), Build("0.2.0")):
        run.engine.sites.admit(site, InstanceClaim("a" * 32), build)
        run.engine.submit(run.engine.sites.attached(site, 1.0))
    run.restart()
    assert run.engine.run.site(site).software == ("0.1.0", "0.2.0")
    assert run.engine.run.numerics == NUMERICS
