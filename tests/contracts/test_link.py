"""What the agent may count on of a line to the coordinator, held against every `Link` there is.

The agent's own tests stand on the fake one, so it has to behave as the real one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedcervix.core.events import Answer
from fedcervix.core.plan import Plan
from fedcervix.disk.files import digest_file
from fedcervix.errors import FedcervixError, RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import codec
from site_agent.federation.link import SENDER, Link
from site_agent.worker.worker import CancelledError
from tests.contracts.stage import SITES, keep, model_of, stage
from tests.contracts.transcript import Transcript
from tests.unit.fake_link import RUN, Cut, FakeLink, plan

pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True, slots=True)
class Line:
    """A line on which a site is asked to train from a model, and what the test may do at its other end."""

    link: Link
    run: str
    plan: Plan
    base: str
    """digest of that model"""
    spoil: Callable[[], None]
    """let the model's bytes there be others than its digest says"""
    arrived: Callable[[str], bool]
    """say whether a model was pushed"""


@pytest.fixture(params=["grpc", "fake"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    yield from {"grpc": real, "fake": fake}[request.param](tmp_path)


def real(folder: Path) -> Iterator[Line]:
    with stage(folder, "csfssl", Transcript(""), given=True) as coordinator:
        pems = {site: coordinator.join(site) for site in SITES}
        run, there = coordinator.run, BlobStore(coordinator.home.blobs)
        for site in SITES:
            with coordinator.link(pems[site]) as link:
                link.report(codec.Ready(run.run, run.plan.digest))
        with coordinator.link(pems[SITES[0]]) as link:
            spoil = spoiler(there.path(run.model))
            yield Line(link, run.run, run.plan, run.model, spoil, there.has)


def fake(folder: Path) -> Iterator[Line]:
    link, there = FakeLink(), BlobStore(folder / "there")
    base = keep(there, model_of(0.0, 0))
    link.models[base] = there.path(base).read_bytes()
    link.say(codec.Welcome("cervix", RUN, plan()), Cut())

    def spoil() -> None:
        link.models[base] = spoilt(link.models[base])

    yield Line(link, RUN, plan(), base, spoil, lambda digest: ("push", digest) in link.told)


def spoilt(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def spoiler(model: Path) -> Callable[[], None]:
    return lambda: model.write_bytes(spoilt(model.read_bytes())) and None  # type: ignore[func-returns-value]


class Counts:
    """What a transfer says of itself."""

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.seen: list[int] = []
        self._stop_after = stop_after

    def __call__(self, done: int, _of: int) -> None:
        if len(self.seen) == self._stop_after:
            raise CancelledError
        self.seen.append(done)


def fetch(line: Line, blobs: BlobStore, counts: Counts) -> None:
    line.link.fetch(line.base, blobs, counts)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "here")


def test_the_first_word_is_the_welcome(line: Line) -> None:
    welcome = next(iter(line.link.attach()))
    assert isinstance(welcome, codec.Welcome)
    assert (welcome.federation, welcome.run, welcome.plan) == ("cervix", line.run, line.plan)


def test_what_is_told_is_answered(line: Line) -> None:
    answer, reason = line.link.report(codec.Ready(line.run, line.plan.digest))
    assert answer in (Answer.ACCEPTED, Answer.DUPLICATE)
    assert reason == ""


def test_a_model_that_was_fetched_is_here_and_whole(line: Line, blobs: BlobStore) -> None:
    counts = Counts()
    fetch(line, blobs, counts)
    assert digest_file(blobs.path(line.base)) == line.base
    assert counts.seen == sorted(counts.seen)
    assert counts.seen[-1] == blobs.size_bytes(line.base)


def test_a_fetch_that_was_given_up_goes_on_where_it_ended(line: Line, blobs: BlobStore) -> None:
    first, second = Counts(stop_after=1), Counts()
    with pytest.raises(CancelledError):
        fetch(line, blobs, first)
    assert not blobs.has(line.base)
    have = blobs.resume_at(line.base, SENDER)
    fetch(line, blobs, second)
    assert digest_file(blobs.path(line.base)) == line.base
    assert second.seen[0] > have > 0, "bytes that were here were fetched again"


def test_a_model_that_arrives_wrong_is_not_kept(line: Line, blobs: BlobStore) -> None:
    line.spoil()
    with pytest.raises(RemoteError):
        fetch(line, blobs, Counts())
    assert not blobs.has(line.base)


def test_a_model_that_is_not_for_this_site_is_an_error_of_ours(line: Line, blobs: BlobStore) -> None:
    with pytest.raises(FedcervixError):
        line.link.fetch("0" * 64, blobs, Counts())


def test_where_nothing_is_compressed_a_model_has_no_packed_form(line: Line) -> None:
    assert line.link.packed(line.base) is None


def test_a_model_is_pushed_and_pushed_again(line: Line, blobs: BlobStore) -> None:
    digest = keep(blobs, model_of(1.0, 5))
    for _ in range(2):
        line.link.push(digest, blobs, Counts())
        assert line.arrived(digest)


def test_a_model_that_may_not_leave_is_stopped_before_its_first_byte(line: Line, blobs: BlobStore) -> None:
    digest, counts = keep(blobs, model_of(1.0, 5)), Counts()
    with pytest.raises(CancelledError):
        line.link.push(digest, blobs, Counts(stop_after=0))
    assert not line.arrived(digest)
    line.link.push(digest, blobs, counts)
    line.link.push(digest, blobs, again := Counts())
    assert counts.seen == [0, *counts.seen[1:-1], blobs.size_bytes(digest)]
    assert again.seen == []
