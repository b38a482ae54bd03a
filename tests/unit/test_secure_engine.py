"""The coordinator's side of secure sums: real keys, signatures, boxes and vectors; what does not hold is refused."""

from __future__ import annotations

import hashlib
import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.alarms.stated_lengths import stated_lengths
from coordinator.calls.service import Service
from coordinator.home.registry import Registry
from coordinator.run.engine import Engine
from coordinator.run.run_ledger import first_entries
from coordinator.run.secure_rounds import PaperStream
from fedcervix.core.events import (
    Answer,
    BoxesStored,
    CloseSigned,
    Event,
    Masked,
    ReleaseStored,
    ScoreReported,
    SiteAttached,
    SiteOpened,
    SiteSilent,
    Task,
    TaskKind,
    Tick,
    UpdateStored,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.coordinator_work import coordinator_work
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Phase, Presence, Run
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.errors import RemoteError, RunError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import open_sum
from fedcervix.models.secure_updates import quantise
from fedcervix.models.weights import read_layout, read_tensors, write_tensors
from fedcervix.transport import codec, identity
from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.contexts import RoundContext, RunContext
from fedcervix.trust.fixed_point import Share
from fedcervix.trust.key_texts import private_key, public_pem
from fedcervix.trust.ledger import NOT_SIGNED, Signed
from fedcervix.trust.ledger_run import KnownRound
from fedcervix.trust.mask_streams import MaskSecret
from fedcervix.trust.records import RECORD, SAID, record_of
from fedcervix.trust.statements import sign
from fedcervix.trust.sum_lists import signed_release
from fedcervix.trust.sum_papers import AttemptShown, Boxes, Openings, SumShown, line_of, opening_event
from fedcervix.trust.sum_reports import three_digits
from fedcervix.trust.sum_roster import signed_opening
from site_agent.federation.sum_site import SigningSite, SumSite, TrainedUpdate
from site_agent.home import SiteHome
from site_agent.store.sum_journal import SumJournal
from tests.unit.coordinator_homes import made

SITES = ("ada", "bob", "cleo", "dora")
IMAGES = {"ada": 10, "bob": 12, "cleo": 15, "dora": 11}
RUN = "20300101-000000-csfssl-00000000"
GRACE_S = 10.0


class Table:
    """An engine, and sites that answer it; what is said goes from hand to hand. `restarts`: after every event."""

    def __init__(self, folder: Path, *, restarts: bool = False, **terms: Any) -> None:
        self.folder, self.restarts, self.at = folder, restarts, 1.0
        self.home = home = made(folder / "coordinator", sites=SITES)
        self.blobs = BlobStore(folder / "blobs")
        chance = np.random.default_rng(7)
        first = self.blobs.scratch("first")
        values = {"w": chance.normal(size=(30, 20)).astype(np.float32), "bn.running_mean": np.zeros(5, np.float32)}
        base = write_tensors(first, {**values, "steps": np.zeros((), np.int64)})
        self.blobs.adopt(first, base)
        said = {"secure_sum": True, "holders": ("ada", "bob"), "rounds": 2, "average": "by-images", "grace_s": GRACE_S}
        given = Terms(**{**said, "lease_s": 1e6, **terms})
        self.plan = Plan(mode="csfssl", sites=SITES, profile="paper", terms=given, recipe=Recipe())
        self.record = RunRecord(RUN, self.plan, base, 0.0)
        self.journal = Journal(folder / "journal.db")
        key = private_key(home.pem("ledger.key"))
        begin = first_entries(self.record, "cervix", home.pem("authority.crt").decode(), public_pem(key.public_key()))
        self.journal.begin(self.record, (0, begin))
        self.restart()
        keys = {site: identity.new_key() for site in SITES}
        self.keys = {site: private_key(pem) for site, pem in keys.items()}
        now, lifetime, authority = datetime.now(UTC), identity.AUTHORITY_LIFETIME, home.authority()
        self.engine.note_certificates(
            {
                site: identity.issue(
                    authority, identity.public_key(pem), identity.Identity("cervix", "site", site), now, lifetime
                ).decode()
                for site, pem in keys.items()
            }
        )
        context = RunContext(federation="cervix", run=RUN, plan=self.plan.digest)
        self.sites: dict[str, SumSite] = {}
        for site, own in self.keys.items():
            place = SiteHome(folder / site)
            place.folder.mkdir()
            self.sites[site] = SumSite(place, SigningSite(site, own), context, self.plan, SumJournal(place))
            self.sites[site].keys = {name: key.public_key() for name, key in self.keys.items()}
        self.streams = {site: self.stream(site) for site in SITES}
        self.papers: dict[str, dict[type, codec.Paper]] = {site: {} for site in SITES}
        self.right = base

    def stream(self, site: str) -> PaperStream:
        return PaperStream(lambda: self.engine.run, site)

    def restart(self) -> None:
        self.engine = Engine(self.journal, self.blobs, self.record, clock_s=lambda: self.at)

    @property
    def run(self) -> Run:
        return self.engine.run

    # --- what sites say ---

    def say(self, event: Event) -> Answer:
        """Say something to the coordinator, as its service takes it in."""
        self.engine.secrets.check(event)
        match event:
            case UpdateStored():
                answer = self.engine.models.take_update(event, self.signed(event))
            case ReleaseStored():
                answer = self.engine.models.take_release(event, self.signed(event))
            case _:
                answer = self.engine.submit(event, self.signed(event))
        if self.restarts:
            self.restart()
        return answer

    def signed(self, event: Event) -> Signed:
        """Return what a site signs of what it says."""
        if type(event) not in SAID:
            return NOT_SIGNED
        record = record_of(event, RUN, self.plan.digest)
        return Signed(record, sign(self.keys[event.site], RECORD, record))  # type: ignore[union-attr]

    def open(self, site: str) -> SiteOpened:
        return opening_event(self.sites[site].opening(IMAGES[site]), self.at)

    def shown(self, site: str, kind: type[Any]) -> Any:
        """Return what a site was shown last of a kind, up to its present instruction."""
        for paper in self.streams[site].due(instruction(self.run, site)):
            read = codec.read_from_coordinator(codec.write_paper(paper))
            assert read == paper
            self.papers[site][type(paper)] = paper
        return self.papers[site].get(kind)

    def known(self) -> KnownRound:
        round_ = self.run.current
        head = self.engine.ledger.known.heads[round_.number - 1].hash
        return KnownRound(round_.number, round_.base, head)

    def context(self, site: str) -> RoundContext:
        """Return the present attempt as a site sees it."""
        return self.sites[site].proposal(self.known(), self.shown(site, AttemptShown)).context

    def bring(self, site: str, digest: str) -> None:
        """Let the coordinator have a file of a site."""
        if not self.blobs.has(digest):
            copied = self.blobs.scratch(f"from-{site}")
            shutil.copy(BlobStore(SiteHome(self.folder / site).blobs).path(digest), copied)
            self.blobs.adopt(copied, digest)
        self.blobs.note_brought(digest, site)

    def fetch(self, site: str, digest: str) -> BlobStore:
        theirs = BlobStore(SiteHome(self.folder / site).blobs)
        if not theirs.has(digest):
            copied = theirs.scratch("fetched")
            shutil.copy(self.blobs.path(digest), copied)
            theirs.adopt(copied, digest)
        return theirs

    def answer(self, site: str) -> Event:
        """Return what a site says to what it is asked."""
        task = instruction(self.run, site)
        assert isinstance(task, Task), f"{site}: {task}"
        return {
            TaskKind.BOX: self.box,
            TaskKind.TRAIN: self.train,
            TaskKind.RELEASE: self.release,
            TaskKind.CLOSE: self.close,
            TaskKind.SCORE: self.score,
        }[task.kind](site, task)

    def box(self, site: str, task: Task) -> BoxesStored:
        boxes = self.sites[site].join(self.shown(site, Openings).openings)
        told = tuple((reader, box.hex()) for reader, box in boxes.items())
        return BoxesStored(site, task, self.sites[site].roster.digest, told, self.at)

    def trained(self, site: str, task: Task, blobs: BlobStore) -> str:
        seed = int(hashlib.sha256(f"{site} {task.round} {task.attempt}".encode()).hexdigest(), 16)
        chance, base = np.random.default_rng(seed), read_tensors(blobs.path(task.base))
        moved = {name: (v + chance.normal(size=v.shape) / 50).astype(v.dtype) for name, v in base.items()}
        making = blobs.scratch("trained")
        digest = write_tensors(making, {**moved, "steps": base["steps"] + 5})
        blobs.adopt(making, digest)
        return digest

    def train(self, site: str, task: Task) -> UpdateStored:
        me, blobs = self.sites[site], self.fetch(site, task.base)
        attempt = self.shown(site, AttemptShown)
        if not me.is_joined:
            me.take_boxes(self.shown(site, Boxes).boxes)
        known, trained = self.known(), self.trained(site, task, blobs)
        report = me.upload(known, me.proposal(known, attempt), TrainedUpdate(trained, 5, 1.2345))
        self.bring(site, report.upload)
        masked = Masked(report.commit, report.norm, report.before, report.signature.hex())
        update = UpdateStored(site, task, report.upload, IMAGES[site], 5, report.loss, 1.0, self.at, masked=masked)
        shutil.copy(blobs.path(trained), self.folder / f"trained-{task.round}-{task.attempt}-{site}")
        return update

    def release(self, site: str, task: Task) -> ReleaseStored:
        me, attempt, known = self.sites[site], self.shown(site, AttemptShown), self.known()
        proposal = me.proposal(known, attempt)
        signed = me.release(known, proposal, attempt.listed(proposal.context))
        self.bring(site, signed.masks)
        return ReleaseStored(site, task, signed.listed, signed.masks, signed.signature.hex(), self.at)

    def close(self, site: str, task: Task) -> CloseSigned:
        me, attempt, known = self.sites[site], self.shown(site, AttemptShown), self.known()
        self.fetch(site, known.base)
        if not me.is_joined:
            me.take_boxes(self.shown(site, Boxes).boxes)
        signed = me.close(known, me.proposal(known, attempt), attempt.remaining)
        return CloseSigned(site, task, signed.remaining, signed.signature.hex(), self.at)

    def score(self, site: str, task: Task) -> ScoreReported:
        """Check the sum and derive the model first: it must be the coordinator's."""
        me, sum_, known = self.sites[site], self.shown(site, SumShown), self.known()
        self.fetch(site, sum_.total)
        proposal = me.proposal(known, sum_.attempt)
        assert me.learn(known, proposal, sum_.attempt.listed(proposal.context), sum_.releases, sum_.total) == task.base
        return ScoreReported(site, task, 1.0 / task.round, 1, IMAGES[site], (), self.at)

    # --- a run ---

    def begin(self) -> None:
        for site in SITES:
            assert self.say(self.open(site)) is Answer.ACCEPTED
            assert self.say(SiteAttached(site, self.at)) is Answer.ACCEPTED
        self.all_do()

    def all_do(self, *sites: str) -> None:
        for site in sites or SITES:
            assert self.say(self.answer(site)) is Answer.ACCEPTED

    def sum_up(self) -> None:
        """Let the coordinator open the sum."""
        work = coordinator_work(self.run)
        assert work is not None
        self.engine._average_or_abort(work)
        if self.restarts:
            self.restart()

    def round(self, *holders: str) -> None:
        base, number, attempt = self.run.model, len(self.run.rounds), len(self.run.current.closed) + 1
        self.all_do()
        self.all_do(*holders or ("ada", "bob"))
        self.right = self.integer_sum(base, number, attempt)
        self.sum_up()
        assert self.run.current.candidate == self.right
        self.all_do()

    def integer_sum(self, base: str, number: int, attempt: int) -> str:
        """Return the model that follows from the sum of the whole numbers themselves: nothing is masked here."""
        origin, whole, vectors = self.blobs.path(base), sum(IMAGES.values()), []
        for site in SITES:
            vectors.append(self.folder / f"q-{site}")
            update, share = self.folder / f"trained-{number}-{attempt}-{site}", Share(IMAGES[site], whole)
            quantise(update, origin, vectors[-1], share, "mean", MaskSecret(b"t" * 32, b"any"), round_=number)
        open_sum(vectors, [], self.folder / "sum", read_layout(origin))
        of = Summed(Share(whole, whole), len(SITES))
        return derive(self.folder / "sum", origin, self.folder / "model", of, "mean", round_=number).digest


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Callable[..., Table]]:
    tables: list[Table] = []

    def make(**options: Any) -> Table:
        (tmp_path / str(len(tables))).mkdir()
        tables.append(Table(tmp_path / str(len(tables)), **options))
        return tables[-1]

    yield make
    for made_ in tables:
        made_.journal.close()


