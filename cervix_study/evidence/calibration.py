"""Whether eight of ten images with probability .8 are cases: reliability diagram, Brier score, ECE.

Brier, Verification of forecasts expressed in terms of probability, Mon Weather Rev 78:1 (1950): the mean of (p - y)^2.
Murphy, A new vector partition of the probability score, J Appl Meteorol 12:595 (1973): reliability - resolution +
uncertainty, over bins; Stephenson, Coelho and Jolliffe, Weather Forecast 23:752 (2008): what bins leave over, so that
the parts add up. Guo et al., On calibration of modern neural networks, ICML (2017): the expected calibration error,
here of the probability of case: the mean over images of |share of cases - mean probability| of their bin.

Bins: ten of equal width, [0, .1), [.1, .2), ..., [.9, 1]. With few images the ECE of a perfectly calibrated classifier
is well above 0, so it is read beside its interval and never alone.

A classifier trained with reverse class weights (section III-D) learns the probability of case in a population with as
many cases as controls. Where cases are rarer it says "case" too often, by construction and not by mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from site_agent.classifier.intervals import DISTANCE, RATE, WOMEN_MIN, Estimate
from site_agent.classifier.resampling import Draws, Floats, Roster, Scored, places_of

BINS = 10
TOO_FEW_IN_BIN = f"fewer than {WOMEN_MIN} test women in this bin"


@dataclass(frozen=True, slots=True)
class Bin:
    """The images whose probability lies in [low, high)."""

    low: float
    high: float
    images: int
    mean_probability: float
    share_of_cases: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a classifier's probabilities mean. `brier` is reliability - resolution + uncertainty + within."""

    images: int
    brier: Estimate
    ece: Estimate
    reliability: float
    """0 is best: bins say what happens"""
    resolution: float
    """higher is better: bins differ from one another"""
    uncertainty: float
    """share of cases times share of controls: what a constant probability would score"""
    within: float
    """what the bins blur"""
    bins: tuple[Bin, ...]
    """those that hold images"""


def calibration(trainings: Sequence[Scored], drawn: Draws) -> Calibration:
    """Return the calibration of a start, the images of all its seeds and folds taken together."""
    women = drawn.roster
    own = sum((_sums(scored, women) for scored in trainings), np.zeros((len(women.women), BINS, 4)))
    sums = np.tensordot(drawn.copies, own, axes=1)
    images, probability, cases, squares = np.moveaxis(sums, 2, 0)  # (1 + draws, BINS) each
    everyone = images.sum(axis=1)
    gap = np.abs(probability - cases).sum(axis=1) / everyone
    brier = squares.sum(axis=1) / everyone
    parts = murphy(images[0], probability[0], cases[0])
    return Calibration(
        images=int(everyone[0]),
        brier=drawn.estimate(brier, DISTANCE),
        ece=drawn.estimate(gap, DISTANCE),
        **parts,
        within=float(brier[0]) - parts["reliability"] + parts["resolution"] - parts["uncertainty"],
        bins=tuple(_bins(images, probability, cases, own[:, :, 0], drawn)),
    )


def _sums(scored: Scored, women: Roster) -> Floats:
    """Return (women, BINS, 4) of each woman: images, sum of probabilities, cases, sum of (p - y)^2."""
    case = scored.labels.astype(np.float64)
    values = np.stack([np.ones_like(case), scored.scores, case, (scored.scores - case) ** 2], axis=1)
    own = np.zeros((len(women.women), BINS, 4))
    np.add.at(own, (places_of(scored, women), bin_of(scored.scores)), values)
    return own


def bin_of(scores: Floats) -> NDArray[np.intp]:
    """Return each probability's bin; 1 lies in the last."""
    return np.minimum((scores * BINS).astype(np.intp), BINS - 1)


def murphy(images: Floats, probability: Floats, cases: Floats) -> dict[str, float]:
    """Return Murphy's three terms from sums by bin, (BINS,) each."""
    held = images > 0
    n, p, y = images[held], probability[held] / images[held], cases[held] / images[held]
    share = float(cases.sum() / images.sum())
    return {
        "reliability": float(np.sum(n * (p - y) ** 2) / n.sum()),
        "resolution": float(np.sum(n * (y - share) ** 2) / n.sum()),
        "uncertainty": share * (1 - share),
    }


def _bins(images: Floats, probability: Floats, cases: Floats, by_woman: Floats, drawn: Draws) -> Iterable[Bin]:
    """Yield the bins that hold images: sums of every draw (1 + draws, BINS), images of each woman (women, BINS)."""
    for place in np.flatnonzero(images[0] > 0):
        value = cases[0, place] / images[0, place]
        shares = np.full(len(images), value)  # a draw may hold none of the bin's women
        np.divide(cases[:, place], images[:, place], out=shares, where=images[:, place] > 0)
        few = np.count_nonzero(by_woman[:, place]) < WOMEN_MIN
        yield Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            images=int(images[0, place]),
            mean_probability=float(probability[0, place] / images[0, place]),
            share_of_cases=Estimate.alone(float(value), TOO_FEW_IN_BIN) if few else drawn.estimate(shares, RATE),
        )
