"""The questions of a study: the paper's claims, the study's own questions, and the rows that answer each.

A question is about starts as they would be used: of each start the variant that validation chose. Only a question about
N, E or width compares variants. If a site lacks the rows, the question is not asked there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cervix_study.analysis.result_rows import ResultRow, SiteRows
from cervix_study.evidence.paper import CLAIMS, Kind
from site_agent.starts import is_federated, is_ring

Pairs = list[tuple[ResultRow, ResultRow]]
Find = Callable[[SiteRows], Pairs]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One question; `better` asks whether the first row of a pair beats the second, `close` whether they are alike."""

    name: str
    kind: Kind
    quote: str
    """the paper's sentence; empty where the question is the study's own"""
    find: Find


FEDERATED = "federated"
"""stands for every federation"""
RING = "ring"
"""stands for every ring"""


def starts_of(bench: SiteRows, family: str) -> list[str]:
    """Return the starts that a name stands for, in the order of the tables."""
    there = list(dict.fromkeys(row.start for row in bench.rows))
    if family == FEDERATED:
        return [start for start in there if is_federated(start)]
    if family == RING:
        return [start for start in there if is_ring(start)]
    return [start for start in there if start == family]


def chosen(family: str, versus: str) -> Find:
    """Compare what validation chose of one family with what it chose of another."""

    def find(bench: SiteRows) -> Pairs:
        firsts = [bench.chosen(start) for start in starts_of(bench, family)]
        seconds = [bench.chosen(start) for start in starts_of(bench, versus)]
        return [(first, second) for first in firsts for second in seconds if first and second]

    return find


def variants(family: str, key: str, value: int) -> Find:
    """Compare the variants with `key` at `value` with those that differ from them in `key` alone."""

    def find(bench: SiteRows) -> Pairs:
        rows = [row for row in bench.rows if row.variant and row.start in starts_of(bench, family)]
        return [
            (first, second)
            for first in rows
            for second in rows
            if getattr(first.variant, key) == value and _differ_only_in(key, first, second)
        ]

    return find


def _differ_only_in(key: str, first: ResultRow, second: ResultRow) -> bool:
    names = ("start", "batch_images", "epochs_per_round", "width")
    return [name for name in names if getattr(first.variant, name) != getattr(second.variant, name)] == [key]


_FINDS: dict[str, Find] = {
    "ImageNet beats Random": chosen("imagenet", "random"),
    "SSL beats Random": chosen("ssl", "random"),
    "SSL beats ImageNet": chosen("ssl", "imagenet"),
    "CSSL beats SSL": chosen("cssl", "ssl"),
    "CSSL is best with N = 8": variants("cssl", "batch_images", 8),
    "federated beats SSL": chosen(FEDERATED, "ssl"),
    "the ring is as good as the server": chosen(RING, "csfssl"),
    "E = 1 is best": variants(FEDERATED, "epochs_per_round", 1),
    "the width hardly matters": variants("cssl", "width", 64),
}

OWN: tuple[Question, ...] = (
    Question("CSSL beats Random", "better", "", chosen("cssl", "random")),
    Question("federated beats Random", "better", "", chosen(FEDERATED, "random")),
    Question("federated is as good as pooled", "close", "", chosen(FEDERATED, "cssl")),
)
"""what a hospital would ask"""

QUESTIONS: tuple[Question, ...] = (
    *OWN,
    *(Question(claim.name, claim.kind, claim.quote, _FINDS[claim.name]) for claim in CLAIMS),
)


def asked(bench: SiteRows, questions: Sequence[Question] = QUESTIONS) -> list[tuple[Question, ResultRow, ResultRow]]:
    """Return every pair that some question compares at this site."""
    return [(question, first, second) for question in questions for first, second in question.find(bench)]
