"""What is still to be sent to one receiver, and how far its source was read: a value, and the file that holds it.

Rules
1. The source is the queue: what is not read yet waits there (events in the journal). Here wait at most `WAITING_MAX`
   messages, and nobody is made to wait for room.
2. The file is written before a message is sent for the first time and after it was taken. A process that is killed in
   between sends it again, with the same id: at least once.
3. A site that comes and goes fills nobody's mailbox: of one kind about one site, at most `ALIKE_PER_HOUR` in an hour.
   What is left out is counted, and the next message says how many.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fedcervix.core.formats import FIRST, KEY, contents
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import disk
from fedcervix.errors import StorageError
from fedcervix.json_text import parsed
from fedcervix.notify.notice import Notice, cut
from fedcervix.runtime.log import logger
from fedcervix.runtime.typed_json import from_json, to_text

WAITING_MAX = 64
SAID_MAX = 200
ALIKE_PER_HOUR = 4
HOUR_S = 3600.0
LATE_S = 600.0
"""after so long, a message that still waits is something to be told"""


@dataclass(frozen=True, slots=True)
class Place:
    """How far the source was read. `seq` is the journal's number of the last event; -1: nothing was read yet."""

    seq: int = -1
    run: str = ""
    """the last run of which it was said that it began"""
    said: tuple[str, ...] = ()
    """ids of the last messages: of what happens once, and is of no event of its own"""
    trouble: str = ""
    """digest of the trouble that there was; empty: there was none"""
    round: int = 0
    """the last round of the run of whose alarms it was told"""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What one receiver is still to be sent."""

    place: Place = Place()
    waiting: tuple[Notice, ...] = ()
    """oldest first"""
    recent: tuple[tuple[str, float], ...] = ()
    """kind and site of the messages of the last hour, and when"""
    left_out: int = 0

    @property
    def has_room(self) -> bool:
        """Whether more can be read."""
        return len(self.waiting) < WAITING_MAX

    def with_news(self, notices: Iterable[Notice], place: Place, now_s: float) -> Outbox:
        """Return the outbox after `notices` were read, up to `place`."""
        box = replace(self, place=place, recent=tuple(one for one in self.recent if one[1] > now_s - HOUR_S))
        for notice in notices:
            box = _with(box, notice, now_s)
        return box

    def without(self, id_: str) -> Outbox:
        """Return the outbox without a message: it was taken, or given up."""
        return replace(self, waiting=tuple(one for one in self.waiting if one.id != id_))

    def too_old(self, now_s: float, give_up_s: float) -> tuple[Notice, ...]:
        """Return the messages that are not tried any more."""
        return tuple(one for one in self.waiting if one.at + give_up_s < now_s)


def _with(box: Outbox, notice: Notice, now_s: float) -> Outbox:
    like = f"{notice.kind} {notice.site}"
    alike = sum(one == like for one, _ in box.recent)
    if notice.id in {one.id for one in box.waiting}:
        return box
    if len(box.waiting) >= WAITING_MAX or alike >= ALIKE_PER_HOUR:
        return replace(box, left_out=box.left_out + 1)
    if box.left_out:
        more = f"({box.left_out} messages before this one were left out: there were too many.)"
        notice = replace(notice, text=cut(f"{notice.text} {more}"))
    return replace(box, waiting=(*box.waiting, notice), recent=(*box.recent, (like, now_s)), left_out=0)


@dataclass(frozen=True, slots=True)
class LateMessages:
    """Messages that one receiver has not taken yet."""

    receiver: str
    waiting: int
    since: float | None
    """when that of the oldest happened, Unix seconds; None where none waits"""

    def is_late(self, now_s: float) -> bool:
        """Say whether a person should look."""
        return self.since is not None and now_s - self.since > LATE_S


def late_messages(folder: Path, receiver: str) -> LateMessages:
    """Return what waits in a home for a receiver, as it was written last. Raises StorageError."""
    box = load(file_of(folder, receiver))
    return LateMessages(receiver, len(box.waiting), min((one.at for one in box.waiting), default=None))


def file_of(folder: Path, receiver: str) -> Path:
    """Return where the outbox of a receiver is kept in a home."""
    return folder / f"notify-{receiver}.json"


def load(file: Path) -> Outbox:
    """Return what a file holds; a new outbox where it is missing or damaged. Raises StorageError."""
    with disk(file, "read"):
        if not file.exists():
            return Outbox()
        content = file.read_bytes()
    try:
        return from_json(Outbox, contents("the outbox", parsed(content)), extra="ignore")
    except (ValueError, TypeError) as error:
        logger().warning("outbox not readable: begun anew", file=file.name, what=str(error)[:200])
        return Outbox()


def store(file: Path, box: Outbox) -> None:
    """Write it. Raises StorageError."""
    write_whole(file, to_text({KEY: FIRST, **_fields(box)}).encode())


def _fields(box: Outbox) -> dict[str, object]:
    return {"place": box.place, "waiting": box.waiting, "recent": box.recent, "left_out": box.left_out}


@contextlib.contextmanager
def loss_logged(file: Path) -> Iterator[None]:
    """Go on where the file cannot be written: after a restart a message may then be sent twice."""
    try:
        yield
    except StorageError as error:
        logger().warning("outbox not written", file=file.name, what=error.what)
