"""The egress ledger: one entry for each thing that leaves this site, in one chain over all runs.

    model    a file of numbers begins to leave: from byte `from` on to its end
    left     so many bytes of the model of entry `of` have left: the call is over
    report   something that this site says: `what` it is, the digests of the message and of the record in it, and the
             round of the last head that the site has checked
    request  a certificate is asked for: digest of the request, fingerprint of the key
    talk     an allowance for small messages: signs of life, progress, and questions that hold names and digests only;
             and for bytes of no meaning that try the line

Rules
1. The disk has the entry before the first byte leaves. So a killed process can have announced too much and never too
   little: a `model` without a `left` counts to its end.
2. `bytes` is of the message or the file, without what gRPC, TLS and TCP add.
3. Small messages have no entry each: `talk` announces `TALK_BYTES`, and another one follows when these are used up.
4. Results wait for their entry. What a full disk must not silence (signs of life, failures, refusals) leaves all the
   same; its entries are written when there is room, before any other.

docs/ledger.md describes the format.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fedcervix.core.events import Task
from fedcervix.disk.files import append_line
from fedcervix.disk.locks import held
from fedcervix.disk.storage import disk
from fedcervix.errors import FullDiskError, StorageError
from fedcervix.trust.chain import TEXT_CHARS_MAX, Chain, End, Values, read, real
from fedcervix.trust.heads import Head
from fedcervix.wire import federation_pb2 as wire

EGRESS = Chain("fedcervix egress 1")
TALK_BYTES = 2**16
"""that one entry `talk` announces, at least"""
WHOLE = '"}'
"""with this every entry ends, by its sorted keys; a line that ends otherwise was torn by a power cut"""
OWED_MAX = 1000
"""entries that wait for room"""

OnBytes = Callable[[int, int], None]


class Egress:
    """The ledger of one home. May be used from any thread, and by several processes at once.

    `to`: who gets what leaves, as HOST:PORT, or `key` and the key that can open it. Methods raise StorageError where
    an entry could not be written.
    """

    def __init__(self, file: Path, to: str, clock_s: Callable[[], float] = time.time) -> None:
        self._file, self._to, self._clock_s = file, to, clock_s
        self._lock = threading.RLock()
        self._end, self._size_bytes = End(), 0
        self._talk_bytes: dict[tuple[str, str], int] = {}
        """left of what was announced, by what and run"""
        self._owed: list[Values] = []

    def end(self) -> End:
        """Return where the chain ends on the disk."""
        with self._lock:
            self._catch_up()
            return self._end

    # --- what leaves ---

    @contextlib.contextmanager
    def model(self, digest: str, start: int, size_bytes: int, task: Task | None, *, run: str = "") -> Iterator[OnBytes]:
        """Announce a file from `start` on; yield what is to be called, with the bytes so far, before each piece.

        `run`: where it belongs to a run, but to no task of it.
        """
        of: Values = _of(task) or ({"run": run} if run else {})
        values: Values = {"digest": digest, "from": start, "bytes": size_bytes, **of}
        number = self._note("model", values)
        done = start

        def on_bytes(so_far: int, _of: int) -> None:
            nonlocal done
            done = so_far

        try:
            yield on_bytes
        finally:
            with contextlib.suppress(StorageError):  # then all that was announced counts
                self._note("left", {"of": number, "bytes": done - start}, waits=False)

    def report(self, message: wire.FromSite, run: str, task: Task | None) -> None:
        """Announce a report, as it leaves."""
        content = message.SerializeToString()
        said: Values = {"record": _sha256(message.record)} if message.record else {}
        of: Values = _of(task) or {"run": run}
        signed = Head.parse(message.head.decode()) if message.head else None
        head: Values = {"head": signed.round} if signed and signed.run == of["run"] else {}
        values: Values = {"what": _kind(message), "digest": _sha256(content), "bytes": len(content)}
        self._note("report", {**values, **said, **head, **of}, waits=task is not None)

    def request(self, what: str, message: bytes, key: str) -> None:
        """Announce that a certificate is asked for. `key`: fingerprint of the key that it is to be for."""
        self._note("request", {"what": what, "digest": _sha256(message), "bytes": len(message), "key": key})

    def sign(self, message: wire.FromSite, run: str) -> None:
        """Announce a sign of life, together with those that follow."""
        self.talk(_kind(message), message.ByteSize(), run)

    def talk(self, what: str, size_bytes: int, run: str = "") -> None:
        """Announce small messages of a kind, together with those that follow."""
        with self._lock:
            left_bytes = self._talk_bytes.get((what, run), 0) - size_bytes
            if left_bytes < 0:
                announced = max(TALK_BYTES, size_bytes)
                self._note("talk", {"what": what, "bytes": announced, "run": run}, waits=False)
                left_bytes += announced
            self._talk_bytes[what, run] = left_bytes

    # --- the file ---

    def _note(self, kind: str, values: Values, *, waits: bool = True) -> int:
        """Write an entry down, and return its number. `waits`: nothing may leave before it is on the disk."""
        to: Values = {} if kind == "left" else {"to": self._to}
        entry: Values = {"kind": kind, "at": real(self._clock_s()), **to, **values}
        with self._lock:
            owed = [*self._owed, entry]
            try:
                self._append(owed, sync=kind != "left")  # without it, more counts and not less
                self._owed = []
            except FullDiskError:
                if waits:
                    raise
                self._owed = owed[-OWED_MAX:]
            return self._end.entries - 1

    def _append(self, entries: list[Values], *, sync: bool) -> None:
        with held(self._file, busy=None):
            self._catch_up()
            end, texts = self._end, []
            for values in entries:
                text, end = EGRESS.append(end, values)
                texts.append(text)
            append_line(self._file, "\n".join(texts), sync=sync)
            self._end = end
            with disk(self._file, "read"):
                self._size_bytes = self._file.stat().st_size

    def _catch_up(self) -> None:
        """Read where the chain ends, where another process has written, or this one has just begun."""
        with disk(self._file, "read"):
            size_bytes = self._file.stat().st_size if self._file.exists() else 0
            if size_bytes == self._size_bytes:
                return
            with self._file.open("rb") as file:
                file.seek(max(0, size_bytes - TEXT_CHARS_MAX))
                last = _whole(file.read())[-1:]
        self._end = _end_of(last[0]) if last else End()
        self._size_bytes = size_bytes


def entries(file: Path) -> list[str]:
    """Return the texts of the entries in a file, oldest first. Raises StorageError."""
    with disk(file, "read"):
        return _whole(file.read_bytes()) if file.exists() else []


def _whole(content: bytes) -> list[str]:
    return [line for line in content.decode("ascii", "replace").split("\n") if line.endswith(WHOLE)]


def _end_of(text: str) -> End:
    """Return where a chain ends with this entry. An entry that was changed by hand is found by `verify`, not here."""
    number: object = None
    with contextlib.suppress(ValueError):
        number = read(text).get("entry")
    return End(number + 1 if type(number) is int else 0, EGRESS.hash(text))


def _of(task: Task | None) -> Values:
    if task is None:
        return {}
    return {"run": task.run, "task": {"kind": task.kind.value, "round": task.round, "base": task.base}}


def _kind(message: wire.FromSite) -> str:
    return str(message.WhichOneof("what"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
