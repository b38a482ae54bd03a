"""What browsers are told: differences, streams that share them, slow readers, and a quick end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcervix.page.board import Board, difference
from fedcervix.page.fanout import BEAT, BEHIND_MAX, Fanout, message
from tests.e2e.page_streams import merged

LEAVES = st.one_of(
    st.booleans(), st.integers(-5, 5), st.text("ab", max_size=2), st.lists(st.integers(0, 2), max_size=2)
)
TABLES = st.recursive(
    st.dictionaries(st.text("abc", max_size=1), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.text("abc", max_size=1), st.one_of(LEAVES, inner), max_size=3),
    max_leaves=8,
)


@given(TABLES, TABLES)
def test_a_difference_makes_the_one_of_the_other(before: dict[str, object], after: dict[str, object]) -> None:
    assert merged(before, difference(before, after)) == after
    assert difference(after, after) == {}


def test_of_a_table_only_what_is_new_is_sent() -> None:
    before = {"sites": {"nhs": {"done": 1, "word": "training"}, "alts": {"done": 1}}}
    after = {"sites": {"nhs": {"done": 2, "word": "training"}, "alts": {"done": 1}}}
    assert difference(before, after) == {"sites": {"nhs": {"done": 2}}}


def told(event: bytes) -> tuple[str, object]:
    kind, data = event.decode().removesuffix("\n\n").split("\n")
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def next_of(stream: AsyncIterator[bytes]) -> tuple[str, object]:
    return told(await asyncio.wait_for(anext(stream), 5))


def test_a_browser_gets_the_whole_then_what_changes_and_all_get_the_same_bytes() -> None:
    async def work() -> None:
        board = Board()
        board.put(run={"round": 1})
        fanout = Fanout(board, calm_s=0.001)
        telling = asyncio.create_task(fanout.run())
        await asyncio.sleep(0)
        streams = [fanout.stream() for _ in range(2)]
        assert [await next_of(one) for one in streams] == [("whole", {"run": {"round": 1}})] * 2
        await asyncio.to_thread(board.put, run={"round": 2}, sites={})
        first, second = [await asyncio.wait_for(anext(one), 5) for one in streams]
        assert first is second
        assert told(first) == ("patch", {"run": {"round": 2}, "sites": {}})
        late = fanout.stream()
        assert await next_of(late) == ("whole", {"run": {"round": 2}, "sites": {}})
        assert fanout.streams == 3
        fanout.end()
        for one in (*streams, late):
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(one), 5)
        await asyncio.wait_for(telling, 5)
        assert fanout.streams == 0

    asyncio.run(work())


def test_a_quiet_stream_beats() -> None:
    async def work() -> None:
        fanout = Fanout(Board(), beat_s=0.01)
        stream = fanout.stream()
        assert await next_of(stream) == ("whole", {})
        assert await asyncio.wait_for(anext(stream), 5) == BEAT

    asyncio.run(work())


def test_a_browser_that_does_not_read_costs_a_bound_and_then_gets_the_whole() -> None:
    async def work() -> None:
        board = Board()
        fanout = Fanout(board, calm_s=0.0)
        telling = asyncio.create_task(fanout.run())
        stream = fanout.stream()
        assert (await next_of(stream))[0] == "whole"
        seen = fanout._streams.copy().pop()  # how much is held for it
        for number in range(3 * BEHIND_MAX):
            board.put(run={"round": number})
            await asyncio.sleep(0.001)
            assert len(seen.waiting) <= BEHIND_MAX
        kinds = [await next_of(stream) for _ in range(len(seen.waiting))]
        assert kinds[0][0] == "whole"
        value: object = {}
        for kind, change in kinds:
            value = change if kind == "whole" else merged(value, change)
        assert value == {"run": {"round": 3 * BEHIND_MAX - 1}}
        fanout.end()
        await telling

    asyncio.run(work())


def test_a_text_of_a_site_cannot_end_an_event() -> None:
    event = message("patch", {"a": "x\n\ndata: {}\r\n\u2028", "b": "\ud800"})
    assert event.count(b"\n") == 3
    assert told(event)[1] == {"a": "x\n\ndata: {}\r\n\u2028", "b": "?"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        message("patch", {"a": float("nan")})
