"""An agent's part in a run with secure sums: what it believes, and what it does not. Real sums; no line, no worker."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedcervix.core.events import Task, TaskKind
from fedcervix.errors import LinkError, ModelError, RemoteError
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.trust.fixed_point import Share
from fedcervix.trust.ledger_run import KnownRound
from fedcervix.trust.sum_lists import SumList
from fedcervix.trust.sum_memory import OPEN
from fedcervix.trust.sum_papers import (
    AttemptShown,
    Boxes,
    Openings,
    SumShown,
    closed_with,
    line_of,
    released_with,
)
from site_agent.federation.secure_run import SecureParts, SecureRun
from site_agent.store.run_secrets import SecretsFile
from site_agent.store.run_store import RunStore
from site_agent.store.sum_journal import SumJournal
from site_agent.store.task_results import TrainResult
from tests.unit.sum_sites import HEADS, IMAGES, KEYS, NAMES, PINS, RUN, Federation

TRAIN, RELEASE, SCORE = TaskKind.TRAIN, TaskKind.RELEASE, TaskKind.SCORE


@dataclass
class KnownLedger:
    """Stands in for `SiteLedger`: what a site has verified."""

    rounds: dict[int, KnownRound] = field(default_factory=dict)
    trained_from: set[str] = field(default_factory=set)

    def known_round(self, number: int) -> KnownRound | None:
        return self.rounds.get(number)

    def began_with(self, model: str, before: int) -> bool:
        return any(known.base == model for number, known in self.rounds.items() if number < before)

    def was_trained_from(self, model: str) -> bool:
        return model in self.trained_from


@dataclass
class Runs:
    """The runs of four sites, and what an honest coordinator shows them."""

    federation: Federation
    ledger: KnownLedger = field(default_factory=KnownLedger)
    runs: dict[str, SecureRun] = field(default_factory=dict)
    made_first: int = 0

    def __post_init__(self) -> None:
        self.base = self.federation.base
        self.ledger.rounds[1] = KnownRound(1, self.base, HEADS[0])
        for name in NAMES:
            self.begin(name)

    def begin(self, name: str) -> SecureRun:
        """Let a new process begin on a site's home."""
        home = self.federation.home(name)
        home.key_file("").mkdir(exist_ok=True)
        pem = KEYS[name].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        home.key_file("site.key").write_bytes(pem)
        home.config_file.touch()
        store = RunStore(home.run_folder(RUN))
        store.open(self.federation.plan)
        store.keep_keys(PINS)
        parts = SecureParts(home, name, self.federation.blobs(name), self.ledger, SumJournal(home))  # type: ignore[arg-type]
        self.runs[name] = made = SecureRun(parts, "f", self.federation.plan, store)
        return made

    def make_first(self) -> str:
        self.made_first += 1
        return self.base

    def open(self) -> None:
        """Let all sites open the run, and show each what the others have given."""
        openings = Openings(tuple(self.runs[name].opening(IMAGES[name]) for name in NAMES))
        boxes = {}
        for name, run in self.runs.items():
            run.take(openings)
            boxes[name] = dict(run.box(Task(RUN, TaskKind.BOX, 0, "")).boxes)
        for name, run in self.runs.items():
            others = {other: bytes.fromhex(boxes[other][name]) for other in NAMES if other != name}
            run.take(Boxes(others))

    def trained(self, name: str) -> TrainResult:
        made = self.federation.trained(name, self.ledger.rounds[1])
        return TrainResult(digest=made.model, images=IMAGES[name], steps=10, loss=1.23456, seconds=2.0)

    def bring(self, name: str, task: Task, fetch: Callable[[str], None] | None = None) -> str:
        def nowhere(digest: str) -> None:
            raise AssertionError(digest)

        return self.runs[name].bring(task, fetch or nowhere, self.make_first)

    def shown(self) -> SumShown:
        """Let all sites upload and the holders release; return what the coordinator then shows."""
        updates = [self.runs[name].masked(self.task(TRAIN), self.trained(name)) for name in NAMES]
        lines = tuple(map(line_of, updates))
        attempt, releases = AttemptShown(1, lines=lines), []
        for holder in ("a", "b"):
            self.runs[holder].take(attempt)
            releases.append(released_with(self.runs[holder].release(self.task(RELEASE))))
        total = self.federation.opened(SumList(releases[0].listed, lines), releases)
        digest = hashlib.sha256(total.read_bytes()).hexdigest()
        self.total = total
        of = Summed(Share(sum(IMAGES.values()), sum(IMAGES.values())), len(NAMES))
        base, average = (self.federation.folder / name for name in ("base", "average"))
        model = derive(total, base, average, of, "mean", round_=1).digest
        return SumShown(attempt, tuple(releases), self.base, digest, model)

    def task(self, kind: TaskKind, number: int = 1) -> Task:
        return Task(RUN, kind, number, self.ledger.rounds[number].base if number in self.ledger.rounds else self.base)

    def fetching(self, name: str) -> Callable[[str], None]:
        def fetch(digest: str) -> None:
            shutil.copy(self.total, self.federation.blobs(name).path(digest))

        return fetch


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    made = Runs(Federation(tmp_path))
    made.open()
    return made


