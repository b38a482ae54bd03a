"""What an agent leaves on the disk of what it is doing, for those who look on: `site-agent page`.

    doing.json                one value, written whole again and again: by this process alone
    runs/RUN/activity.jsonl   a line for each change, and for each epoch of training that has ended here
    runs/RUN/examined.json    what the look at the site's images found before round 1: counts, no names

Nothing depends on these files: a run goes on without them, and a disk that is full costs a page some lines. `noting`
writes them. None of them leaves the site.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

from fedcervix.disk.files import append_line, write_whole
from fedcervix.disk.storage import disk
from fedcervix.errors import FullDiskError
from fedcervix.runtime.typed_json import from_text, to_text
from fedcervix.runtime.worker_protocol import ErrorParts
from site_agent.worker.preflight import Findings

T = TypeVar("T")

State = Literal["train", "score", "transfer", "check", "work", "wait", "disk", "away", "off"]
"""check: the plan, before round 1; work: other work; disk: waits for room; away: nothing can be done without the
coordinator, which cannot be reached; off: no agent runs"""
STATES: tuple[State, ...] = get_args(State)

BEAT_S = 5.0
"""An agent writes what it is doing at least this often, so that a file that is older is one of a process that has
ended, hangs, or has no room on its disk."""
BOOT, NAMESPACE = "/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"
ACTIVITY_FILE = "activity.jsonl"
EXAMINED_FILE = "examined.json"
TAIL_BYTES = 2**20
"""of a run's activity that is read: the newest part"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What the agent is doing. Times are Unix seconds by this machine's clock; 0: never."""

    written_at: float
    pid: int
    place: str = ""
    """where the process runs (`here`)"""
    state: State = "wait"
    since: float = 0.0
    run: str = ""
    task: str = ""
    """in words; empty where there is none"""
    round: int = 0
    stage: str = ""
    stage_since: float = 0.0
    stage_from: int = 0
    """what was done when the stage began: more than nothing where a checkpoint was continued"""
    done: int = 0
    of: int = 0
    unit: str = ""
    loss: float = 0.0
    images_per_s: float = 0.0
    heard_at: float = 0.0
    """when the work was last heard of"""
    rest: str = ""
    """why there is nothing to do"""
    connected: bool = False
    line_since: float = 0.0
    """since when it is connected, or is not"""
    trouble: ErrorParts | None = None
    """what went wrong last"""
    trouble_at: float = 0.0
    in_trouble: bool = False
    """that trouble is not over"""
    ended: str = ""
    """how the process has ended, in words; empty while it runs, and where it was killed"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One line of a run's activity: what the agent does from here on, or an epoch that has ended."""

    at: float
    round: int = 0
    state: State | Literal[""] = ""
    """empty: the line is of an epoch"""
    epoch: int = 0
    """counted over the whole run; the first is 1"""
    loss: float = 0.0
    """mean over the epoch's steps, on this site's training images"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedSite:
    """What the look at the site's images found, in counts; and what a round needs."""

    at: float
    images: int
    training_images: int
    women: int
    unreadable_for: Mapping[str, int] = field(default_factory=dict)
    aside_for: Mapping[str, int] = field(default_factory=dict)
    device: str = ""
    disk_bytes: int = 0
    """that a round needs; 0: not known"""

    @classmethod
    def of(cls, found: Findings, at: float) -> ExaminedSite:
        """Return what is kept of findings: no remark, because remarks may name images."""
        return cls(
            at=at,
            images=found.images,
            training_images=found.training_images,
            women=found.women,
            unreadable_for=dict(found.unreadable_for),
            aside_for=dict(found.aside_for),
            device=found.cost.device if found.cost else "",
            disk_bytes=found.cost.pace.disk_bytes if found.cost else 0,
        )


def here() -> str:
    """Name the part of the machine in which processes see each other; empty where the system does not say.

    A container is another part, a machine that was started again too.
    """
    with contextlib.suppress(OSError):
        return f"{Path(BOOT).read_text().strip()} {Path(NAMESPACE).readlink()}"
    return ""


def write_doing(file: Path, doing: Doing) -> None:
    """Write what the agent is doing. It is not waited for until the disk has it. Raises StorageError.

    On a full disk the file that is there is overwritten: a person most wants to know then what the agent does.
    """
    content = to_text(doing).encode()
    try:
        write_whole(file, content, sync=False)
    except FullDiskError:
        with disk(file, "write"), file.open("r+b", buffering=0) as stored:
            stored.write(content.ljust(file.stat().st_size))  # JSON passes over blanks at its end


def read_doing(file: Path) -> Doing | None:
    """Return what an agent is doing, or was; None where that is not known. Raises StorageError."""
    return _read(file, Doing)


def note(run_folder: Path, line: Note) -> None:
    """Append a line to a run's activity. Raises StorageError."""
    append_line(run_folder / ACTIVITY_FILE, to_text(line), sync=False)


def notes(run_folder: Path) -> tuple[Note, ...]:
    """Return a run's activity, oldest first; of a very long one the newest part. Raises StorageError."""
    return tuple(_notes(run_folder / ACTIVITY_FILE))


def _notes(file: Path) -> Iterator[Note]:
    with disk(file, "read"):
        if not file.exists():
            return
        with file.open("rb") as stored:
            stored.seek(max(0, file.stat().st_size - TAIL_BYTES))
            lines = stored.read().splitlines()
    for line in lines:
        with contextlib.suppress(ValueError):  # torn, or cut where the tail begins, or empty
            yield from_text(Note, line)


def write_examined(run_folder: Path, found: ExaminedSite) -> None:
    """Write down what was found before round 1. Raises StorageError."""
    write_whole(run_folder / EXAMINED_FILE, to_text(found).encode(), sync=False)


def read_examined(run_folder: Path) -> ExaminedSite | None:
    """Return what was found before round 1; None where that is not known. Raises StorageError."""
    return _read(run_folder / EXAMINED_FILE, ExaminedSite)


def _read(file: Path, kind: type[T]) -> T | None:
    with disk(file, "read"):
        content = file.read_bytes() if file.exists() else b""
    with contextlib.suppress(ValueError):  # empty after a power cut, or of a later version: it is written again
        return from_text(kind, content)
    return None
