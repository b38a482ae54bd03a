"""Whether eight of ten images with probability .8 are cases: reliability diagram, Brier score, ECE.

Brier, Verification of forecasts expressed in terms of probability, Mon Weather Rev 78:1 (1950): the mean of (p - y)^2.
Murphy, A new vector partition of the probability score, J Appl Meteorol 12:595 (1973): reliability - resolution +
uncertainty, over bins; Stephenson, Coelho and Jolliffe, Weather Forecast 23:752 (2008): what bins leave over, so that
the parts add up. Guo et al., On calibration of modern neural networks, ICML (2017): the expected calibration error,
here of the probability of case: the mean over images of |share of cases - mean probability| of their bin.

Bins: ten of equal width, [0, .1), [.1, .2), ..., [.9, 1]. With few images the ECE of a perfectly calibrated classifier
is well above 0: chance alone moves a bin's share of cases. An interval around it would not hold the true value, so
there is none. Beside it stands about what it would be if the probabilities were right (`ece_by_chance`): of a bin, the
mean of |N(0, v)|, v the variance of its number of cases if each woman is a case with the mean p of her images there.

A classifier trained with reverse class weights (section III-D) learns the probability of case in a population with as
many cases as controls. Where cases are rarer it says "case" too often, by construction and not by mistake.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.grouped import grouped
from site_agent.classifier.by_woman import Roster, Scored, Trials, joined, ratio
from site_agent.classifier.intervals import SHARE, WOMEN_MIN, Estimate, Floats

BINS = 10
TOO_FEW_IN_BIN = f"fewer than {WOMEN_MIN} test women in this bin"
SEEDS_IN_BIN = "several trainings are taken together in this bin"


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
    ece: float
    ece_by_chance: float
    """about what the ECE of these images would be if the probabilities were right"""
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


def calibration(trials: Trials, women: Roster) -> Calibration:
    """Return the calibration of a start, the images of all its seeds and folds taken together.

    The Brier score is the mean over seeds, as every number. With several seeds a bin holds other images in each, so its
    share has no interval: nothing says how far it would move with other trainings.
    """
    by_seed = [
        sum((_sums(scored, women) for scored in own), np.zeros((len(women.women), BINS, 4)))
        for own in grouped((part.seed, scored) for part, scored in sorted(trials.items())).values()
    ]
    images, probability, cases, _ = np.moveaxis(np.sum(by_seed, axis=0), 2, 0)  # (women, BINS) each
    everyone = images.sum()
    brier = joined([ratio(own[:, :, 3].sum(axis=1), own[:, :, 0].sum(axis=1)) for own in by_seed])
    parts = murphy(images.sum(axis=0), probability.sum(axis=0), cases.sum(axis=0))
    return Calibration(
        images=int(everyone),
        brier=brier.estimate(women, SHARE),
        ece=float(np.abs((probability - cases).sum(axis=0)).sum() / everyone),
        ece_by_chance=_by_chance(images, probability) / float(everyone),
        **parts,
        within=brier.value - parts["reliability"] + parts["resolution"] - parts["uncertainty"],
        bins=tuple(_bins(images, probability, cases, women)),
    )


def _by_chance(images: Floats, probability: Floats) -> float:
    """Return the mean of sum over bins of |sum of p - y| if every woman in a bin is a case with her mean p."""
    p = np.divide(probability, images, out=np.zeros_like(images), where=images > 0)
    deviations = np.sqrt(np.sum(images**2 * p * (1 - p), axis=0))
    return float(np.sqrt(2 / np.pi) * deviations.sum())


def _sums(scored: Scored, women: Roster) -> Floats:
    """Return (women, BINS, 4) of each woman: images, sum of probabilities, cases, sum of (p - y)^2."""
    case = scored.labels.astype(np.float64)
    values = np.stack([np.ones_like(case), scored.scores, case, (scored.scores - case) ** 2], axis=1)
    in_bin = np.eye(BINS)[bin_of(scored.scores)]
    return np.asarray(np.einsum("nw,nb,nv->wbv", women.columns(scored), in_bin, values))


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


def _bins(images: Floats, probability: Floats, cases: Floats, women: Roster) -> Iterable[Bin]:
    """Yield the bins that hold images, of each woman's sums (women, BINS)."""
    for place in np.flatnonzero(images.sum(axis=0)):
        share = ratio(cases[:, place], images[:, place])
        few = TOO_FEW_IN_BIN if np.count_nonzero(images[:, place]) < WOMEN_MIN else ""
        why = few or (SEEDS_IN_BIN if len(women.seeds) > 1 else "")
        yield Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            images=int(images[:, place].sum()),
            mean_probability=float(probability[:, place].sum() / images[:, place].sum()),
            share_of_cases=Estimate.alone(share.value, why) if why else share.estimate(women, SHARE),
        )
