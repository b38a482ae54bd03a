"""What a paper consists of, and how it becomes a page: plain words, tables, links, and places to be filled in by hand.

A page needs no other file, no script and no network. What comes from outside is escaped by the template engine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from fedcervix.printable import on_a_page

TEMPLATE = "paper.html.j2"
ADDRESS = re.compile(r"\b[\w.-]{1,60}:\d{1,5}\b")
"""HOST:PORT: people copy it from a page, so it stands on one line"""


@dataclass(frozen=True, slots=True)
class PaperCell:
    """One cell of a table: text, perhaps a link to a file of the dossier; without text, a place to be filled in."""

    text: str = ""
    link: str = ""


BLANK = PaperCell()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a paper."""

    heading: str
    words: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[PaperCell, ...], ...] = ()
    picture: str = ""
    """SVG of our own; its texts are escaped where it is drawn"""


@dataclass(frozen=True, slots=True)
class Paper:
    """One page."""

    file: str
    title: str
    lead: str
    sections: tuple[Section, ...]


def table(heading: str, head: Sequence[str], rows: Sequence[Sequence[str | PaperCell]], *words: str) -> Section:
    """Return a section with a table; a text stands for a cell of that text."""
    cells = tuple(tuple(one if isinstance(one, PaperCell) else PaperCell(one) for one in row) for row in rows)
    return Section(heading, words, tuple(head), cells)


def questions(heading: str, asked: Sequence[tuple[str, str]], *words: str) -> Section:
    """Return a section of questions with what is known; where nothing is, a place to be filled in."""
    return table(heading, ("question", "answer"), [(question, answer) for question, answer in asked], *words)


def page(paper: Paper, papers: Sequence[Paper], site: str) -> str:
    """Return a paper as HTML; `papers` are all, for the links between them."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=on_a_page
    )
    environment.filters["picture"] = Markup
    environment.filters["addresses_whole"] = _addresses_whole
    text = resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(text).render(paper=paper, papers=papers, site=site)


def _addresses_whole(text: str) -> Markup:
    """Return a text, escaped, whose addresses stand on one line each."""
    escaped = str(escape(on_a_page(text)))
    return Markup(ADDRESS.sub(r'<span class="whole">\g<0></span>', escaped))  # noqa: S704 - it is escaped