@pytest.mark.parametrize("restarts", [False, True])
def test_each_round_gives_the_average_of_the_whole_numbers_bit_for_bit(
    table: Callable[..., Table], restarts: bool
) -> None:
    run = table(restarts=restarts)
    run.begin()
    run.round()
    run.round()
    assert run.run.phase is Phase.PUBLISHING
    kinds = {type(event).__name__ for event in run.journal.events(RUN)}
    assert {"SiteOpened", "BoxesStored", "ReleaseStored"} <= kinds


@pytest.mark.parametrize(("signed", "named"), [(1.0, []), (0.01, sorted(SITES))])
def test_a_sum_that_is_longer_than_its_sites_have_signed_names_them(
    table: Callable[..., Table], signed: float, named: list[str]
) -> None:
    """Who it was cannot be known. What honest sites sign holds."""
    run = table()
    run.begin()
    run.all_do()
    contributions = run.run.current.contributions
    run.all_do("ada", "bob")
    run.sum_up()
    round_ = run.run.current
    base, model = (read_tensors(run.blobs.path(digest)) for digest in (round_.base, round_.candidate))
    moved = [
        model[name].astype(float) - base[name]
        for name in base
        if base[name].dtype.kind == "f" and "running" not in name
    ]
    assert moved, "the model has trained numbers"
    of_trained = math.sqrt(sum(float((step**2).sum()) for step in moved))
    assert round_.summed_norm == pytest.approx(of_trained, rel=1e-3)
    told = tuple(
        replace(update, masked=replace(update.masked, norm=three_digits(signed * update.masked.norm)))
        for update in contributions
        if update.masked
    )
    said = replace(round_, contributions=told)
    assert sorted(alarm.site for alarm in stated_lengths(run.run, said)) == named


