"""A document as one self-contained HTML page: no network, no script, no other file.

Everything that comes from outside is escaped here and by the template engine, and the page's own content security
policy forbids the browser to load anything.
"""

from __future__ import annotations

import re
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from cervix_study.report.document import Block, Document, Heading
from fedcervix.printable import on_a_page, printable_lines
from site_agent.report.page import style

TEMPLATE = "page.html.j2"
MARKED = re.compile(r"\*\*(?P<bold>.+?)\*\*|`(?P<code>[^`\n]+)`")


def page(document: Document) -> str:
    """Return the text of report.html."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=on_a_page,
    )
    environment.filters.update(words=words, anchor=anchor)
    environment.globals.update(kind_of=kind_of)
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    headings = [block.text for block in document.blocks if isinstance(block, Heading) and block.level == 2]
    return template.render(document=document, style=style(), headings=headings)


def kind_of(block: Block) -> str:
    """Return what a block is."""
    return type(block).__name__


def words(text: str) -> Markup:
    """Return text as HTML: escaped, then `**bold**` and code set."""

    def mark(found: re.Match[str]) -> str:
        bold, code = found["bold"], found["code"]
        return f"<b>{bold}</b>" if bold is not None else f"<code>{code}</code>"

    return Markup(MARKED.sub(mark, str(escape(printable_lines(text)))))  # noqa: S704  (escaped just now; only our two marks are added)


def anchor(heading: str) -> str:
    """Return a heading's name within the page."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
