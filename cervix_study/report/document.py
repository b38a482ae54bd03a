"""A report as a list of blocks: written as HTML and as Markdown from the same values, so that the two agree.

Words may hold `**bold**` and `` `code` ``; everything else in them is text, whatever it looks like.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from site_agent.classifier.intervals import Tone


@dataclass(frozen=True, slots=True)
class Heading:
    """A section (level 2) or a part of one (level 3)."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    quiet: bool = False
    """small print"""


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Glossary:
    """Words and what they mean."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head, and how its cells lie."""

    text: str
    small: str = ""
    left: bool = False
    wrap: bool = False
    """long words may be broken"""


@dataclass(frozen=True, slots=True)
class TableCell:
    """What stands in a row, with small print below it."""

    text: str
    small: tuple[str, ...] = ()
    verdict: str = ""
    """better, close, worse, not shown: coloured, and said in words"""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; the first cell of a row is its head."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    label: str
    """what the table holds, for those who hear the page"""
    strong: frozenset[int] = frozenset()
    """rows that are set off"""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.label}: a row has {len(row)} cells, the table {len(self.columns)} columns")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as a data URI."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures side by side where the window is wide."""

    pictures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Text as it stands in a file."""

    text: str


@dataclass(frozen=True, slots=True)
class Details:
    """What opens when it is asked for."""

    summary: str
    blocks: tuple[Block, ...]
    open: bool = False


Block = Heading | Text | Bullets | Glossary | Table | Figures | Code | Details


@dataclass(frozen=True, slots=True)
class Summary:
    """What the page says first."""

    tone: Tone
    question: str
    headline: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    facts: tuple[str, ...]
    notice: str
    answer: Summary
    blocks: tuple[Block, ...]
    footer: str


def left(text: str, small: str = "") -> Column:
    """Return a column of words."""
    return Column(text, small, left=True)


def columns(*heads: str | Column) -> tuple[Column, ...]:
    """Return the heads of a table: text stands for a column of numbers, but for the first one, which names the row."""
    first, *others = (head if isinstance(head, Column) else Column(head) for head in heads)
    return (dataclasses.replace(first, left=True), *others)


def cells(*texts: str | TableCell) -> tuple[TableCell, ...]:
    """Return a row, text standing for a cell without small print."""
    return tuple(text if isinstance(text, TableCell) else TableCell(text) for text in texts)