def test_a_lost_holder_costs_an_attempt_and_the_sum_is_that_of_the_new_one(table: Callable[..., Table]) -> None:
    run = table(restarts=True)
    run.begin()
    run.all_do()
    run.say(SiteSilent("bob", run.at))
    run.at += GRACE_S
    run.say(Tick(run.at))
    run.all_do("ada")
    run.say(SiteAttached("bob", run.at))
    assert run.run.phase is Phase.TRAINING
    run.round("ada")
    assert run.run.rounds[0].notes[0].startswith("attempt 1 was closed")


def test_server_momentum_is_added_to_the_sum(table: Callable[..., Table]) -> None:
    run = table(server_momentum=0.5)
    run.begin()
    run.round()
    run.all_do()
    run.all_do("ada", "bob")
    run.sum_up()
    assert run.run.current.candidate


def test_what_no_round_needs_any_more_is_deleted(table: Callable[..., Table]) -> None:
    run = table()
    run.begin()
    run.round()
    uploads = {update.digest for update in run.run.rounds[0].contributions}
    masks = {release.masks for release in run.run.rounds[0].releases}
    run.engine.models.purge()
    assert not any(map(run.blobs.has, uploads | masks))
    assert run.blobs.has(run.run.rounds[0].total), "a site that comes late fetches it"


