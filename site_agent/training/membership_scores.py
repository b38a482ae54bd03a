"""How well a score tells training women from others: AUC, share found at 1 % false alarms, bootstrap by woman.

A woman has one score, the mean of her images'. Draws take women, training women and others apart; the interval holds
the percentiles of the draws (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from site_agent.store.audit_sheets import DECISIVE, FALSE_ALARMS, Attack

Floats = NDArray[np.float64]

DRAWS = 4000
LEVEL = 1 - 0.05 / len(DECISIVE)
"""of one interval (see `audit_sheets`)"""


def by_woman(scores: Floats, women: Sequence[str]) -> dict[str, float]:
    """Return the mean score of each woman: `scores` (n,) of the images, whose they are."""
    names, place = np.unique(np.asarray(women), return_inverse=True)
    means = np.bincount(place, scores) / np.bincount(place)
    return dict(zip(names.tolist(), means.tolist(), strict=True))


def attack(name: str, members: Floats, others: Floats, seed: int) -> Attack:
    """Return what an attack tells: scores (m,) of training women and (n,) of others, higher for who was trained on.

    Raises ValueError where a score is not finite.
    """
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        raise ValueError("a score is not a finite number")
    rng = np.random.default_rng(seed)
    drawn_members, drawn_others = (_drawn(len(side), rng) for side in (members, others))
    auc = _aucs(members, others, drawn_members, drawn_others)
    found = _found(members[drawn_members], others[drawn_others])
    return Attack(
        name=name,
        auc=float(auc[0]),
        auc_low=_end(auc, (1 - LEVEL) / 2),
        auc_high=_end(auc, (1 + LEVEL) / 2),
        found=float(found[0]),
        found_low=_end(found, (1 - LEVEL) / 2),
        found_high=_end(found, (1 + LEVEL) / 2),
    )


def _drawn(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (1 + DRAWS, count) places of women; entry 0 is the women as they are."""
    return np.concatenate([np.arange(count)[None], rng.integers(0, count, (DRAWS, count))])


def _aucs(members: Floats, others: Floats, *drawn: NDArray[np.int64]) -> Floats:
    """Return the share of pairs in which the training woman has the higher score, ties counting half, of each draw."""
    wins = np.sign(members[:, None] - others[None]) / 2 + 0.5  # (m, n)
    copies = [_copies(places) for places in drawn]
    pairs = np.einsum("dm,mn,dn->d", copies[0], wins, copies[1], optimize=True)
    return np.asarray(pairs / (len(members) * len(others)))


def _copies(places: NDArray[np.int64]) -> Floats:
    """Return how often each woman is in each draw."""
    draws, women = places.shape
    flat = places + women * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * women).reshape(draws, women).astype(np.float64)


def _found(members: Floats, others: Floats) -> Floats:
    """Return, of each draw (d, m) and (d, n), the share of members above all but 1 % of the others."""
    count = others.shape[1]
    threshold = np.sort(others, axis=1)[:, count - 1 - math.floor(FALSE_ALARMS * count)]
    return np.asarray((members > threshold[:, None]).mean(axis=1))


def _end(draws: Floats, share: float) -> float:
    return float(np.quantile(draws[1:], share))
