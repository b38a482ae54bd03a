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

import json
from collections.abc import Iterable, Iterator
from typing import Any

from fedcervix.json_text import parsed

Document = dict[str, Any]

TABLES = {"sites": "site", "ledger": "round"}
"""key of the document -> key of its lines"""
PART_CHARS = 2**18
"""four bytes each at most: 1 MiB"""
BRIEF_LEDGER_CHARS = 2**18
"""of the last rounds in a single answer"""
BRIEF_ROUNDS = 12
"""at most"""


def changes(before: Document, after: Document) -> Document:
    """Return what of `after` is not in `before`; all of it where `before` is empty or of another run."""
    if before.get("run") != after["run"]:
        return after
    return {
        key: _lines_changed(key, before.get(key, []), value) if key in TABLES else value
        for key, value in after.items()
        if before.get(key) != value
    }


def applied(before: Document, change: Document) -> Document:
    """Return the document after a change; a change that names another run is a whole document."""
    if change.get("run", before.get("run")) != before.get("run"):
        return change
    merged = {**before, **change}
    for key, name in TABLES.items():
        lines = {line[name]: line for line in (*before.get(key, []), *change.get(key, []))}
        merged[key] = [*lines.values()]
    return merged


def _lines_changed(key: str, before: list[Document], after: list[Document]) -> list[Document]:
    known = {line[TABLES[key]]: line for line in before}
    return [line for line in after if known.get(line[TABLES[key]]) != line]


def ended_rounds(document: Document) -> int:
    """Return the number of the last round that will not change any more; 0 where none will not."""
    return max((line["round"] for line in document.get("ledger", []) if line["ended_at"] is not None), default=0)


def parts(document: Document) -> Iterator[tuple[str, bool]]:
    """Yield a document's text in parts, each with whether more follow."""
    text = _text(document)
    for start in range(0, len(text), PART_CHARS):
        yield text[start : start + PART_CHARS], start + PART_CHARS < len(text)


def joined(messages: Iterable[tuple[str, bool]]) -> Iterator[Document]:
    """Yield the documents of which `messages` are the parts; one that is not whole is dropped."""
    held: list[str] = []
    for text, more in messages:
        held.append(text)
        if not more:
            yield parsed("".join(held))
            held.clear()


def brief(document: Document) -> str:
    """Return the text of a document with as many of its last rounds as fit into a single answer."""
    room = BRIEF_LEDGER_CHARS
    ledger: list[Document] = []
    for line in reversed(document["ledger"][-BRIEF_ROUNDS:]):
        room -= len(_text(line))
        if room < 0:
            break
        ledger.insert(0, line)
    return _text({**document, "ledger": ledger})


def _text(document: Document) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
