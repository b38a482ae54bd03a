"""What processes use while something runs, read from Linux from outside of them: CPU, memory, bytes on the wire.

    CPU        user and system time of all threads, and of children that have ended, /proc/PID/stat
    memory     anonymous resident memory, RssAnon of /proc/PID/status: what the process itself fills. Pages of files
               count for nobody: the system takes them back as it likes.
    wire       what TCP carried, both ways, between a listening port and all its peers: bytes_acked and bytes_received
               of the kernel's tcp_info, asked for by NETLINK_SOCK_DIAG (man 7 sock_diag). TLS, HTTP/2 and every small
               message are in it; headers of TCP and IP are not.

A role is a process with all that it started, and is the sum of them. A `Watch` reads all that many times a second;
which of its readings count is decided afterwards, by the times of the rounds. It costs a few per cent of one core,
which every side pays alike.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

Number = TypeVar("Number", int, float)
EVERY_S = 0.025
FAMILY_EVERY = 10
"""readings from one look for new processes to the next"""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
REQUEST_DUMP = 0x301
DONE = 3
INFO_ASKED, INFO = 1 << 1, 2
HEADER_BYTES, MESSAGE_BYTES = 16, 72
BYTES_AT = 120
"""of tcp_info: bytes_acked, then bytes_received"""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at everything."""

    at: float
    """seconds since 1970, as in the journal"""
    cpu_s: Mapping[str, float]
    anonymous_bytes: Mapping[str, int]
    wire_bytes: int
    """from the beginning, over all connections"""


@dataclass(frozen=True, slots=True)
class Use:
    """What was used between two moments."""

    cpu_s: dict[str, float]
    """of each role, in all"""
    peak_bytes: dict[str, int]
    """the most anonymous memory of each role in any reading at all, also before and after"""
    wire_bytes: int


class Watch:
    """Reads while the block runs."""

    def __init__(self, pids: Mapping[str, int], port: int) -> None:
        self._pids, self._port = pids, port
        self._families: dict[str, list[int]] = {}
        self._carried: dict[tuple[int, int], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="watch")
        self.readings: list[Reading] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _read_on(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.readings.append(self._read())

    def _read(self) -> Reading:
        if len(self.readings) % FAMILY_EVERY == 0:
            self._families = families(self._pids)
        cpu_s = dict(self.readings[-1].cpu_s) if self.readings else {}  # who has ended keeps what it used
        anonymous = {}
        for name, pids in self._families.items():
            if used := readable(cpu_seconds, pids):
                anonymous[name], cpu_s[name] = sum(readable(anonymous_bytes, pids)), sum(used)
        self._carried |= carried_bytes(self._port)  # a connection that has ended keeps its last count
        return Reading(time.time(), cpu_s, anonymous, sum(self._carried.values()))


def use(readings: Sequence[Reading], begin: float, end: float) -> Use:
    """Return what was used from `begin` to `end` (seconds since 1970), as the nearest readings tell.

    Bytes on the wire are interpolated: a line carries 10 MB between two readings.
    """
    first, last = (min(readings, key=lambda reading: abs(reading.at - at)) for at in (begin, end))
    times, carried = ([getattr(reading, part) for reading in readings] for part in ("at", "wire_bytes"))
    wire_begin, wire_end = np.interp((begin, end), times, carried)
    names = [name for name in first.cpu_s if name in last.cpu_s]
    return Use(
        {name: last.cpu_s[name] - first.cpu_s[name] for name in names},
        {name: max(reading.anonymous_bytes.get(name, 0) for reading in readings) for name in names},
        round(wire_end - wire_begin),
    )


def readable(read: Callable[[int], Number], pids: Iterable[int]) -> list[Number]:
    """Return what can be read of those processes that have not ended."""
    values = []
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            values.append(read(pid))
    return values


def families(pids: Mapping[str, int]) -> dict[str, list[int]]:
    """Return each process with all its descendants; a process that has ended has none, not even itself."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*"):
        for parent in readable(parent_of, [pid := int(file.name)]):
            children.setdefault(parent, []).append(pid)
    alive = {pid for pids_below in children.values() for pid in pids_below}

    def family(pid: int) -> list[int]:
        return [pid, *(member for child in children.get(pid, []) for member in family(child))]

    return {name: family(pid) if pid in alive else [] for name, pid in pids.items()}


def parent_of(pid: int) -> int:
    """Return the number of the process that started another one."""
    return int(_stat(pid)[1])


def started_at(pid: int) -> int:
    """Return when a process was started, in ticks since the system's start: it tells it from a later namesake."""
    return int(_stat(pid)[19])


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, all its threads, and those children for whose end it has waited."""
    return sum(map(int, _stat(pid)[11:15])) / TICKS_PER_S


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, ... (man 5 proc, from the third on)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def anonymous_bytes(pid: int) -> int:
    """Return a process's anonymous resident memory. Raises ValueError of a process that has just ended."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"process {pid} has ended")
    return int(found[1]) * 1024


def carried_bytes(port: int) -> dict[tuple[int, int], int]:
    """Return what every connection of a port of this machine has carried so far, both ways, by its kernel cookie."""
    found: dict[tuple[int, int], int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as asked:
        for family in (socket.AF_INET, socket.AF_INET6):
            body = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, INFO_ASKED, 0xFFFFFFFF)
            asked.send(struct.pack("=IHHII", HEADER_BYTES + len(body), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 0, 0) + body)
            while not _read_dump(asked.recv(1 << 18), port, found):
                pass
    return found


def _read_dump(data: bytes, port: int, found: dict[tuple[int, int], int]) -> bool:
    """Take in one datagram of the kernel's answer; return whether it is the last one."""
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if kind != SOCK_DIAG_BY_FAMILY:
            return True  # done, or an error: there is nothing more to come
        message = data[at + HEADER_BYTES : at + length]
        if struct.unpack_from("!H", message, 4) == (port,):
            cookie = struct.unpack_from("=II", message, 44)
            found[cookie] = _bytes_of(message[MESSAGE_BYTES:])
        at += length + (-length % 4)
    return False


def _bytes_of(attributes: bytes) -> int:
    """Return bytes_acked + bytes_received of a socket's attributes; a listening one has carried nothing."""
    at = 0
    while at < len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, at)
        if kind == INFO and length >= 4 + BYTES_AT + 16:
            return sum(struct.unpack_from("=QQ", attributes, at + 4 + BYTES_AT))
        at += length + (-length % 4)
    return 0