def test_a_site_sees_on_a_new_stream_what_it_saw_on_the_last_one_and_nothing_twice(table: Callable[..., Table]) -> None:
    run = table()
    run.begin()
    asked, first = instruction(run.run, "ada"), run.stream("ada")
    kinds = [type(paper) for paper in first.due(asked)]
    assert kinds == [Openings, Boxes, AttemptShown]
    assert first.due(asked) == []
    assert [type(paper) for paper in run.stream("ada").due(asked)] == kinds


# --- what does not hold -----------------------------------------------------------------------------------------------


def test_an_opening_that_another_key_has_signed_is_refused(table: Callable[..., Table]) -> None:
    run = table()
    for wrong in (
        replace(run.open("ada"), signature=run.open("bob").signature),
        replace(run.open("ada"), images=11),
        replace(run.open("ada"), key=run.open("bob").key),
        replace(run.open("ada"), signature=""),
    ):
        with pytest.raises(RemoteError, match="what site ada has signed does not hold: its opening is not signed"):
            run.say(wrong)
    assert run.run.openings == ()


def test_a_site_is_ready_only_with_its_opening_and_always_with_the_same(table: Callable[..., Table]) -> None:
    run = table()
    service = Service(run.home, Registry(run.home.registry), run.engine, run.blobs)
    bare = codec.Ready(RUN, run.plan.digest)
    with pytest.raises(RemoteError, match="a site opens a run with its own key"):
        service._take_ready(bare, "ada", run.at, NOT_SIGNED)
    assert run.run.site("ada").presence is Presence.ABSENT
    ready = replace(bare, opening=run.sites["ada"].opening(IMAGES["ada"]))
    event = run.signed(SiteAttached("ada", run.at))
    assert service._take_ready(ready, "ada", run.at, event) is Answer.ACCEPTED
    assert service._take_ready(ready, "ada", run.at, event) is Answer.DUPLICATE
    context = RunContext(federation="cervix", run=RUN, plan=run.plan.digest)
    other = signed_opening(run.keys["ada"], context, OwnKey("ada", b"k" * 32), IMAGES["ada"], b"r" * 32)
    with pytest.raises(RunError, match="site ada has opened this run with another key before"):
        service._take_ready(replace(bare, opening=other), "ada", run.at, event)


