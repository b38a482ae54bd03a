"""Which pictures are the same, and what follows from it.

Two pictures are identical if their decoded pixels are. They are *alike* if one photograph was saved twice: compressed,
resized or slightly cropped again it has another digest, but it is the same picture of the same woman, and under two
identifiers it would cross from training to test unseen.

Rules
1. Identical pictures are used once: a copy would be its own negative. Of the copies one that has a label is used.
2. One picture under several patients is a shared picture: these patients are one woman. Alike pictures are looked for
   between patients only; a woman's own photographs are naturally alike.
3. A picture that is labelled case in one place and control in another has no label: its labels are disputed.
4. A picture that shows nothing (black, white, a flat grey) is a picture of nobody: it links no patients.
5. A pair that the site declares to be of two women (`not_same`) links nobody, unless its pixels are identical.

Likeness is the highest correlation of a thumbnail of one picture with one of the other: of the scene, of the scene
without a little of every side (`thumbnails.CROPS`), and of the scene turned and mirrored into a position of its own
(`_upright`). On 1316 photographs of public atlases: compressed anew or halved .999, brightened by a fifth .97; two
women .82 at most, in a dark surround as well (docs/decisions.md, 18). On 80 of them, cropped by 1 to 5 % at every side:
.96 and more. So .96 finds one photograph saved twice, and not one scene photographed twice. A copy that was both
cropped and turned is not found. A wrong match costs little (two women share a split); a missed one spoils the test
score.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcervix.core.grouped import grouped
from fedcervix.errors import DataError
from site_agent.data.not_same import Pair
from site_agent.images.decode import OnCount, silent
from site_agent.images.thumbnails import THUMBNAIL_PX

ALIKE_FROM = 0.96
"""correlation of two thumbnails from which on two pictures count as one"""
PAIRS_MAX = 100_000
_BLOCK = 1024
"""pictures that are compared with as many others at a time: 30 MB"""

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """One readable image: what the manifest says of it and what its pixels show."""

    image: str
    patient: str
    label: int | None
    digest: str
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """An image that is set aside because `of` has the same pixels."""

    image: str
    of: str


@dataclass(frozen=True, slots=True)
class CrossPatientPicture:
    """One picture under several patients: identical pixels, or nearly the same picture saved twice."""

    digest: str
    """of the first image"""
    patients: tuple[str, ...]
    images: tuple[str, ...]
    identical: bool
    conflicting: bool
    """labelled case in one place and control in another"""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What comparing all pictures with each other showed."""

    used: tuple[IndexedImage, ...]
    copies: tuple[Copy, ...]
    shared_pictures: tuple[CrossPatientPicture, ...]
    conflicting_label: frozenset[str]
    """images whose label is dropped"""
    told_apart: tuple[CrossPatientPicture, ...] = ()
    """alike, but declared to be of two women"""
    without_effect: tuple[str, ...] = ()
    """declared pairs that change nothing, and why"""

    @property
    def links(self) -> list[tuple[str, str]]:
        """Pairs of patients who share a picture."""
        return [pair for shared in self.shared_pictures for pair in itertools.pairwise(shared.patients)]


def find_duplicates(
    seen: Sequence[IndexedImage], on_progress: OnCount = silent, declared: frozenset[Pair] = frozenset()
) -> Duplicates:
    """Find copies, shared pictures and disputed labels. `used` and `copies` keep the order of `seen`.

    `declared` are pairs of images that show two women. All copies of an image are declared with it.
    """
    same = grouped((one.digest, one) for one in seen)
    kept = {digest: min(group, key=lambda one: one.label is None) for digest, group in same.items()}
    used = tuple(one for one in seen if kept[one.digest] is one)
    copies = tuple(Copy(one.image, kept[one.digest].image) for one in seen if kept[one.digest] is not one)
    pictures = {one.image: one.digest for one in seen}
    apart = {_pictures(pair, pictures) for pair in declared}
    alike_ones = [(shared, _pictures(shared.images, pictures) in apart) for shared in _alike(used, on_progress)]
    told_apart = tuple(shared for shared, declared_so in alike_ones if declared_so)
    shared_pictures = (*_identical(same.values()), *(shared for shared, declared_so in alike_ones if not declared_so))
    disputed = {one.image for group in same.values() if _conflicting(group) for one in group}
    disputed |= {image for shared in shared_pictures if shared.conflicting for image in shared.images}
    without_effect = tuple(_without_effect(declared, pictures, told_apart))
    return Duplicates(used, copies, shared_pictures, frozenset(disputed), told_apart, without_effect)


def near_duplicates(
    thumbnails: Sequence[bytes], patients: Sequence[str], on_progress: OnCount = silent
) -> tuple[tuple[int, int], ...]:
    """Return the pairs (i, j), i < j, of pictures of different patients that are nearly the same.

    Empty thumbnails are like nothing. Raises DataError above PAIRS_MAX pairs: those are not photographs of women.
    """
    return tuple((i, j) for i, j, _ in likenesses(thumbnails, patients, ALIKE_FROM, on_progress))


