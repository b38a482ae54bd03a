r"""Text that is safe on a terminal and in a log: the one function that takes control characters out.

A control character in a message of the other side, in a file's name or in a library's error can erase a terminal, write
to its clipboard, or look like a line that this program has printed. Rules

1. Taken out are: C0, DEL and C1 (ESC, BEL and CSI are among them), all format characters (they turn the direction of
   writing, or are invisible), and the separators of lines and paragraphs. In their place stands `?`; a space for a line
   feed or a tab.
2. What the other side sends is cleaned on receipt (`fedcervix.codec.received`), and everything once more where it is
   printed (`fedcervix.printing`), logged (`fedcervix.log`) or stands on a page (`on_a_page`).
3. Half a surrogate pair stays: it is a byte of a file's name, and standard streams write it as `\udc9b`.
"""

from __future__ import annotations

import unicodedata
from typing import Any

TAKEN_OUT = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""categories of Unicode: control, format, line separator, paragraph separator"""
JOINERS = "\u200c\u200d"
"""format characters that Persian and the languages of India are written with; they move nothing"""
SPACES = "\t\n"


def printable(text: str, *, keep: str = "") -> str:
    """Return a text without control characters; those in `keep` stay. Its length is the same."""
    if text.isprintable():
        return text
    return "".join(letter if letter in keep else _printable(letter) for letter in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines without control characters but its line feeds."""
    return printable(text, keep="\n")


def printable_values(value: Any) -> Any:
    """Return a value that came out of JSON, or goes into a log: all texts in it are printable, keys included."""
    match value:
        case str():
            return printable(value)
        case dict():
            return {printable_values(key): printable_values(one) for key, one in value.items()}
        case list() | tuple():
            return [printable_values(one) for one in value]
        case _:
            return value


def on_a_page(value: Any) -> Any:
    """Return what a page shows of a value: a text without control characters. For `finalize` of a jinja environment.

    What is HTML already (Markup, a kind of str) was made of such texts, and stays as it is.
    """
    return printable_lines(value) if type(value) is str else value


def _printable(letter: str) -> str:
    if letter in JOINERS or unicodedata.category(letter) not in TAKEN_OUT:
        return letter
    return " " if letter in SPACES else "?"