def test_boxes_over_other_openings_are_refused(table: Callable[..., Table]) -> None:
    run = table()
    for site in SITES:
        run.say(run.open(site))
        run.say(SiteAttached(site, run.at))
    with pytest.raises(RemoteError, match="it has checked other openings"):
        run.say(replace(run.answer("ada"), roster="0" * 64))


def test_a_report_that_does_not_hold_is_refused(table: Callable[..., Table]) -> None:
    run = table()
    run.begin()
    update = run.answer("ada")
    assert isinstance(update, UpdateStored)
    assert update.masked is not None
    changed: dict[str, UpdateStored] = {
        "its number of images is not the one": replace(update, images=11),
        "its report is not signed": replace(update, steps=6),
        "a figure of a report has three digits": replace(update, loss=1.2345),
    }
    for words, wrong in changed.items():
        with pytest.raises(RemoteError, match=words):
            run.say(wrong)
    for masked in (
        replace(update.masked, commit="0" * 64),
        replace(update.masked, before="0" * 64),
        replace(update.masked, norm=9.0),
    ):
        with pytest.raises(RemoteError, match="its report is not signed"):
            run.say(replace(update, masked=masked))
    assert run.run.current.contributions == ()
    assert run.say(update) is Answer.ACCEPTED


def test_a_file_that_is_no_vector_is_refused_whatever_its_site_has_signed(table: Callable[..., Table]) -> None:
    run = table()
    run.begin()
    update = run.answer("ada")
    assert isinstance(update, UpdateStored)
    model = run.trained("ada", update.task, run.blobs)
    run.blobs.note_brought(model, "ada")
    bare = replace(line_of(update), upload=model, signature=b"")
    signed = bare.signed(run.keys["ada"], run.context("ada")).signature.hex()
    assert update.masked is not None
    with pytest.raises(RemoteError, match="not a vector of this run's model"):
        run.say(replace(update, digest=model, masked=replace(update.masked, signature=signed)))


