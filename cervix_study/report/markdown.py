"""A document as Markdown (GitHub's tables), with the words and numbers of the page and without its pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cervix_study.report.document import (
    Block,
    Bullets,
    Code,
    Details,
    Document,
    Figures,
    Glossary,
    Heading,
    Table,
    TableCell,
    Text,
)
from fedcervix.printable import printable_lines

CODE = re.compile(r"(`[^`\n]+`)")
SPECIAL = re.compile(r"([\\<>\[\]#_~|])")


def markdown(document: Document) -> str:
    """Return the text of report.md."""
    facts = " · ".join(words(fact) for fact in document.facts)
    answer = [
        f"> {words(document.answer.question)}",
        ">",
        f"> **{words(document.answer.headline)}**",
    ]
    inner = "\n".join(_blocks(document.answer.blocks)).strip()
    answer += [">", *(f"> {line}".rstrip() for line in inner.splitlines())]
    parts = [f"# {words(document.title)}", "", facts, "", words(document.notice), "", *answer, ""]
    parts += [*_blocks(document.blocks), "---", "", words(document.footer), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


def blocks_text(blocks: Iterable[Block]) -> str:
    """Return some blocks as a text of their own."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_blocks(blocks))).strip() + "\n"


def words(text: str) -> str:
    """Return text with what Markdown would take for markup made plain; `**bold**` and code stay."""
    parts = CODE.split(printable_lines(text))
    return "".join(part if place % 2 else SPECIAL.sub(r"\\\1", part) for place, part in enumerate(parts))


def _blocks(blocks: Iterable[Block]) -> Iterable[str]:
    for block in blocks:
        yield from _block(block)
        yield ""


def _block(block: Block) -> Iterable[str]:
    match block:
        case Heading():
            yield f"{'#' * block.level} {words(block.text)}"
        case Text():
            yield words(block.text)
        case Bullets():
            yield from (f"- {words(item)}" for item in block.items)
        case Glossary():
            yield from (f"- **{words(term)}**: {words(meaning)}" for term, meaning in block.items)
        case Table():
            yield from _table(block)
        case Figures():
            yield from (f"*(drawn in report.html)* {words(picture.caption)}\n" for picture in block.pictures)
        case Code():
            yield from ("```text", block.text.rstrip(), "```")
        case Details():
            yield f"**{words(block.summary)}**"
            yield ""
            yield from _blocks(block.blocks)


def _table(table: Table) -> Iterable[str]:
    heads = [
        f"{words(column.text)} ({words(column.small)})" if column.small else words(column.text)
        for column in table.columns
    ]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join(' :-- ' if column.left else ' --: ' for column in table.columns)}|"
    for number, row in enumerate(table.rows):
        yield f"| {' | '.join(_cell(cell, bold=number in table.strong) for cell in row)} |"


def _cell(cell: TableCell, *, bold: bool) -> str:
    text = words(cell.text)
    main = f"**{text}**" if bold and text else text
    return " ".join([main, *(f"({words(line)})" for line in cell.small)]).replace("\n", " ")
