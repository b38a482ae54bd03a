"""The labels that a classifier learns from: all labels, those of a nested share of the women, or shuffled ones.

Rules
1. Shares are drawn by woman, cases and controls separately, and nested: a woman in 1 % is also in 10 %. There is always
   at least one woman of each class. All validation women are always used, so early stopping and choices are the same at
   every share.
2. Shuffled labels are exchanged between women, within training and within validation. So there are as many cases as
   before, but without any relation to the images. Test labels stay true.

Pure: values in, values out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedcervix.core.seeds import derive
from site_agent.data import pixel_arrays
from site_agent.data.image_sets import Labelled

Labels = npt.NDArray[np.int64]


def share_of(labelled: Labelled, fraction: float, seed: int) -> Labelled:
    """Return the images of the first women, in an order drawn from `seed`: `fraction` of the cases, of the controls."""
    if fraction == 1.0:
        return labelled
    taken = women_in(labelled.patients, labelled.labels, fraction, seed)
    rows = [row for row, woman in enumerate(labelled.patients) if woman in taken]
    patients = tuple(labelled.patients[row] for row in rows)
    ranks = None if labelled.ranks is None else labelled.ranks[rows]
    pixels = pixel_arrays.selected(labelled.pixels, rows)
    return Labelled(pixels, labelled.labels[rows], patients, ranks=ranks, classes=labelled.classes)


def women_in(patients: Sequence[str], labels: Labels, fraction: float, seed: int) -> set[str]:
    """Return the women of a share (rule 1)."""
    disease = _women(patients, labels)
    taken: set[str] = set()
    for ill in (0, 1):
        women = sorted(woman for woman, found in disease.items() if found == ill)
        order = np.random.default_rng(derive(seed, "study-label-share", ill)).permutation(len(women))
        taken |= {women[place] for place in order[: math.ceil(fraction * len(women))]}
    return taken


def shuffled(labelled: Labelled, seed: int, part: str) -> Labelled:
    """Return the images with the labels of other women (rule 2)."""
    disease = _women(labelled.patients, labelled.grades)
    women = sorted(disease)
    order = np.random.default_rng(derive(seed, "study-shuffled-labels", part)).permutation(len(women))
    given = {woman: disease[women[place]] for woman, place in zip(women, order, strict=True)}
    grades = np.array([given[woman] for woman in labelled.patients], np.int64)
    labels, ranks = (grades >= labelled.classes.cut).astype(np.int64), grades if labelled.classes.ordered else None
    return Labelled(labelled.pixels, labels, labelled.patients, ranks=ranks, classes=labelled.classes)


def _women(patients: Sequence[str], labels: Labels) -> dict[str, int]:
    """Return woman -> the most severe label of her images: 1 where any of them is labelled case."""
    found: dict[str, int] = {}
    for woman, label in zip(patients, labels.tolist(), strict=True):
        found[woman] = max(label, found.get(woman, 0))
    return found
