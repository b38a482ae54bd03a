"""What is sent to whoever watches: how things stand, then what has changed; every message within a bound.

Rules
1. A document's keys replace those known. `sites` and `ledger` are tables: only lines that are new or different are
   sent, known by their site or their round.
2. A round that has ended does not change. So whoever names the last ended round that it knows, is sent what comes after
   it, also by a coordinator that was restarted meanwhile.
3. A document is sent as text, in parts of at most `PART_CHARS` characters, whatever is in it.
4. A single answer (`brief`) has no parts: it holds the last rounds that fit beside the rest, which has a bound of its
   own (see `coordinator.run.status`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from coordinator.run.status_document import StatusDocument
from fedcervix.json_text import parsed
from fedcervix.runtime.record import LedgerLine
from fedcervix.runtime.typed_json import fields_of, from_json, from_text, replaced, to_text

T = TypeVar("T")

Change = Mapping[str, object]
"""the fields of a document that are new, by name; of a table, its new lines"""

TABLES = {"sites": "site", "ledger": "round"}
"""key of the document -> key of its lines"""
PART_CHARS = 2**18
"""four bytes each at most: 1 MiB"""
BRIEF_LEDGER_CHARS = 2**18
"""of the last rounds in a single answer"""
BRIEF_ROUNDS = 12
"""at most"""


def changes(before: StatusDocument | None, after: StatusDocument) -> Change:
    """Return what of `after` is not in `before`; all of it where there is no `before`, or one of another run."""
    now = fields_of(after)
    if before is None or before.run != after.run:
        return now
    return {
        name: _lines_changed(TABLES[name], getattr(before, name), getattr(after, name)) if name in TABLES else value
        for name, value in now.items()
        if getattr(before, name) != value
    }


def applied(before: StatusDocument | None, change: Change) -> StatusDocument:
    """Return the document after a change; one that names another run is a whole document. Raises ValueError."""
    if before is None or change.get("run", before.run) != before.run:
        return from_json(StatusDocument, change, extra="ignore")
    after = replaced(before, change)
    sites = _by(TABLES["sites"], (*before.sites, *after.sites))
    ledger = _by(TABLES["ledger"], (*before.ledger, *after.ledger))
    return replace(after, sites=tuple(sites.values()), ledger=tuple(ledger.values()))


def _lines_changed(key: str, before: Iterable[T], after: Iterable[T]) -> list[T]:
    known = _by(key, before)
    return [line for name, line in _by(key, after).items() if known.get(name) != line]


def _by(key: str, lines: Iterable[T]) -> dict[object, T]:
    return {getattr(line, key): line for line in lines}


def ended_rounds(document: StatusDocument | None) -> int:
    """Return the number of the last round that will not change any more; 0 where none will not."""
    ledger = document.ledger if document else ()
    return max((line.round for line in ledger if line.ended_at is not None), default=0)


def parts(change: Change | StatusDocument) -> Iterator[tuple[str, bool]]:
    """Yield the text of a change in parts, each with whether more follow."""
    text = _text(change)
    for start in range(0, len(text), PART_CHARS):
        yield text[start : start + PART_CHARS], start + PART_CHARS < len(text)


def joined(messages: Iterable[tuple[str, bool]]) -> Iterator[Change]:
    """Yield the changes of which `messages` are the parts; one that is not whole is dropped."""
    return map(parsed, _texts(messages))


def _texts(messages: Iterable[tuple[str, bool]]) -> Iterator[str]:
    held: list[str] = []
    for text, more in messages:
        held.append(text)
        if not more:
            yield "".join(held)
            held.clear()


def told(messages: Iterable[tuple[str, bool]], known: StatusDocument | None = None) -> Iterator[StatusDocument]:
    """Yield the document after each change of which `messages` are the parts. Raises ValueError."""
    for text in _texts(messages):
        # A first document of many rounds is large: it is read at once, and not by way of tables.
        known = from_text(StatusDocument, text) if known is None else applied(known, parsed(text))
        yield known


def brief(document: StatusDocument) -> str:
    """Return the text of a document with as many of its last rounds as fit into a single answer."""
    room = BRIEF_LEDGER_CHARS
    ledger: list[LedgerLine] = []
    for line in reversed(document.ledger[-BRIEF_ROUNDS:]):
        room -= len(_text(line))
        if room < 0:
            break
        ledger.insert(0, line)
    return _text(replace(document, ledger=tuple(ledger)))


def _text(value: object) -> str:
    return to_text(value, ensure_ascii=False, separators=(",", ":"))
