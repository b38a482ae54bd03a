"""Which images make which mini-batch: pure functions of counts, names and a seed.

Section III-D: "we randomly shuffle images during batch construction". The last, partial batch of an epoch is dropped
(every epoch shuffles anew, so no image is left out for ever); in scoring every image counts, so there it is kept.

Two images of one woman in a batch are false negatives of each other. With `avoid_same_patient` the shuffled images
are put in order woman by woman and dealt round the batches like cards, so that neighbours in that order never meet.
That keeps apart all images of every woman who has no more of them than there are full batches; a woman with more
meets herself as seldom as possible.

`parts` divides the images into runs, one behind the other, that no batch mixes: each is dealt by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from fedcervix.errors import TrainingError
from fedcervix.seeds import derive

Indices = npt.NDArray[np.int64]


def batches(
    count: int,
    batch_images: int,
    seed: int,
    *,
    patients: Sequence[str] | None,
    avoid_same_patient: bool,
    parts: Sequence[int] = (),
) -> list[Indices]:
    """Return one shuffled epoch: full batches only, or one batch of all if there are fewer images than a batch.

    `patients[i]` is the woman of image i; None says that nobody knows. Raises TrainingError where no batch of two
    images can be made: without a negative there is nothing to contrast.
    """
    women = patients if avoid_same_patient else None
    return _each(parts or (count,), seed, women, lambda images: _full(images, batch_images))


def _full(count: int, batch_images: int) -> list[int]:
    _check(count, batch_images)
    size = min(count, batch_images)
    return [size] * (count // size)


def scoring_batches(
    count: int,
    batch_images: int,
    seed: int,
    *,
    patients: Sequence[str] | None,
    avoid_same_patient: bool,
    parts: Sequence[int] = (),
) -> list[Indices]:
    """Return every image exactly once, shuffled, the last batch partial; raises TrainingError as `batches` does.

    A lone last image joins another batch: by itself it would cost exactly 0 and flatter the model.
    """
    women = patients if avoid_same_patient else None
    return _each(parts or (count,), seed, women, lambda images: _all(images, batch_images))


def _all(count: int, batch_images: int) -> list[int]:
    _check(count, batch_images)
    full, rest = divmod(count, batch_images)
    sizes = [batch_images] * full
    if rest == 1:
        sizes[0] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def _check(count: int, batch_images: int) -> None:
    if batch_images < 2:
        raise TrainingError(
            f"a batch of {batch_images} image has nothing to contrast it with",
            cause="batch_images is the paper's N, the number of images that are told apart",
            next_step="set batch_images to 8, or to 2 at least",
        )
    if count < 2:
        raise TrainingError(
            f"contrastive learning needs at least two images; found {count}",
            cause="a part of the split is (almost) empty",
            next_step="add images to the manifest, or change its split",
        )


def _each(
    parts: Sequence[int], seed: int, women: Sequence[str] | None, sizes: Callable[[int], list[int]]
) -> list[Indices]:
    """Deal each part to batches of its own; the batches of several are shuffled."""
    if len(parts) == 1:
        return _deal(parts[0], sizes(parts[0]), seed, women)
    found = []
    for first, end in pairwise(accumulate(parts, initial=0)):
        whose = women[first:end] if women is not None else None
        dealt = _deal(end - first, sizes(end - first), derive(seed, "part", first), whose)
        found += [chosen + first for chosen in dealt]
    return [found[k] for k in np.random.Generator(np.random.PCG64(seed)).permutation(len(found))]


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
    images: dict[str, list[int]] = {}
    for image in order:
        images.setdefault(women[image], []).append(int(image))
    return np.array([image for hers in images.values() for image in hers], dtype=np.int64)