def likenesses(
    thumbnails: Sequence[bytes], patients: Sequence[str], at_least: float, on_progress: OnCount = silent
) -> tuple[tuple[int, int, float], ...]:
    """Return (i, j, likeness), i < j, of pictures of different patients that are at least so much alike.

    Raises DataError as `near_duplicates` does.
    """
    seen = np.array([k for k, thumbnail in enumerate(thumbnails) if thumbnail], np.int64)
    grids = _grids([thumbnails[k] for k in seen])
    patient = np.unique(np.array([patients[k] for k in seen], str), return_inverse=True)[1]
    pairs: list[tuple[int, int, float]] = []
    for above, left in itertools.combinations_with_replacement(range(0, len(seen), _BLOCK), 2):
        on_progress(above, len(seen))
        likeness = _likeness(grids[above : above + _BLOCK], grids[left : left + _BLOCK])  # (block, block)
        if likeness.max() < at_least:
            continue
        i, j = np.nonzero(likeness >= at_least)
        found = (i + above < j + left) & (patient[i + above] != patient[j + left])
        i, j = i[found], j[found]
        if len(pairs) + len(i) > PAIRS_MAX:
            raise DataError(
                f"more than {PAIRS_MAX:,} pairs of patients share nearly the same picture",
                cause="test cards, forms or placeholders among the images",
                next_step="remove their rows from the manifest",
            )
        alike_by = likeness[i, j].tolist()
        pairs += zip(seen[i + above].tolist(), seen[j + left].tolist(), alike_by, strict=True)
    return tuple(sorted(pairs))


def _grids(thumbnails: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Return (n, crops, 16, 16)."""
    if not thumbnails:
        return np.empty((0, 1, THUMBNAIL_PX, THUMBNAIL_PX), np.uint8)
    return np.frombuffer(b"".join(thumbnails), np.uint8).reshape(len(thumbnails), -1, THUMBNAIL_PX, THUMBNAIL_PX)


def _likeness(ones: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> Rows:
    """Return the likeness (n, m) of n and m pictures, (..., crops, 16, 16) each."""
    one, other = _unit_rows(ones), _unit_rows(others)
    found = _upright(one) @ _upright(other).T
    for crop in range(one.shape[1]):
        np.maximum(found, one[:, 0] @ other[:, crop].T, out=found)
        np.maximum(found, one[:, crop] @ other[:, 0].T, out=found)
    return found


def _unit_rows(grids: npt.NDArray[np.uint8]) -> Rows:
    """Return (n, crops, 256), mean 0 and length 1 each."""
    rows = grids.reshape(*grids.shape[:2], -1).astype(np.float32)
    rows -= rows.mean(axis=-1, keepdims=True)
    rows /= np.sqrt(np.einsum("nck,nck->nc", rows, rows))[..., None]
    return rows


def _upright(rows: Rows) -> Rows:
    """Return the whole scene (n, 256), mirrored and turned so that most structure lies right, and then low.

    A picture and its mirrored or turned copy come to lie alike.
    """
    grids = rows[:, 0].reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX).copy()
    away = np.arange(THUMBNAIL_PX, dtype=np.float32) - (THUMBNAIL_PX - 1) / 2
    down, right = (np.einsum(f"nyx,{axis}->n", grids**2, away) for axis in "yx")
    grids[right < 0] = grids[right < 0][:, :, ::-1]
    grids[down < 0] = grids[down < 0][:, ::-1]
    across = np.abs(down) > np.abs(right)
    grids[across] = grids[across].transpose(0, 2, 1)
    return grids.reshape(len(grids), -1)


def _identical(same: Iterable[Sequence[IndexedImage]]) -> Iterator[CrossPatientPicture]:
    for group in same:
        if group[0].thumbnail and len({one.patient for one in group}) > 1:
            yield _shared_picture(group, identical=True)


def _alike(used: Sequence[IndexedImage], on_progress: OnCount) -> Iterator[CrossPatientPicture]:
    for i, j in near_duplicates([one.thumbnail for one in used], [one.patient for one in used], on_progress):
        yield _shared_picture((used[i], used[j]), identical=False)


def _pictures(images: Iterable[str], pictures: Mapping[str, str]) -> frozenset[str]:
    """Return the digests of images; an image that is not there stands for itself."""
    return frozenset(pictures.get(image, image) for image in images)


def _without_effect(
    declared: Iterable[Pair], pictures: Mapping[str, str], told_apart: Iterable[CrossPatientPicture]
) -> Iterator[str]:
    met = {_pictures(shared.images, pictures) for shared in told_apart}
    for pair in sorted(map(sorted, declared)):
        found, named = _pictures(pair, pictures), " and ".join(pair)
        absent = [image for image in pair if image not in pictures]
        if absent:
            yield f"{named}: {' and '.join(absent)} cannot be read, or the manifest does not name it"
        elif len(found) == 1:
            yield f"{named}: the files show the same pixels, so they are one picture; remove the row of one"
        elif found not in met:
            yield f"{named}: these pictures do not look alike, or are of one patient"


def _shared_picture(group: Sequence[IndexedImage], *, identical: bool) -> CrossPatientPicture:
    return CrossPatientPicture(
        digest=group[0].digest,
        patients=tuple(sorted({one.patient for one in group})),
        images=tuple(one.image for one in group),
        identical=identical,
        conflicting=_conflicting(group),
    )


def _conflicting(group: Sequence[IndexedImage]) -> bool:
    return {0, 1} <= {one.label for one in group}
