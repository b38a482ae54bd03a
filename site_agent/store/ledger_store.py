"""The ledger of a run as a site keeps it: the entries, and beside them the signatures.

ledger.jsonl             the entries, as they came
ledger-signatures.jsonl  {"entry", "signature"}: of a site, over the record in an entry
                         {"head", "signature"}: of the coordinator
                         {"head", "site", "signature"}: of a site, over that head
said.jsonl               the records of this site that the coordinator has accepted

What is written first is of use only with what is written last, the head: entries after the last head that is here are
passed over. A line that was torn by a power cut is no entry and no signature. docs/ledger.md describes the files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedcervix.disk.files import append_line
from fedcervix.disk.paths import Below
from fedcervix.disk.storage import damaged, disk
from fedcervix.transport.codec import Countersigned
from fedcervix.trust.chain import Value, Values, read, text_of
from fedcervix.trust.heads import Head, SignedHead
from fedcervix.trust.ledger import LedgerEntry


@dataclass(frozen=True, slots=True)
class StoredLedger:
    """What is stored of a ledger."""

    lines: tuple[LedgerEntry, ...] = ()
    heads: tuple[SignedHead, ...] = ()
    """in the order in which they came"""
    countersigned: tuple[Countersigned, ...] = field(default=())
    end_bytes: int = 0
    """where these entries end in their file"""


@dataclass(frozen=True, slots=True)
class LedgerStore:
    """The files of a run's ledger. Every method raises StorageError."""

    folder: Path
    entries = Below("ledger.jsonl")
    """The entries."""
    signatures = Below("ledger-signatures.jsonl")
    """What was signed."""
    _said = Below("said.jsonl")

    def read(self, *, whole: bool = False) -> StoredLedger:
        """Return what is stored, up to the last head. `whole`: with what stands after it."""
        found = [values for values in map(_values, _lines(self.signatures)) if values]
        signatures = {values["entry"]: _signature(values) for values in found if isinstance(values.get("entry"), int)}
        heads, countersigned = [], []
        for values in found:
            with contextlib.suppress(ValueError):  # it was changed: what it was the signature of is not signed then
                if "site" in values:
                    countersigned.append(
                        Countersigned(str(values["site"]), Head.parse(str(values["head"])), _signature(values))
                    )
                elif "head" in values:
                    heads.append(SignedHead(Head.parse(str(values["head"])), _signature(values)))
        content = _content(self.entries)
        texts = _texts(content)
        count = len(texts) if whole else max((head.head.end.entries for head in heads), default=0)
        lines = tuple(LedgerEntry(text, signatures.get(number, b"")) for number, text in enumerate(texts[:count]))
        return StoredLedger(lines, tuple(heads), tuple(countersigned), _end_bytes(content, count))

    def add(
        self,
        first: int,
        end_bytes: int,
        lines: Sequence[LedgerEntry],
        head: SignedHead,
        countersigned: Iterable[Countersigned],
    ) -> int:
        """Store entries from number `first` on, and the head that they lead to; done twice, it does the same.

        `end_bytes`: where the entries before them end in the file. What stands there after them is of a head that was
        never stored, and goes. Returns where the new ones end. Nothing of what was stored before is read.
        Raises StorageError.
        """
        signed = [_signed(line.signature, entry=at) for at, line in enumerate(lines, first) if line.signature]
        with disk(self.entries, "write"):
            size_bytes = self.entries.stat().st_size if self.entries.exists() else 0
            if size_bytes > end_bytes:
                os.truncate(self.entries, end_bytes)
        if size_bytes < end_bytes:
            next_step = f"stop the agent, and copy the file from another site; it is the same there: {self.entries}"
            raise damaged(self.entries, "its end was cut off while the agent ran", next_step=next_step)
        _append(self.entries, [line.text for line in lines])
        over = [_signed(one.signature, head=one.head.text, site=one.site) for one in countersigned]
        _append(self.signatures, [*signed, *over])
        append_line(self.signatures, _signed(head.signature, head=head.head.text), sync=True)
        return end_bytes + sum(1 + len(line.text) for line in lines)

    def note_said(self, record: str) -> None:
        """Write down a record that the coordinator has accepted."""
        append_line(self._said, record, sync=False)

    def said(self) -> set[str]:
        """Return these records."""
        return {record for record in _lines(self._said) if _values(record)}


def _signed(signature: bytes, **over: Value) -> str:
    """Return the line of a signature."""
    return text_of({**over, "signature": signature.hex()})


def _append(file: Path, lines: list[str]) -> None:
    if lines:
        append_line(file, "\n".join(lines), sync=True)


def _content(file: Path) -> bytes:
    with disk(file, "read"):
        return file.read_bytes() if file.exists() else b""


def _texts(content: bytes) -> list[str]:
    """Return the lines that hold anything; what is no ASCII is no line of these files."""
    return [line.decode("ascii", "replace") for line in content.split(b"\n") if line]


def _end_bytes(content: bytes, count: int) -> int:
    """Return where the first `count` lines that hold anything end."""
    end = 0
    for _ in range(count):
        while content[end : end + 1] == b"\n":
            end += 1
        end = content.find(b"\n", end)
        if end < 0:
            return len(content)
    return end


def _lines(file: Path) -> list[str]:
    return _texts(_content(file))


def _values(line: str) -> Values:
    try:
        return read(line)
    except ValueError:
        return {}


def _signature(values: Values) -> bytes:
    try:
        return bytes.fromhex(str(values.get("signature", "")))
    except ValueError:
        return b""
