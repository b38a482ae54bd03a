"""What is wrong at this site, worst first: what happened, the likely cause, and the next command. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from fedcervix.errors import FedcervixError
from fedcervix.runtime.quantities import size
from fedcervix.runtime.worker_protocol import ErrorParts
from site_agent.federation.activity import BEAT_S, Doing
from site_agent.page.seen import SeenDisk, SeenRun, SeenSite
from site_agent.page.wording import Clean, plain

Level = Literal["error", "warning"]

FULL_BYTES = 16 * 2**20
"""A disk with less room is as good as full: not even a small model fits."""
MODELS_LEFT = 4
"""files of a model's size that a round in progress may still write: the update, a checkpoint with momentum, the next
model"""
QUIET_S = 3 * BEAT_S
"""after which an agent that runs has stopped telling what it does"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubleShown:
    """One thing that is wrong."""

    key: str
    """the same thing keeps its key"""
    level: Level
    what: str
    cause: str = ""
    next_step: str = ""
    since: float = 0.0
    """Unix seconds; 0: not known"""
    incident: str = ""
    """number of the failure, whose account lies in incidents/ of the home"""


def troubles(seen: SeenSite, clean: Clean) -> tuple[TroubleShown, ...]:
    """Return what is wrong, worst first."""
    found = [
        *_stopped(seen, clean),
        *_disk(seen),
        *_told(seen, clean),
        *_quiet(seen),
        *_certificates(seen),
        *_gpus(seen),
        *(_fault(number, error, clean) for number, error in enumerate(seen.faults)),
    ]
    return tuple(sorted(found, key=lambda one: one.level != "error"))


def _stopped(seen: SeenSite, clean: Clean) -> Iterator[TroubleShown]:
    """Yield that no agent runs, where the run is not over."""
    if seen.alive or seen.run is None or seen.run.outcome:
        return
    doing = seen.doing
    if doing is None or not doing.ended:
        last = f"; when it was last heard of, {_work(doing)}" if doing else ""
        yield TroubleShown(
            key="agent",
            level="error",
            what=f"the agent does not run, and the run is not over{last}",
            cause="it was killed, the machine was started again, or the memory was full (dmesg | tail)",
            next_step=seen.command,
            since=doing.written_at if doing else 0.0,
        )
    elif doing.trouble is not None and doing.in_trouble:
        yield _of("agent", doing.trouble, seen, clean, what="the agent has ended: ")
    else:
        yield TroubleShown(
            key="agent",
            level="error",
            what="the agent was stopped, and the run is not over",
            cause="a person or a service has stopped it; the others wait for this site or go on without it",
            next_step=seen.command,
            since=doing.since,
        )


def _work(doing: Doing) -> str:
    return f"it was to {plain(doing.task)}" if doing.task else "it waited"


def _told(seen: SeenSite, clean: Clean) -> Iterator[TroubleShown]:
    """Yield what the agent itself says is in the way."""
    doing = seen.doing
    if seen.alive and doing is not None and doing.in_trouble and doing.trouble is not None:
        yield _of("told", doing.trouble, seen, clean)


def _of(key: str, parts: ErrorParts, seen: SeenSite, clean: Clean, what: str = "") -> TroubleShown:
    doing = seen.doing
    assert doing is not None
    is_its_own = seen.incident_at >= doing.trouble_at - 1
    return TroubleShown(
        key=key,
        level="error",
        what=what + clean(parts.what),
        cause=clean(parts.cause),
        next_step=clean(parts.next_step) or seen.command,
        since=doing.trouble_at,
        incident=seen.incident if is_its_own else "",
    )


def _disk(seen: SeenSite) -> Iterator[TroubleShown]:
    if seen.disk is None:
        return
    free, needed = seen.disk.free_bytes, needed_bytes(seen.run)
    level: Level = "error" if (full := is_full(seen.disk)) else "warning"
    if full or free < needed:
        need = f"; this site may still need {size(needed)}" if needed else ""
        yield TroubleShown(
            key="disk",
            level=level,
            what=f"the home's disk {'is full' if full else 'may become full'}: {size(free)} are free{need}",
            cause="models, checkpoints and decoded images are in the home folder",
            next_step="free some space on that disk (df -h); the work then goes on by itself, and nothing was lost",
        )


def needed_bytes(run: SeenRun | None) -> int:
    """Return how much room the run may still need here: before round 1 as it was measured, then a round's models."""
    if run is None or run.outcome:
        return 0
    if run.model_bytes and run.history.train:
        return MODELS_LEFT * run.model_bytes
    return run.examined.disk_bytes if run.examined else 0


def _quiet(seen: SeenSite) -> Iterator[TroubleShown]:
    """Yield that an agent runs and does not tell any more what it does."""
    doing = seen.doing
    if not seen.alive or doing is None or doing.ended or seen.at - doing.written_at < QUIET_S:
        return
    if is_full(seen.disk):
        return  # said already, and the reason
    yield TroubleShown(
        key="quiet",
        level="warning",
        what=f"the agent runs, and has not told since {_clock(doing.written_at)} what it does",
        cause="its disk does not answer, or the process is paused",
        next_step=f"ps -o stat,wchan:30,cmd {seen.pid}" if seen.pid else "look at the agent's own output",
        since=doing.written_at,
    )


def _certificates(seen: SeenSite) -> Iterator[TroubleShown]:
    for one in seen.certificates:
        if one.warning:
            is_over = one.not_after <= seen.at
            yield TroubleShown(
                key=f"certificate of {one.title}",
                level="error" if is_over else "warning",
                what=one.warning,
                cause="a running agent renews its site's certificate by itself; it could not, or did not run",
                next_step=f"{seen.command} check",
                since=one.not_after if is_over else 0.0,
            )


def _gpus(seen: SeenSite) -> Iterator[TroubleShown]:
    if seen.gpus_silent_s:
        yield TroubleShown(
            key="gpu",
            level="warning",
            what=f"the GPU's driver has not answered for {seen.gpus_silent_s:.0f} s",
            cause="a GPU or its driver hangs",
            next_step="nvidia-smi; dmesg | tail",
        )


def _fault(number: int, error: FedcervixError, clean: Clean) -> TroubleShown:
    what, cause, next_step = clean(error.what), clean(error.cause), clean(error.next_step)
    return TroubleShown(key=f"fault {number}", level="warning", what=what, cause=cause, next_step=next_step)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def is_full(disk: SeenDisk | None) -> bool:
    """Say whether a disk has no room for a model."""
    return disk is not None and disk.free_bytes < FULL_BYTES
