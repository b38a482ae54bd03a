"""Work that needs the engine's lock, the disk or much of the processor: on a few threads, never on the event loop.

Rules
1. No thread of these ever waits for a peer: what it needs of one is there before it begins.
2. Whoever sends much has at most `each` pieces of work begun at once; its next ones wait, and take nobody's thread.
3. A call that ends takes back the work that has not begun; what has begun goes on, and counts until it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from fedcervix.runtime.log import logger

P = ParamSpec("P")
R = TypeVar("R")


class WorkThreads:
    """A pool of threads, whose turns go by who asks. All but what is run belongs to one event loop."""

    def __init__(self, name: str, threads: int, *, each: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._each = each
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def do(self, who: str, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `work` does, on a thread. Raises what it raises."""
        turn = self._turns.setdefault(who, asyncio.Semaphore(self._each))
        loop = asyncio.get_running_loop()
        await turn.acquire()
        answer: asyncio.Future[R] = loop.create_future()

        def ended(job: Future[R]) -> None:
            turn.release()
            _hand_over(job, answer)

        def tell(job: Future[R]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(ended, job)  # once: to wake the loop costs as much as a small piece of work

        try:
            job = self._pool.submit(contextvars.copy_context().run, partial(work, *args, **kwargs))
        except BaseException:
            turn.release()
            raise
        job.add_done_callback(tell)
        try:
            return await answer
        finally:
            job.cancel()  # where the call has ended; of what has begun this does nothing

    def later(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have something done for which nobody waits: what a call that has ended leaves to be put in order."""
        self._pool.submit(work, *args, **kwargs).add_done_callback(_said)

    def close(self) -> None:
        """Wait for what has begun; take nothing more."""
        self._pool.shutdown()


def _hand_over(job: Future[R], answer: asyncio.Future[R]) -> None:
    if answer.done():
        return  # nobody waits any more
    if job.cancelled():
        answer.cancel()
    elif (error := job.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(job.result())


def _said(job: Future[object]) -> None:
    if not job.cancelled() and (error := job.exception()) is not None:
        logger().error("cleanup after a call failed", what=repr(error))
