"""How the processes of a team notice at once that one of them is gone, and hear from it what broke.

Each follower holds a connection to the leader on which nothing is said until something breaks. When a process dies,
however it dies, the system closes its connections; whoever listens at the other end is told within milliseconds, also
while its main thread waits in a collective or for the GPU. So no death leaves the others waiting.

Nor does a process outlive those who started it: Linux kills it with its parent, the launcher, and it ends when its
standard input, which it has from the agent by way of the launcher, is closed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import select
import sys
import threading
from collections.abc import Callable

import torch.distributed as dist

from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json
from fedcervix.runtime.worker_protocol import Failure
from site_agent.training.ddp import IDLE, Team, receive_text, send_text

OnEnd = Callable[[int, Failure | None], None]
"""(rank that ended, what broke in it if it said so)"""
TRACE_CHARACTERS_MAX = 50_000
"""of a failure's trace; the whole trace is on the screen of the process that broke"""


class Lifeline:
    """This process's connections to the others: all of a leader's, a follower's one. All ranks make theirs together."""

    def __init__(self, team: Team, on_end: OnEnd) -> None:
        """`on_end` is called on a thread of its own for every process at the other end that ends."""
        group = dist.new_group(backend="gloo", timeout=IDLE)
        assert isinstance(group, dist.ProcessGroup)
        self._group, self._on_end = group, on_end
        for rank in range(1, team.size) if team.leads else [0]:
            threading.Thread(target=self._listen, args=(rank,), daemon=True, name=f"lifeline {rank}").start()

    def report(self, failure: Failure) -> None:
        """Tell the leader what broke here."""
        send_text(to_text(failure), functools.partial(dist.send, dst=0, group=self._group))

    def _listen(self, rank: int) -> None:
        failure = None
        with contextlib.suppress(RuntimeError, ValueError):  # its connection is closed; or that was no failure
            text = receive_text(functools.partial(dist.recv, src=rank, group=self._group))
            failure = from_json(Failure, parsed(text))
        self._on_end(rank, failure)


def to_text(failure: Failure) -> str:
    """Return what is told of a failure: of a very long trace the end, where the error is named."""
    if len(failure.trace) > TRACE_CHARACTERS_MAX:
        failure = dataclasses.replace(failure, trace=f"[...]\n{failure.trace[-TRACE_CHARACTERS_MAX:]}")
    return json.dumps(dataclasses.asdict(failure), allow_nan=False)


def end_with_input() -> None:
    """End this process, which reads nothing, when whoever would write to its standard input is gone."""

    def wait() -> None:
        poll = select.poll()
        poll.register(sys.stdin.fileno(), 0)  # nothing but the end: the leader reads the rest
        if any(event & select.POLLHUP for _, event in poll.poll()):
            os._exit(0)

    threading.Thread(target=wait, daemon=True, name="input").start()
