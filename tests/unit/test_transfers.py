"""One transfer of a kind for each site."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from coordinator.calls.transfers import Transfers, of_size
from fedcervix.errors import RemoteError
from fedcervix.transport import codec
from fedcervix.transport.rpc import CHUNK_BYTES_AGAIN


class Call:
    """What is needed of a call's context."""

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self, _why: str) -> None:
        self.cancelled += 1


def test_a_newer_transfer_ends_the_older_one_of_its_site_and_kind_and_no_other() -> None:
    transfers, calls = Transfers(), [Call() for _ in range(4)]
    keys = [("ada", "push"), ("ada", "fetch"), ("bob", "push"), ("ada", "push")]
    with ExitStack() as stack:
        for (site, kind), call in zip(keys, calls, strict=True):
            stack.enter_context(transfers.newest(site, kind, call))
        assert [call.cancelled for call in calls] == [1, 0, 0, 0]


def test_in_whatever_order_they_end_the_newest_stays_known() -> None:
    transfers, (older, newer, newest) = Transfers(), [Call() for _ in range(3)]
    outlived = transfers.newest("ada", "push", older)
    outlived.__enter__()
    with transfers.newest("ada", "push", newer):
        pass
    with transfers.newest("ada", "push", newest):
        outlived.__exit__(None, None, None)
        with transfers.newest("ada", "push", Call()):
            assert newest.cancelled == 1
    assert (older.cancelled, newer.cancelled) == (1, 0)


async def taken(*sizes: int) -> list[int]:
    """Return how long the messages are that are let through."""

    async def said() -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    return [len(chunk) async for chunk in of_size(said())]


def test_only_the_last_message_of_a_model_is_short() -> None:
    """Each costs a turn of a thread: 14,000 of one byte in a second made honest calls take 0.2 s."""
    for sizes in ((), (1,), (CHUNK_BYTES_AGAIN, CHUNK_BYTES_AGAIN, 1)):
        assert asyncio.run(taken(*sizes)) == [*sizes]
    for sizes in ((1, 1), (0, CHUNK_BYTES_AGAIN), (CHUNK_BYTES_AGAIN - 1, 1)):
        with pytest.raises(RemoteError, match="only the last message"):
            asyncio.run(taken(*sizes))


def test_a_model_is_fetched_from_a_byte_that_it_has() -> None:
    codec.check_offset(10, 10)
    with pytest.raises(RemoteError, match="no byte 9,223,372,036,854,775,808"):
        codec.check_offset(2**63, 10)
