"""Alarms: what is unusual about a site in a round, for a person to look at.

An alarm changes nothing: it excludes nobody, and no decision of the run depends on it. It is no event: alarms are
functions of the ledger, so a replayed journal raises the same ones. What raises them:
`coordinator/alarms/alarm_sources.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedcervix.core.plan import SITE_NAME, check

WHAT = re.compile(r"[a-z]+(?:-[a-z]+)*")
WHAT_CHARS_MAX = 40
WORDS_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something unusual about one site in one round."""

    site: str
    round: int
    what: str
    """the kind of alarm, for programs: lower-case words joined by hyphens, such as `norm`"""
    words: str
    """what was found and what would be usual, with figures, for people; one sentence without a full stop"""

    def __post_init__(self) -> None:
        check(SITE_NAME.fullmatch(self.site) is not None, f"not a site name: {self.site!r}")
        check(self.round >= 1, f"an alarm's round is 1 or more; found {self.round}")
        check(WHAT.fullmatch(self.what) is not None and len(self.what) <= WHAT_CHARS_MAX, f"not a kind: {self.what!r}")
        check(self.words.isprintable(), "an alarm's words are one printable line")
        check(0 < len(self.words) <= WORDS_CHARS_MAX, f"an alarm's words have 1 to {WORDS_CHARS_MAX} characters")

    def __str__(self) -> str:
        return f"round {self.round}, {self.site}: {self.words}"