def test_a_release_that_does_not_hold_is_refused(table: Callable[..., Table]) -> None:
    run = table()
    run.begin()
    run.all_do()
    release = run.answer("ada")
    assert isinstance(release, ReleaseStored)
    for words, wrong in {
        "for another list": replace(release, listed="0" * 64),
        "its release is not signed": replace(release, masks=run.run.current.contributions[0].digest),
    }.items():
        with pytest.raises(RemoteError, match=words):
            run.say(wrong)
    assert run.say(release) is Answer.ACCEPTED


def test_masks_that_do_not_cancel_end_the_run(table: Callable[..., Table]) -> None:
    """A holder that signs for masks which are none of the list."""
    run = table()
    run.begin()
    run.all_do()
    run.all_do("ada")
    release, context = run.answer("bob"), run.context("bob")
    assert isinstance(release, ReleaseStored)
    others, listed = run.run.current.releases[0].masks, run.shown("bob", AttemptShown).listed(context)
    false = signed_release(run.keys["bob"], "bob", context, listed, others)
    run.blobs.note_brought(others, "bob")
    run.say(replace(release, masks=others, signature=false.signature.hex()))
    run.sum_up()
    assert run.run.phase is Phase.ABORTED


def test_a_close_that_another_has_signed_is_refused(table: Callable[..., Table]) -> None:
    run = table()
    run.begin()
    run.all_do()
    run.say(SiteSilent("bob", run.at))
    run.at += GRACE_S
    run.say(Tick(run.at))
    close = run.answer("ada")
    assert isinstance(close, CloseSigned)
    with pytest.raises(RemoteError, match="closes the attempt is not signed"):
        run.say(replace(close, signature=run.open("bob").signature))
    assert run.say(close) is Answer.ACCEPTED


# --- what is found before a round -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "average", "found"), [(400, "by-images", True), (400, "equal", False), (90, "by-images", False)]
)
def test_a_site_that_the_others_cannot_hide_is_found_when_all_have_opened(
    table: Callable[..., Table], images: int, average: str, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(IMAGES, "dora", images)
    run = table(average=average)
    for site in SITES:
        assert run.engine.secrets.imbalance() == ""
        run.say(run.open(site))
    assert ("dora has too many images" in run.engine.secrets.imbalance()) is found


# --- a coordinator that was restored ----------------------------------------------------------------------------------


def test_a_coordinator_that_was_restored_gets_no_second_list(table: Callable[..., Table]) -> None:
    """It has forgotten a site's vector, and the masks of a list with it; the holder has not."""
    run = table(quorum=3)
    run.begin()
    run.all_do("ada", "bob", "cleo")
    files = [sqlite3.connect(run.folder / name) for name in ("journal.db", "backup.db")]
    files[0].backup(files[1])
    for file in files:
        file.close()
    run.all_do("dora")
    run.all_do("ada")
    run.journal.close()
    run.journal = Journal(run.folder / "backup.db")
    run.restart()
    run.say(SiteSilent("dora", run.at))
    run.at += GRACE_S
    run.say(Tick(run.at))
    assert run.run.phase is Phase.RELEASING
    assert [update.site for update in run.run.current.contributions] == ["ada", "bob", "cleo"]
    with pytest.raises(RemoteError, match="rule H1"):
        run.answer("ada")
