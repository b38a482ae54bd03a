"""A full disk is waited for, and said once."""

from __future__ import annotations

import dataclasses

import pytest

from fedcervix.errors import FullDiskError, StorageError
from fedcervix.runtime.worker_protocol import ErrorParts, WorkProgress
from site_agent.worker.disk_full_retry import NO_ROOM, with_room


class Disk:
    """A disk that is full for some tries; in between there may be other words for it."""

    def __init__(self, *errors: StorageError) -> None:
        self.errors = list(errors)
        self.said: list[WorkProgress] = []
        self.pauses_s: list[float] = []

    def write(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "written"

    def with_room(self) -> str:
        return with_room(self.write, self.said.append, self.pauses_s.append)


def full(what: str = "cannot write model") -> FullDiskError:
    return FullDiskError(what, cause="the disk is full", next_step="df -h")


def test_a_disk_with_room_is_written_to_at_once() -> None:
    disk = Disk()
    assert (disk.with_room(), disk.said, disk.pauses_s) == ("written", [], [])


def test_a_full_disk_is_tried_again_until_there_is_room_and_said_once() -> None:
    disk = Disk(full(), full(), full())
    assert disk.with_room() == "written"
    first = dataclasses.replace(NO_ROOM, trouble=ErrorParts("cannot write model", "the disk is full", "df -h"))
    assert disk.said == [first, NO_ROOM, NO_ROOM]
    assert len(disk.pauses_s) == 3
    assert 0 < disk.pauses_s[0] < disk.pauses_s[2]


def test_what_is_full_now_is_said_when_it_is_something_else() -> None:
    disk = Disk(full("model"), full("model"), full("journal"))
    disk.with_room()
    assert [at.trouble.what for at in disk.said if at.trouble] == ["model", "journal"]


def test_a_damaged_disk_is_not_waited_for() -> None:
    with pytest.raises(StorageError, match="may not"):
        Disk(StorageError("this account may not write")).with_room()


def test_waiting_can_be_given_up() -> None:
    def gives_up(_pause_s: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_room(Disk(full()).write, lambda _: None, gives_up)


def test_the_words_fit_into_a_progress_report() -> None:
    assert len(NO_ROOM.stage) <= 40  # protos/federation.proto
