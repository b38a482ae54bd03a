"""Reliability: how many of the test images with a probability near .8 are images of cases.

The classifier's probabilities are shown as they are; nothing is fitted here. A calibration would have to be chosen on
validation images, of which a site often has a few dozen women: too few to fit one and to know that it holds. It would
also move the published threshold of .5 away from what the paper measured.

Source: the reliability diagram of Murphy and Winkler, J Roy Stat Soc C 26:41 (1977), as a table of counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from site_agent.report.predictions import ScoredImage

EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""of the groups of probabilities; a group holds its lower edge"""


@dataclass(frozen=True, slots=True)
class Reliability:
    """The test images whose probability of case lies in one group."""

    low: float
    high: float
    images: int
    women: int
    mean: float | None
    """mean probability; None in a group without images"""
    cases: int
    """images of cases"""


def reliability(images: Sequence[ScoredImage], scores: NDArray[np.float64]) -> tuple[Reliability, ...]:
    """Return the groups of probabilities in ascending order: scores (n,) of the images, each from 0 to 1."""
    group = np.minimum(np.searchsorted(EDGES, scores, side="right") - 1, len(EDGES) - 2)  # 1.0 is in the last group
    return tuple(_group(number, images, scores, np.flatnonzero(group == number)) for number in range(len(EDGES) - 1))


def _group(
    number: int, images: Sequence[ScoredImage], scores: NDArray[np.float64], rows: NDArray[np.intp]
) -> Reliability:
    own = [images[row] for row in rows]
    return Reliability(
        low=EDGES[number],
        high=EDGES[number + 1],
        images=len(own),
        women=len({image.woman for image in own}),
        mean=float(scores[rows].mean()) if own else None,
        cases=sum(image.label for image in own),
    )
