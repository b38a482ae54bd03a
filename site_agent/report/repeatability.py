"""Which pictures of test women are pairs: two of one visit and one stage, one pair of each woman."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedcervix.core.grouped import grouped
from site_agent.classifier.agreement import PAIRS_MIN, Agreement, agreement
from site_agent.data.collection import Image

NO_COLUMNS = (
    "the manifest does not say which pictures of a woman are of one visit and one stage: give it the columns stage "
    "(native, acetic, green, iodine, other) and visit"
)
NO_PAIRS = "fewer than two test women have two pictures of one visit and one stage"


@dataclass(frozen=True, slots=True)
class Repeats:
    """How the classifier's scores of two such pictures agree; without pairs, why there are none."""

    agreement: Agreement | None
    pairs: tuple[tuple[float, float], ...] = ()
    """scores of the first and of the second picture, a pair of each woman"""
    why_not: str = ""


def pairs_of(images: Iterable[Image]) -> tuple[tuple[Image, Image], ...]:
    """Return a pair of each test woman: the first two pictures of her first visit and stage that has two."""
    said = ((image.woman, image) for image in images if image.split == "test" and image.visit and image.stage)
    return tuple(pair for own in grouped(said).values() if (pair := _pair(own)))


def _pair(own: Sequence[Image]) -> tuple[Image, Image] | None:
    sets = grouped(((image.visit, image.stage), image) for image in own).values()
    return next(((found[0], found[1]) for found in sets if len(found) > 1), None)


def repeats(scores: Sequence[tuple[float, float]], cuts: Sequence[float], *, said: bool) -> Repeats:
    """Return how pairs agree; `said`: whether the manifest names any stage and visit."""
    if len(scores) < PAIRS_MIN:
        return Repeats(None, why_not=NO_PAIRS if said else NO_COLUMNS)
    first, second = zip(*scores, strict=True)
    return Repeats(agreement(first, second, cuts), tuple(scores))
