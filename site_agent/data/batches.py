"""Which images make which mini-batch: pure functions of counts, names and a seed.

Section III-D: "we randomly shuffle images during batch construction". The last, partial batch of an epoch is dropped
(every epoch shuffles anew, so no image is left out for ever); in scoring every image counts, so there it is kept.

Two images of one woman in a batch are false negatives of each other. With `avoid_same_patient` the shuffled images
are put in order woman by woman and dealt round the batches like cards, so that neighbours in that order never meet.
That keeps apart all images of every woman who has no more of them than there are full batches; a woman with more
meets herself as seldom as possible.

`runs` divides the images into runs, one behind the other, that no batch mixes: each is dealt by itself, as if it were
alone (so one that is shorter than a batch makes a batch of its own, of all its images), and the batches are shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from fedcervix.core.grouped import grouped
from fedcervix.core.seeds import derive
from fedcervix.errors import TrainingError

Indices = npt.NDArray[np.int64]


def batches(
    count: int,
    batch_images: int,
    seed: int,
    *,
    patients: Sequence[str] | None,
    avoid_same_patient: bool,
    runs: Sequence[int] = (),
) -> list[Indices]:
    """Return one shuffled epoch: full batches only, or one batch of all if there are fewer images than a batch.

    `patients[i]` is the woman of image i; None says that nobody knows. Raises TrainingError where no batch of two
    images can be made: without a negative there is nothing to contrast.
    """
    women = patients if avoid_same_patient else None
    if runs:
        return _deal_runs(count, batch_images, seed, women, runs)
    return _deal_full(count, batch_images, seed, women)


def _deal_full(count: int, batch_images: int, seed: int, women: Sequence[str] | None) -> list[Indices]:
    _check(count, batch_images)
    size = min(count, batch_images)
    return _deal(count, [size] * (count // size), seed, women)


def _deal_runs(
    count: int, batch_images: int, seed: int, women: Sequence[str] | None, runs: Sequence[int]
) -> list[Indices]:
    if sum(runs) != count:
        raise ValueError(f"runs of {tuple(runs)} images are not {count} images")
    found = []
    for number, (first, end) in enumerate(pairwise(accumulate(runs, initial=0))):
        whose = women[first:end] if women is not None else None
        dealt = _deal_full(end - first, batch_images, derive(seed, "run", number), whose)
        found += [chosen + first for chosen in dealt]
    return [found[k] for k in np.random.Generator(np.random.PCG64(seed)).permutation(len(found))]


def scoring_batches(
    count: int, batch_images: int, seed: int, *, patients: Sequence[str] | None, avoid_same_patient: bool
) -> list[Indices]:
    """Return every image exactly once, shuffled, the last batch partial; raises TrainingError as `batches` does.

    A lone last image joins another batch: by itself it would cost exactly 0 and flatter the model.
    """
    _check(count, batch_images)
    full, rest = divmod(count, batch_images)
    sizes = [batch_images] * full
    if rest == 1:
        sizes[0] += 1
    elif rest:
        sizes.append(rest)
    return _deal(count, sizes, seed, patients if avoid_same_patient else None)


def _check(count: int, batch_images: int) -> None:
    if batch_images < 2:
        raise TrainingError(
            f"a batch of {batch_images} image has nothing to contrast it with",
            cause="contrastive training compares the images of a batch with each other; batch_images is their number",
            next_step="set batch_images to 8, or to 2 at least",
        )
    if count < 2:
        raise TrainingError(
            f"contrastive learning needs at least two images; found {count}",
            cause="a part of the split is (almost) empty",
            next_step="add images to the manifest, or change its split",
        )


def _deal(count: int, sizes: list[int], seed: int, women: Sequence[str] | None) -> list[Indices]:
    """Share out a random choice of sum(sizes) of `count` images to batches of `sizes` (largest first)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    order = rng.permutation(count)[: sum(sizes)]
    if women is None:
        return np.split(order, np.cumsum(sizes)[:-1])
    order = _woman_by_woman(order, women)
    # One card to every batch, then a second to every batch that still has room, and so on.
    places = np.concatenate([np.flatnonzero(np.array(sizes) > card) for card in range(max(sizes))])
    return [order[places == batch] for batch in rng.permutation(len(sizes))]


def _woman_by_woman(order: Indices, women: Sequence[str]) -> Indices:
    """Bring the images of each woman together; women stand in the order of their first image."""
    images = grouped((women[image], int(image)) for image in order)
    return np.array([image for hers in images.values() for image in hers], dtype=np.int64)
