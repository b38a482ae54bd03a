"""A document as one self-contained HTML page: no network, no script, no other file.

Everything that comes from outside is escaped here and by the template engine, and the page's own content security
policy forbids the browser to load anything.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from cervix_study.report.document import Document, Heading
from fedcervix.printable import printable_lines
from site_agent.report.page import style, template

MARKED = re.compile(r"\*\*(?P<bold>.+?)\*\*|`(?P<code>[^`\n]+)`")


def page(document: Document) -> str:
    """Return the text of report.html."""
    headings = [block.text for block in document.blocks if isinstance(block, Heading) and block.level == 2]
    made = template(__package__, words=words, anchor=anchor)
    return made.render(document=document, style=style(), headings=headings)


def words(text: str) -> Markup:
    """Return text as HTML: escaped, then `**bold**` and code set."""

    def mark(found: re.Match[str]) -> str:
        bold, code = found["bold"], found["code"]
        return f"<b>{bold}</b>" if bold is not None else f"<code>{code}</code>"

    return Markup(MARKED.sub(mark, str(escape(printable_lines(text)))))  # noqa: S704  (escaped just now; only our two marks are added)


def anchor(heading: str) -> str:
    """Return a heading's name within the page."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
