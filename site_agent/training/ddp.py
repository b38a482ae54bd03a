"""One site's several training processes (a GPU each, on one host or several) that train as one would.

Every process draws the same joint mini-batch and computes the representations of its own share of the images. The
representations are gathered, so that every process sees all negatives and computes the whole joint loss; then the
gradients are averaged. Losses, gradients and weights are those of one process on the joint batch, but for rounding.

Rules
1. The joint batch comes from `batches`, the same at every rank: what holds of a batch (no woman meets herself) holds of
   the joint one. Image j of the joint batch belongs to rank j mod size.
2. Batch norm sees the joint batch too (`sync_batch_norm`).
3. Rank 0 leads: it alone talks to the agent, writes files, scores models. The others do what it broadcasts, and end
   with it (`rank_watchdog`).
4. Requests travel as text: torch's `broadcast_object_list` would pickle them.
5. A step waits at most STEP_S for the others. Between tasks a follower waits as long as the leader lives.

The processes of a team trust one another and their network: nothing between them is encrypted.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fedcervix.errors import TrainingError
from site_agent.data.batches import Indices

STEP_S = 1800.0
"""a process that does not answer within this time in a step has hung (one that died is noticed at once)"""
IDLE = timedelta(days=365)
TEXT_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Team:
    """This process's place among the site's training processes."""

    rank: int
    size: int
    control: dist.ProcessGroup | None = field(default=None, repr=False, compare=False)
    """carries requests (gloo, also where the tensors travel by NCCL: a GPU must not spin while nothing is to do)"""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank is 0 to size - 1; found {self.rank} of {self.size}")

    @property
    def leads(self) -> bool:
        """Say whether this process talks to the agent and writes files."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Say whether there is nobody to share the work with."""
        return self.size == 1


ALONE = Team(0, 1)


def assemble(device: torch.device) -> Team:
    """Join the processes that torch's elastic launcher started; return once all are there.

    Raises TrainingError where they do not come together within STEP_S.
    """
    backend, timeout = "nccl" if device.type == "cuda" else "gloo", timedelta(seconds=STEP_S)
    try:
        dist.init_process_group(backend, init_method="env://", timeout=timeout)
        control = dist.new_group(backend="gloo", timeout=IDLE)
    except (RuntimeError, ValueError) as error:  # every error of torch.distributed is one of these
        raise TrainingError(
            "the training processes of this site could not connect to each other",
            cause=f"one could not be started, or they cannot reach one another: {str(error)[:200]}",
            next_step="see the launcher's messages above; processes = 1 under [hardware] trains in one process",
        ) from error
    assert isinstance(control, dist.ProcessGroup)  # it is none only for a rank that is not in the group
    return Team(dist.get_rank(), dist.get_world_size(), control)


# --- what is whose ------------------------------------------------------------------------------------------------


def share(indices: Indices, team: Team) -> Indices:
    """Return this rank's images of a joint batch: every size-th. Raises TrainingError if shares would be unequal."""
    if len(indices) % team.size:
        raise TrainingError(
            f"a batch of {len(indices)} images cannot be shared equally by {team.size} processes",
            cause="batch_images (or the number of images, where there are fewer) is not divisible by the processes",
            next_step=f"set processes under [hardware] to a divisor of {len(indices)}, or to 1",
        )
    return indices[team.rank :: team.size]


def share_rows(draws: Tensor, images: int, team: Team) -> Tensor:
    """Return this rank's rows of a joint batch's augmentations, of which each image has one or two.

    There are N rows (of the second views) or 2N (of both); rows i and N + i belong to image i.
    """
    by_view = draws.view(-1, images, *draws.shape[1:])  # (1 or 2, N, ...)
    return by_view[:, team.rank :: team.size].flatten(0, 1)


