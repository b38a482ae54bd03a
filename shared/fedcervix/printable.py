r"""Makes text safe for a terminal and a log: control characters are removed only here.

A control character in a message of the other side, in a file's name or in a library's error can erase a terminal, write
to its clipboard, or look like a line that this program has printed. Rules

1. Taken out are: C0, DEL and C1 (ESC, BEL and CSI are among them), all format characters (they change the writing
   direction, or are invisible), and the separators of lines and paragraphs. They are replaced by `?`; a line feed or a
   tab by a space.
2. What the other side sends is cleaned on receipt (`fedcervix.transport.codec.received`), and everything once more
   where it is printed (`fedcervix.runtime.printing`), logged (`fedcervix.runtime.log`) or stands on a page
   (`on_a_page`).
3. Half a surrogate pair stays: it is a byte of a file's name, and standard streams write it as `\udc9b`.
4. A short text in a table has no character of unknown width either (`in_columns`).
5. Text of the other side is quoted in short form (`quoted`): of a long text, its beginning and its length.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_TAKEN_OUT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
"""Unicode's categories Cc, Cf, Zl and Zp without tab and line feed, and without U+200C and U+200D: Persian and the
languages of India are written with them. A pattern, because a hostile text of 3.5 MB then costs .4 s, not 1.7 s"""


QUOTED_CHARS_MAX = 200
"""of a value that an error, a log line or an answer quotes"""


def shortened(text: str, chars_max: int) -> str:
    """Return a text of at most so many characters: its beginning, and how long it is."""
    if len(text) <= chars_max:
        return text
    more = f"... ({len(text):,} characters)"
    return text[: max(0, chars_max - len(more))] + more


def quoted(value: object) -> str:
    """Return what an error says of a value that was found: as Python writes it, in short."""
    if isinstance(value, str | bytes):
        value = value[: QUOTED_CHARS_MAX + 1]
    return shortened(repr(value), QUOTED_CHARS_MAX)


def printable(text: str) -> str:
    """Return a text of one line without control characters. Its length is the same."""
    return text if text.isprintable() else printable_lines(text).replace("\n", " ")


def printable_lines(text: str) -> str:
    """Return a text of several lines without control characters but its line feeds. Its length is the same."""
    return text if text.isprintable() else _TAKEN_OUT.sub("?", text).replace("\t", " ")


def in_columns(text: str) -> str:
    """Return a short text for a table, printable. Its length is the same.

    What Unicode has not assigned, or leaves to whoever uses it, has no width that terminals agree on: it is a `?`, too.
    """
    return "".join("?" if unicodedata.category(letter) in ("Cn", "Co") else letter for letter in printable(text))


def printable_values(value: Any) -> Any:
    """Return a value that came out of JSON, or goes into a log: all texts in it are printable, keys included.

    An object that is no value of JSON becomes its own words.
    """
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {printable_values(key): printable_values(one) for key, one in value.items()}
        case list() | tuple():
            return [printable_values(one) for one in value]
        case _:
            return printable(str(value))


def on_a_page(value: Any) -> Any:
    """Return what a page shows of a value: a text without control characters. For `finalize` of a jinja environment.

    What is HTML already (Markup, a kind of str) was made of such texts, and stays as it is.
    """
    return printable_lines(value) if type(value) is str else value