def test_a_round_ends_with_a_model_that_each_site_has_derived(runs: Runs) -> None:
    assert "that this site has made" in runs.bring("a", runs.task(TRAIN))
    assert runs.bring("a", runs.task(TRAIN)) == "", "it is made once"
    shown = runs.shown()
    for name in "abc":
        runs.runs[name].take(shown)
        score = replace(runs.task(SCORE), base=shown.model)
        said = runs.bring(name, score, runs.fetching(name))
        assert said == "round 1: this site has checked the sum of a, b, c, d, and made its model"
        assert runs.bring(name, score) == ""
    runs.ledger.rounds[2] = KnownRound(2, shown.model, HEADS[1])
    assert runs.bring("a", runs.task(TRAIN, 2)) == ""
    again = runs.begin("a")
    assert again.bring(runs.task(TRAIN, 2), lambda _: None, runs.make_first) == "", "a new process need not ask"


def test_an_update_leaves_with_three_digits_and_the_images_of_the_opening(runs: Runs) -> None:
    made = replace(runs.trained("c"), images=IMAGES["c"] + 1)
    update = runs.runs["c"].masked(runs.task(TRAIN), made)
    assert (update.loss, update.images) == (1.23, IMAGES["c"])
    assert update.masked is not None
    assert update.masked.norm == float(f"{update.masked.norm:.2e}")
    assert update.digest != made.digest


def test_what_was_trained_is_not_trained_again(runs: Runs) -> None:
    task, made = runs.task(TRAIN), runs.trained("c")
    assert runs.runs["c"].made(task) is None
    update = runs.runs["c"].masked(task, made)
    again = runs.begin("c")
    assert again.made(task) == made
    assert again.made(replace(task, attempt=2)) is None
    assert replace(again.masked(task, made), at=update.at) == update
    assert {made.digest, runs.base} <= again.kept(task)


def test_a_round_begins_with_the_model_of_the_ledger_and_no_other(runs: Runs) -> None:
    with pytest.raises(RemoteError, match="the ledger leads to model") as caught:
        runs.bring("a", replace(runs.task(TRAIN), base="5" * 64))
    assert "telephone the other sites" in caught.value.next_step
    assert not runs.made_first


def test_a_first_model_that_this_site_does_not_make_is_one_that_people_know_or_none(runs: Runs) -> None:
    given = "5" * 64
    runs.ledger.rounds[1] = KnownRound(1, given, HEADS[0])
    with pytest.raises(ModelError, match="this site makes") as caught:
        runs.bring("a", runs.task(TRAIN))
    assert f'first_model = "{given}"' in caught.value.next_step
    home = runs.federation.home("a")
    home.config_file.write_text(f'[policy]\nfirst_model = "{given}"\n')
    fetched: list[str] = []
    runs.bring("a", runs.task(TRAIN), fetched.append)
    assert fetched == [given]
    assert given not in SumJournal(home).memory.vouched, "it may have been in a sum before"


def test_the_coordinator_alone_cannot_say_what_a_sum_has_given(runs: Runs) -> None:
    runs.ledger.rounds[2] = KnownRound(2, "5" * 64, HEADS[1])
    with pytest.raises(RemoteError, match="no sum was shown that gives its model"):
        runs.bring("a", runs.task(TRAIN, 2))
    shown = replace(runs.shown(), model="5" * 64)
    runs.runs["a"].take(shown)
    with pytest.raises(RemoteError, match="gives model"):
        runs.bring("a", runs.task(TRAIN, 2), runs.fetching("a"))


