"""Work on threads: nobody fills them alone, and a call that is gone does not free its share before its work is done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from coordinator.calls.work import WorkThreads

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def work() -> Iterator[WorkThreads]:
    made = WorkThreads("test", 4, each=2)
    yield made
    made.close()


def in_a_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()

    asyncio.run(whole())


def test_what_work_returns_and_raises_comes_back(work: WorkThreads) -> None:
    def breaks() -> None:
        raise KeyError("x")

    async def test() -> None:
        assert await work.do("ada", divmod, 7, 2) == (3, 1)
        with pytest.raises(KeyError):
            await work.do("ada", breaks)
        assert await work.do("ada", int, "5") == 5

    in_a_loop(test)


def test_who_has_much_work_leaves_threads_to_others(work: WorkThreads) -> None:
    goes_on, begun = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        begun.release()
        goes_on.wait()

    async def test() -> None:
        jobs = [asyncio.create_task(work.do("mallory", hold)) for _ in range(20)]
        await asyncio.to_thread(begun.acquire)
        await asyncio.to_thread(begun.acquire)
        assert await work.do("ada", int, "5") == 5
        assert not begun.acquire(blocking=False), "two of twenty have begun"
        goes_on.set()
        await asyncio.gather(*jobs)

    in_a_loop(test)


def test_work_that_was_given_up_counts_until_it_is_done(work: WorkThreads) -> None:
    """Else a site would fill all threads by calls that it cancels."""
    goes_on, begun = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        begun.release()
        goes_on.wait()

    async def test() -> None:
        held = [asyncio.create_task(work.do("mallory", hold)) for _ in range(2)]
        for _ in held:
            await asyncio.to_thread(begun.acquire)
        for job in held:
            job.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        waits = asyncio.create_task(work.do("mallory", hold))
        assert await work.do("ada", int, "5") == 5
        assert not begun.acquire(blocking=False)
        goes_on.set()
        await waits

    in_a_loop(test)


def test_what_a_call_leaves_is_done_though_nobody_waits(work: WorkThreads) -> None:
    done = threading.Event()

    async def test() -> None:
        work.later(done.set)

    in_a_loop(test)
    assert done.wait(30)
