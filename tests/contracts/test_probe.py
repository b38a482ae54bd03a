"""Probes of the line over real connections: bounded in bytes, for each site by itself, and of no effect on the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordinator.calls.probes import BYTES_PER_MIN
from fedcervix.core.pace import SitePace
from fedcervix.errors import BusyError, FedcervixError, LinkError, RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import codec, rpc
from fedcervix.transport.codec import PROBE_BYTES_MAX
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.line_probe import measured
from site_agent.federation.link import GrpcLink
from tests.contracts.stage import SITES, Stage, keep, model_of, stage
from tests.contracts.transcript import Transcript
from tests.e2e.line import SlowLine

pytestmark = pytest.mark.timeout(60)

PACE = SitePace(steps=3, step_low_s=0.123456, step_high_s=0.2, model_bytes=1_234_567, memory_bytes=9_876_543, gpu=True)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path, "csfssl", Transcript(""), given=True) as made:
        yield made


@pytest.fixture
def link(coordinator: Stage) -> Iterator[GrpcLink]:
    with coordinator.link(coordinator.join(SITES[0])) as line:
        yield line


def test_a_line_is_measured_and_nothing_of_it_stays(coordinator: Stage, link: GrpcLink) -> None:
    before, files = coordinator.run, sorted(coordinator.home.blobs.rglob("*"))
    found = measured(link)
    assert found.down.low > 0
    assert found.up.low > 0
    assert coordinator.run is before
    assert sorted(coordinator.home.blobs.rglob("*")) == files


@pytest.mark.parametrize("size_bytes", [0, PROBE_BYTES_MAX + 1, 2**63], ids=["none", "one-more", "huge"])
def test_more_than_a_probe_may_have_is_refused_before_a_byte_moves(link: GrpcLink, size_bytes: int) -> None:
    with pytest.raises(RemoteError, match="probe"):
        link.probe_down(size_bytes)


def push(link: GrpcLink, announced: str, chunks: list[bytes]) -> None:
    link._begin(rpc.PROBE_UP, iter(chunks), timeout=20, metadata=((rpc.SIZE_KEY, announced),))


@pytest.mark.parametrize(
    ("announced", "chunks"),
    [
        ("65536", [bytes(65536)] * 2),
        (str(PROBE_BYTES_MAX + 1), []),
        ("-1", []),
        ("", []),
        ("9" * 40, []),
        ("1000", [b"x"] * 1000),
    ],
    ids=["more-than-announced", "too-many", "negative", "not-said", "long-number", "crumbs"],
)
def test_a_hostile_upload_is_refused(link: GrpcLink, announced: str, chunks: list[bytes]) -> None:
    with pytest.raises(FedcervixError):
        push(link, announced, chunks)
    link.probe_up(1000)  # the line still serves an honest one


def test_a_site_has_so_many_bytes_in_a_minute_and_the_others_do_not_notice(coordinator: Stage, link: GrpcLink) -> None:
    with pytest.raises(LinkError, match="too often"):  # noqa: PT012  (whichever try is the one too many)
        for _ in range(2 * BYTES_PER_MIN // PROBE_BYTES_MAX):
            link.probe_down(PROBE_BYTES_MAX)
    with coordinator.link(coordinator.join(SITES[1])) as other:
        other.probe_up(100_000)


def test_what_a_site_announces_and_does_not_send_counts(link: GrpcLink) -> None:
    with pytest.raises(LinkError, match="too often"):  # noqa: PT012
        for _ in range(2 * BYTES_PER_MIN // PROBE_BYTES_MAX):
            push(link, str(PROBE_BYTES_MAX), [b""])


def test_what_a_site_measured_reaches_the_coordinator_with_three_digits(coordinator: Stage, link: GrpcLink) -> None:
    link.report(codec.Ready(coordinator.run.run, coordinator.run.plan.digest, pace=PACE))
    found = coordinator.engine.paces.known[SITES[0]]
    assert found.step_low_s == 0.123
    assert found.memory_bytes == 9_880_000
    assert found.model_bytes == 1_234_567
    assert found.gpu


@pytest.mark.parametrize(
    "wrong",
    [{"step_low_s": float("nan")}, {"step_low_s": 2.0, "step_high_s": 1.0}, {"down_high": -1.0}, {"steps": 2**63}],
    ids=["nan", "swapped", "negative", "many"],
)
def test_a_pace_that_cannot_be_is_refused(coordinator: Stage, link: GrpcLink, wrong: dict[str, Any]) -> None:
    ready = wire.Ready(run=coordinator.run.run, plan_digest=coordinator.run.plan.digest, pace=wire.Pace(**wrong))
    with pytest.raises(RemoteError):
        link._call(rpc.REPORT, wire.FromSite(ready=ready))
    assert not coordinator.engine.paces.known


def test_a_refusal_is_one_that_another_try_may_get_over() -> None:
    assert issubclass(BusyError, LinkError)


def test_the_time_of_a_model_on_a_slow_line_is_predicted_within_a_fifth(coordinator: Stage, tmp_path: Path) -> None:
    """The line is a relay that lets 4 Mbit/s through; the model has 1.2 MB, and takes about 2.4 s."""
    slow, run, blobs = (
        SlowLine(int(coordinator.address.rpartition(":")[2]), 4e6 / 8),
        coordinator.run,
        BlobStore(tmp_path),
    )
    links = [GrpcLink(f"localhost:{slow.port}", **coordinator.join(site)) for site in SITES]
    with ExitStack() as held:
        held.callback(slow.close)
        for one in links:
            held.callback(one.close)
            one.report(codec.Ready(run.run, run.plan.digest))
        line = measured(links[0])
        size_bytes = BlobStore(coordinator.home.blobs).size_bytes(run.model)
        trained = keep(blobs, model_of(1.0, 5))
        for predicted, moves in (
            (SitePace(down_low=line.down.low, down_high=line.down.high).down_s, partial(links[0].fetch, run.model)),
            (SitePace(up_low=line.up.low, up_high=line.up.high).up_s, partial(links[0].push, trained)),
        ):
            started_s = time.monotonic()
            moves(blobs, lambda _done, _of: None)
            assert time.monotonic() - started_s == pytest.approx(predicted(size_bytes).middle, rel=0.2)
