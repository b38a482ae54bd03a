"""How the processes of a team notice at once that one of them is gone, and hear from it what broke.

Each follower holds a connection to the leader on which nothing is said until something breaks. When a process dies,
however it dies, the system closes its connections; whoever listens at the other end is told within milliseconds, also
while its main thread waits in a collective or for the GPU. So no death leaves the others waiting.

Nor does a process outlive those who started it: Linux kills it with its parent, the launcher, and it ends when its
standard input, which it has from the agent by way of the launcher, is closed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import sys
import threading
from collections.abc import Callable

import torch
import torch.distributed as dist

from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json
from fedcervix.runtime.worker_protocol import Failure
from site_agent.training.ddp import IDLE, Team

OnEnd = Callable[[int, Failure | None], None]
"""(rank that ended, what broke in it if it said so)"""
FAILURE_BYTES_MAX = 1 << 20


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
        content = json.dumps(dataclasses.asdict(failure), allow_nan=False).encode()[:FAILURE_BYTES_MAX]
        dist.send(torch.tensor([len(content)]), dst=0, group=self._group)
        dist.send(torch.frombuffer(bytearray(content), dtype=torch.uint8), dst=0, group=self._group)

    def _listen(self, rank: int) -> None:
        try:
            failure = self._failure(rank)
        except (RuntimeError, ValueError):  # its connection is closed; or what came is no account of a failure
            failure = None
        self._on_end(rank, failure)

    def _failure(self, rank: int) -> Failure:
        length = torch.zeros(1, dtype=torch.int64)
        dist.recv(length, src=rank, group=self._group)
        if not 0 < length.item() <= FAILURE_BYTES_MAX:
            raise ValueError(f"what broke takes 1 to {FAILURE_BYTES_MAX} bytes; found {length.item()}")
        content = torch.empty(int(length.item()), dtype=torch.uint8)
        dist.recv(content, src=rank, group=self._group)
        return from_json(Failure, parsed(content.numpy().tobytes()))


def end_with_input() -> None:
    """End this process, which reads nothing, when whoever would write to its standard input is gone."""

    def wait() -> None:
        poll = select.poll()
        poll.register(sys.stdin.fileno(), 0)  # nothing but the end: the leader reads the rest
        if any(event & select.POLLHUP for _, event in poll.poll()):
            os._exit(0)

    threading.Thread(target=wait, daemon=True, name="input").start()
