"""How fast a line is, by tries of growing length; the clock and the line are fakes that we own."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import pytest

from fedcervix.core.pace import SitePace
from fedcervix.errors import LinkError, NoSuchMethodError, RemoteError
from fedcervix.transport.codec import PROBE_BYTES_MAX, probe_bytes
from site_agent.federation.line_probe import FIRST_BYTES, LinePace, measured

pytestmark = pytest.mark.timeout(20)


@dataclass
class Line:
    """A line that takes so long to begin, and then so many bytes a second."""

    down: float
    up: float
    begins_s: float = 0.0
    now_s: float = 0.0
    tried: list[int] = field(default_factory=list)

    def probe_down(self, size_bytes: int) -> None:
        self._pass(size_bytes, self.down)

    def probe_up(self, size_bytes: int) -> None:
        self._pass(size_bytes, self.up)

    def _pass(self, size_bytes: int, rate: float) -> None:
        self.tried.append(size_bytes)
        self.now_s += self.begins_s + size_bytes / rate


@pytest.mark.parametrize("begins_s", [0.0, 0.2], ids=["near", "far"])
@pytest.mark.parametrize("rate", [2e4, 1.25e6, 1e9], ids=["modem", "ten-megabit", "fast"])
def test_the_range_holds_the_rate_of_the_line(rate: float, begins_s: float) -> None:
    line = Line(rate, rate / 2, begins_s)
    found = measured(line, lambda: line.now_s)
    assert found.down.low <= rate <= found.down.high * 1.001
    assert found.up.low <= rate / 2 <= found.up.high * 1.001
    assert not found.why_not


def test_a_slow_line_is_tried_once_and_a_fast_one_with_no_more_than_a_probe_may_have() -> None:
    slow, fast = Line(1e4, 1e4), Line(1e12, 1e12)
    measured(slow, lambda: slow.now_s)
    measured(fast, lambda: fast.now_s)
    assert slow.tried == [FIRST_BYTES] * 2
    assert max(fast.tried) == PROBE_BYTES_MAX
    assert sum(fast.tried) <= 64 * 2**20  # of a minute, see `coordinator.calls.probes`


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoSuchMethodError("no such method"), "an earlier one"),
        (LinkError("the line was cut"), "the line was cut"),
        (RemoteError("fewer bytes came"), "fewer bytes came"),
    ],
    ids=["earlier-version", "cut", "wrong"],
)
def test_a_line_that_cannot_be_measured_hinders_nothing(error: Exception, words: str) -> None:
    class Broken(Line):
        def probe_down(self, size_bytes: int) -> None:
            del size_bytes
            raise error

    found = measured(Broken(1, 1))
    assert words in str(found)
    assert found.of(SitePace()) == SitePace()


def test_a_pace_takes_the_line_in() -> None:
    line = Line(1e6, 1e5)
    found = measured(line, lambda: line.now_s).of(SitePace(steps=3))
    assert found.steps == 3
    assert 0 < found.down_low < found.down_high
    assert found.up_high < found.down_low
    assert "Mbit/s" in str(LinePace(measured(line, lambda: line.now_s).down))


@pytest.mark.parametrize("stalled", [0, 2], ids=["first", "last-but-one"])
def test_one_try_that_stalls_does_not_make_the_line_look_many_times_as_fast(stalled: int) -> None:
    """Before: what the last try took beyond one that had stalled was nearly nothing."""
    line = Line(4e6, 4e6)
    tries = iter(range(100))

    def clock() -> float:
        look = next(tries)
        if look == 2 * stalled + 1:
            line.now_s += 3.8 - line.tried[-1] / 4e6 if stalled else 1.3
        return line.now_s

    assert measured(line, clock).down.high <= 4e6 * 1.2


def test_what_a_probe_sends_cannot_be_made_shorter_on_the_way() -> None:
    sent = probe_bytes(2**19)
    assert len(sent) == 2**19
    assert len(zlib.compress(sent, 9)) > 0.99 * len(sent)