def gather_views(f: Tensor, team: Team) -> Tensor:
    """Turn this rank's representations (2n, D) into the joint batch's (2N, D), in the order one process would have.

    The gradient is right where every rank computes the whole joint loss from it and gradients are then averaged over
    ranks, as DistributedDataParallel does.
    """
    if team.alone:
        return f
    n = len(f) // 2
    every: Tensor = _Gather.apply(f, team)  # (size, 2n, D)
    by_view = every.view(team.size, 2, n, -1)
    return by_view.permute(1, 2, 0, 3).reshape(2 * n * team.size, -1)  # image j = i * size + rank


class _Gather(torch.autograd.Function):
    """Every rank's tensor, stacked. Every rank has the same loss of it, so no gradient needs to travel back.

    Averaging over ranks divides by their number what only this rank contributes: hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Team) -> Tensor:
        ctx.team = team
        every = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(team.size)]
        dist.all_gather(every, own.contiguous())
        return torch.stack(every)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.team.rank] * ctx.team.size, None


def wrap(encoder: nn.Module, team: Team, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what to call in place of the encoder in training, so that backward averages the gradients over ranks.

    The ranks meet at the first call, not here: a leader that has only scored so far has met nobody. All then hold rank
    0's parameters. Buffers are not sent: joint batch norm keeps them equal.
    """
    if team.alone:
        return encoder

    @functools.cache
    def averaging() -> nn.Module:
        devices = [device] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.8 knows `broadcast_buffers` by no other name
            return DistributedDataParallel(encoder, device_ids=devices, broadcast_buffers=False)

    return lambda x: averaging()(x)


# --- who does what, when ------------------------------------------------------------------------------------------


def tell(request: str, team: Team) -> None:
    """Send the leader's request, which is not empty, to all others. Raises ValueError."""
    if not team.alone:
        send_text(request, functools.partial(dist.broadcast, src=0, group=team.control))


def hear(team: Team) -> str:
    """Wait for the leader's next request and return it. Raises ValueError."""
    return receive_text(functools.partial(dist.broadcast, src=0, group=team.control))


def send_text(text: str, send: Callable[[Tensor], object]) -> None:
    """Send a text that is not empty: its length, then its bytes. Raises ValueError where it is too long."""
    content = text.encode()
    if len(content) > TEXT_BYTES_MAX:
        raise ValueError(f"a text between processes has at most {TEXT_BYTES_MAX} bytes; found {len(content)}")
    send(torch.tensor([len(content)]))
    send(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def receive_text(receive: Callable[[Tensor], object]) -> str:
    """Return what `send_text` has sent; `receive` fills a tensor. Raises ValueError."""
    length = torch.zeros(1, dtype=torch.int64)
    receive(length)
    if not 0 < length.item() <= TEXT_BYTES_MAX:
        raise ValueError(f"a text between processes has 1 to {TEXT_BYTES_MAX} bytes; found {length.item()}")
    content = torch.empty(int(length.item()), dtype=torch.uint8)
    receive(content)
    return content.numpy().tobytes().decode()


def agreed(value: str, team: Team) -> str:
    """Return the leader's value: for what each process would find out for itself, perhaps differently."""
    if team.leads:
        tell(value, team)
        return value
    return hear(team)


def check_same(own: str, what: str, team: Team) -> None:
    """Raise TrainingError where a follower's value (what it read from its disk) is not the leader's."""
    said = f"{what}: {own}"
    if agreed(said, team) != said:
        raise TrainingError(
            f"it does not find the {what} that the first process found",
            cause="files changed while training began, or the hosts do not share one home folder and image folder",
            next_step="mount the same folders at the same places on every host; start site-agent again to continue",
        )


@contextlib.contextmanager
def leader_first(team: Team) -> Iterator[None]:
    """Let the leader do something (decode images into the cache) before the others do the same (read it there).

    All ranks must come here. Where the leader fails, the others wait until they are ended with it.
    """
    if not team.leads:
        dist.barrier(group=team.control)
    yield
    if team.leads and not team.alone:
        dist.barrier(group=team.control)


def lost(error: Exception) -> bool:
    """Say whether an error only means that another process of the team is gone or silent."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
