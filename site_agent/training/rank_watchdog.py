"""How the processes of a team notice at once that one of them is gone, and hear from it what broke.

Each follower holds a connection to the leader on which nothing is said until something breaks. When a process dies,
however it dies, the system closes its connections; whoever listens at the other end is told within milliseconds, also
while its main thread waits in a collective or for the GPU. So no death leaves the others waiting.

Nor does a process outlive those who started it: Linux kills it with its parent, the launcher, and it ends when its
standard input, which it has from the agent by way of the launcher, is closed.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from fedcervix.json_text import parsed
from site_agent.training.ddp import IDLE, Team

OnEnd = Callable[[int, dict[str, Any] | None], None]
"""(rank that ended, its account of what broke if it gave one)"""
ACCOUNT_BYTES_MAX = 1 << 20
PR_SET_PDEATHSIG = 1
"""of Linux's prctl(2)"""


class Lifeline:
    """This process's connections to the others: all of a leader's, a follower's one. All ranks make theirs together."""

    def __init__(self, team: Team, on_end: OnEnd) -> None:
        """`on_end` is called on a thread of its own for every process at the other end that ends."""
        group = dist.new_group(backend="gloo", timeout=IDLE)
        assert isinstance(group, dist.ProcessGroup)
        self._group, self._on_end = group, on_end
        for rank in range(1, team.size) if team.leads else [0]:
            threading.Thread(target=self._listen, args=(rank,), daemon=True, name=f"lifeline {rank}").start()

    def report(self, account: dict[str, Any]) -> None:
        """Send the leader an account of what broke here."""
        content = json.dumps(account, allow_nan=False).encode()[:ACCOUNT_BYTES_MAX]
        dist.send(torch.tensor([len(content)]), dst=0, group=self._group)
        dist.send(torch.frombuffer(bytearray(content), dtype=torch.uint8), dst=0, group=self._group)

    def _listen(self, rank: int) -> None:
        try:
            account = self._account(rank)
        except (RuntimeError, ValueError):  # its connection is closed; or what came is no account
            account = None
        self._on_end(rank, account)

    def _account(self, rank: int) -> dict[str, Any]:
        length = torch.zeros(1, dtype=torch.int64)
        dist.recv(length, src=rank, group=self._group)
        if not 0 < length.item() <= ACCOUNT_BYTES_MAX:
            raise ValueError(f"an account has 1 to {ACCOUNT_BYTES_MAX} bytes; found {length.item()}")
        content = torch.empty(int(length.item()), dtype=torch.uint8)
        dist.recv(content, src=rank, group=self._group)
        account: dict[str, Any] = parsed(content.numpy().tobytes())
        return account


def end_with_parent() -> None:
    """Have this process killed when the one that started it dies (on Linux; elsewhere its input's end must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_input() -> None:
    """End this process, which reads nothing, when whoever would write to its standard input is gone."""

    def wait() -> None:
        poll = select.poll()
        poll.register(sys.stdin.fileno(), 0)  # nothing but the end: the leader reads the rest
        if any(event & select.POLLHUP for _, event in poll.poll()):
            os._exit(0)

    threading.Thread(target=wait, daemon=True, name="input").start()