def test_a_site_adopts_a_model_that_it_has_derived_or_from_which_others_trained_and_no_other(runs: Runs) -> None:
    adopt, fetched = replace(runs.task(TaskKind.ADOPT), base="5" * 64), list[str]()
    runs.ledger.rounds[2] = KnownRound(2, adopt.base, HEADS[1])
    with pytest.raises(RemoteError, match="no sum was shown that gives its model"):
        runs.bring("a", adopt, fetched.append)
    assert not fetched
    runs.ledger.trained_from = {adopt.base}
    runs.bring("a", adopt, fetched.append)
    assert fetched == [adopt.base]
    runs.runs["b"].take(shown := runs.shown())
    for _ in range(2):
        runs.bring("b", replace(adopt, base=shown.model), runs.fetching("b"))


def test_after_a_round_without_a_result_the_base_is_used_again(runs: Runs) -> None:
    runs.ledger.rounds[2] = KnownRound(2, runs.base, HEADS[1])
    assert runs.bring("a", runs.task(TRAIN, 2)) == ""


def test_nothing_is_signed_before_the_coordinator_has_shown_it(runs: Runs) -> None:
    runs.runs["a"].masked(runs.task(TRAIN), runs.trained("a"))
    with pytest.raises(LinkError, match="has not shown the AttemptShown"):
        runs.runs["a"].release(runs.task(RELEASE))
    with pytest.raises(LinkError, match="has not shown the AttemptShown"):
        runs.runs["c"].masked(replace(runs.task(TRAIN), attempt=2), runs.trained("c"))


def test_a_holder_closes_and_the_round_is_done_again(runs: Runs) -> None:
    runs.runs["c"].masked(runs.task(TRAIN), runs.trained("c"))
    holder = runs.runs["b"]
    holder.take(AttemptShown(1, remaining=("b",)))
    close = holder.close(runs.task(TaskKind.CLOSE))
    assert close.remaining == ("b",)
    again = AttemptShown(1, earlier=((closed_with(close),),))
    runs.runs["c"].take(again)
    made = runs.federation.trained("c", runs.ledger.rounds[1], attempt=2)
    result = TrainResult(digest=made.model, images=1, steps=10, loss=1.0, seconds=1.0)
    assert runs.runs["c"].masked(replace(runs.task(TRAIN), attempt=2), result).masked is not None


def test_the_end_of_a_run_is_remembered_and_its_secrets_go(runs: Runs) -> None:
    shown = runs.shown()
    place, home = (RUN, 1), runs.federation.home("c")
    assert SumJournal(home).memory.uses[runs.base][place] == OPEN
    runs.runs["c"].take(shown)
    runs.runs["c"].end()
    assert SumJournal(home).memory.uses[runs.base][place] != OPEN
    assert SecretsFile(home, RUN).read() is None


def test_the_secrets_go_also_where_the_coordinator_shows_a_list_that_cannot_be_one(runs: Runs) -> None:
    shown = runs.shown()
    turned = replace(shown, attempt=replace(shown.attempt, lines=shown.attempt.lines[::-1]))
    runs.runs["c"].take(turned)
    with pytest.raises(RemoteError, match="no such list of round 1"):
        runs.bring("c", replace(runs.task(SCORE), base=shown.model), runs.fetching("c"))
    runs.runs["c"].end()
    assert SecretsFile(runs.federation.home("c"), RUN).read() is None


def test_boxes_of_all_other_sites_are_needed(runs: Runs) -> None:
    file = SecretsFile(runs.federation.home("c"), RUN)
    drawn = file.read()
    assert drawn is not None
    file.write(replace(drawn, rhos={}))
    run = runs.begin("c")
    run.take(Boxes({"a": b"1"}))
    with pytest.raises(RemoteError, match="not those of the other sites: b, d"):
        run.masked(runs.task(TRAIN), runs.trained("c"))


def test_a_base_whose_attempts_were_all_closed_is_free_at_the_end(runs: Runs) -> None:
    for name in "abc":
        runs.runs[name].masked(runs.task(TRAIN), runs.trained(name))
    closing = []
    for holder in "ab":
        runs.runs[holder].take(AttemptShown(1, remaining=("a", "b")))
        closing.append(closed_with(runs.runs[holder].close(runs.task(TaskKind.CLOSE))))
    runs.runs["c"].take(AttemptShown(1, earlier=(tuple(closing),)))
    runs.runs["c"].end()
    assert not SumJournal(runs.federation.home("c")).memory.uses[runs.base]


def test_what_nobody_shows_at_the_end_keeps_its_base_from_other_runs(runs: Runs) -> None:
    runs.runs["c"].masked(runs.task(TRAIN), runs.trained("c"))
    runs.runs["c"].end()
    assert SumJournal(runs.federation.home("c")).memory.uses[runs.base][RUN, 1] == OPEN
