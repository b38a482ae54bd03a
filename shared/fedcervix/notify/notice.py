"""One message to people: what happened, what to do next. A value that checks itself, and its form on the wire.

Rules
1. The id names the thing that happened, not the message: run, number of the journal's entry, kind. The same thing told
   twice, also after a restart, has the same id, so that a receiver can drop the second one.
2. Nothing of a patient, no path. Words of a site are in quotes, in one line, short, and hold no character that a chat
   program, a terminal or a mail program could take for more than text (`foreign`, `without_paths`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from fedcervix.core.plan import check
from fedcervix.notify.settings import KINDS
from fedcervix.printable import printable, shortened

TEST = "test"
ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,199}")
"""stands in a header: nothing else may be in it"""
TITLE_CHARS_MAX = 150
TEXT_CHARS_MAX = 2000
FOREIGN_CHARS_MAX = 200
_FOREIGN_MARKS = " .,;:'()%=+-_"
"""what words of others may hold besides letters and digits of any script"""
LEFT_OUT = "(...)"
_BRACKETS = str.maketrans("[]{}", "()()")
_PATH = re.compile(r"\S*[/\\]\S*")


@dataclass(frozen=True, slots=True)
class Notice:
    """A message. `at`: when it happened, Unix seconds."""

    id: str
    kind: str
    at: float
    title: str
    text: str
    next_step: str
    federation: str
    run: str = ""
    site: str = ""

    def __post_init__(self) -> None:
        check(ID.fullmatch(self.id) is not None, "an id holds a-z, 0-9, points and hyphens")
        check(self.kind in (*KINDS, TEST), "not a kind of message")
        check(0 <= self.at <= 1e11, "at is no time")
        for words, most in ((self.title, TITLE_CHARS_MAX), (self.text, TEXT_CHARS_MAX), (self.next_step, 300)):
            check(len(words) <= most and printable(words) == words, "a message is printable, in one line, and short")

    @property
    def subject(self) -> str:
        """One line that names the federation."""
        return f"[{self.federation}] {self.title}"

    @property
    def words(self) -> str:
        """All of it, in a few lines."""
        about = "".join(f"{name}: {value}\n" for name, value in (("run", self.run), ("site", self.site)) if value)
        return f"{self.text}\n\nnext: {self.next_step}\n\n{about}when: {self.moment}\nid: {self.id}\n"

    @property
    def moment(self) -> str:
        """When it happened, in ISO 8601."""
        return f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%dT%H:%M:%SZ}"

    def body(self) -> bytes:
        """Return what a webhook is sent: type, time and data, as Standard Webhooks has it, and the words for a chat."""
        data = {
            "id": self.id,
            "federation": self.federation,
            "run": self.run,
            "site": self.site,
            "title": self.title,
            "text": self.text,
            "next": self.next_step,
        }
        whole = {
            "type": f"fedcervix.{self.kind}",
            "timestamp": self.moment,
            "text": f"{self.subject}\n{self.text}\nnext: {self.next_step}",
            "data": data,
        }
        return json.dumps(whole, allow_nan=False, ensure_ascii=True).encode()


def without_paths(words: str) -> str:
    """Return words in one line, with `LEFT_OUT` for every word that could be a path or an address."""
    return _PATH.sub(LEFT_OUT, printable(words))


def foreign(words: str) -> str:
    """Return what a site has said, to stand in a message: quoted, one line, without marks that mean something.

    It ends where a path begins: nobody knows where that ends, and it may hold a name.
    """
    plain, path, _ = without_paths(words[: 2 * FOREIGN_CHARS_MAX]).partition(LEFT_OUT)
    plain = plain.translate(_BRACKETS)
    safe = "".join(one if one.isalnum() or one in _FOREIGN_MARKS else "?" for one in plain)
    return f'"{shortened(" ".join((safe + path).split()), FOREIGN_CHARS_MAX)}"'


def cut(words: str) -> str:
    """Return a text that a message can hold."""
    return shortened(printable(words), TEXT_CHARS_MAX)
