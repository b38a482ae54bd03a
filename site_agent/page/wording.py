"""Text for the page. What an error says may quote the manifest or name a file, and a file may be called after a woman.

Rules
1. Words of errors pass through `scrub`, as those do that leave the site, with every word of the manifest as a secret.
2. A path below this home stays where its parts are names that this program gives; any other path goes.
3. The path of the home itself stays, because the next command needs it: whoever started the page has typed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from fedcervix.printable import printable, shortened
from site_agent.federation.privacy import scrub

Clean = Callable[[str], str]

WORDS_MAX = 400
TEXTS_MAX = 200
"""that are cleaned once"""
HOME_MARK = "homefolderofthissite"
"""stands for a path while a text is scrubbed: a plain word without a separator"""
BELOW = re.compile(
    r"/(?:blobs|cache|checkpoints|incidents|keys|lock|runs|secrets|untold)(?:/[A-Za-z0-9-]{1,80})*(?:\.(?:jsonl?|txt))?\b"
)
"""what this program names itself"""
OF_THE_COORDINATOR = re.compile(r'(the coordinator (?:refused:|says|advises) )"([^"]*)"')
"""what it says is quoted, and no quotation of this site's data"""
BELOW_FILES = ("/site.toml", "/splits.csv", "/egress.jsonl", "/account.json", "/sums.jsonl")


def cleaner(home: Path, secrets: Callable[[], frozenset[str]]) -> Clean:
    """Return what makes the words of an error fit for the page of this home.

    `secrets` reads the words that must not pass. It is called for each new text, and its words are not kept: those of a
    large collection are some 100 MB, and the same texts come again with each look.
    """
    folder = str(home)
    path = re.compile(re.escape(folder) + rf"(?P<below>{BELOW.pattern}|{'|'.join(map(re.escape, BELOW_FILES))})?")

    @lru_cache(maxsize=TEXTS_MAX)
    def clean(text: str) -> str:
        kept: list[str] = []

        def mark(found: re.Match[str]) -> str:
            kept.append(found[0])
            return f"{HOME_MARK}{_letters(len(kept) - 1)}"

        marked = path.sub(mark, OF_THE_COORDINATOR.sub(r"\1\2", printable(text)))
        cleaned = scrub(marked, secrets() - set(home.parts)) if text else ""
        for number, one in enumerate(kept):
            cleaned = cleaned.replace(f"{HOME_MARK}{_letters(number)}", one)
        return cleaned

    return clean


def plain(text: str) -> str:
    """Return a text of the coordinator, which knows no woman, for a page: in short, without control characters."""
    return shortened(printable(text), WORDS_MAX)


def _letters(number: int) -> str:
    """Return a number in letters, so that no rule on digits finds it: 0 is `qaq`, 27 is `qchq`."""
    return "q" + "".join(chr(ord("a") + int(digit)) for digit in str(number)) + "q"
