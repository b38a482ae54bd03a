"""A site's images, looked at once: what can be used, for what, and what was wrong with the rest.

Rules
1. Every image of a woman is in one split. Images of validation and test women never train anything.
2. Unlabelled images of training women train the contrastive model, those of validation women validate it. Women
   without any label are in train and valid only (paper, Table I). What was drawn is kept in the site's splits.csv.
3. What cannot be decoded is set aside and counted. Above a threshold the collection is refused: then it is not a few
   bad files, it is the wrong folder, disk or export.
4. Patients who share a picture are one woman (`likeness`): they share a split, and `Image.woman`.
5. A picture under a great many patients is a placeholder or a test card, and is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedcervix.errors import DataError
from fedcervix.files import write_secret
from fedcervix.manifest import SPLITS, Row, Split, at_most, decode_text, parse
from fedcervix.splits import (
    STRATA,
    Stratum,
    assign,
    check_links,
    format_splits,
    given,
    groups,
    moved,
    parse_splits,
    stratum,
)
from fedcervix.weights import disk
from site_agent.images import PIXELS_MAX, Progress, UnreadableError, each, picture, pixel_digest, silent
from site_agent.likeness import Comparison, Copy, Leak, Sighting, compare
from site_agent.looks import Look, read_looks, write_looks
from site_agent.not_same import read_pairs
from site_agent.thumbnails import thumbnail

Purpose = Literal["pretrain", "finetune", "evaluate"]

UNREADABLE_MAX = 0.05
"""share of unreadable images above which a collection is refused"""
LOOKS_KEPT_EVERY = 4096
"""images: what a process that is killed while it looks at them has to look at again, at most"""
ONE_WOMAN_PATIENTS_MAX = 10
"""identifiers that one woman may plausibly have"""

_REQUIRED: Mapping[Purpose, tuple[tuple[Split, Stratum | None], ...]] = {
    "pretrain": (("train", None), ("valid", None)),
    "finetune": (("train", "case"), ("train", "control"), ("valid", "case"), ("valid", "control")),
    "evaluate": (("test", "case"), ("test", "control")),
}


@dataclass(frozen=True, slots=True)
class Image:
    """One picture that is used."""

    path: str
    """below the collection's folder"""
    patient: str
    woman: str
    """the first of the patients who are linked with this one; mostly the patient herself"""
    label: int | None
    """0 = control, 1 = case, None = unlabelled"""
    split: Split
    digest: str
    """SHA-256 of the decoded pixels"""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An image that cannot be used, and why (the reason names no path)."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True)
class CensusRow:
    """One row of a table like the paper's Table I."""

    split: Split
    stratum: Stratum
    """of the women: case if any of her images is labelled case"""
    women: int
    labelled: int
    """images of these women that have a label"""
    images: int
    """all images of these women"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a site has. `images` stand in the order of the manifest."""

    folder: Path
    manifest: str
    """the file's name"""
    images: tuple[Image, ...]
    quarantined: tuple[Quarantined, ...]
    copies: tuple[Copy, ...]
    leaks: tuple[Leak, ...]
    disputed: tuple[str, ...]
    """images whose label was dropped: the same picture is labelled case in one place and control in another"""
    moved: tuple[str, ...]
    """patients who changed their split, because a new link joined them with patients of a more protected one"""
    splits_given: bool
    """by the manifest, not drawn"""
    told_apart: tuple[Leak, ...] = ()
    """pictures that look alike, but are declared to be of two women"""
    without_effect: tuple[str, ...] = ()
    """declared pairs that change nothing, and why"""

    @property
    def rows(self) -> int:
        """Rows of the manifest."""
        return len(self.images) + len(self.quarantined) + len(self.copies)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that training depends on: pictures, women, labels, splits, in order."""
        lines = (f"{i.digest} {i.woman} {i.label} {i.split}\n" for i in self.images)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def contrastive(self, split: Literal["train", "valid"]) -> tuple[Image, ...]:
        """Return all images, labelled or not, of the training women or of the validation women."""
        if split not in ("train", "valid"):
            raise ValueError("images of test women take no part in contrastive learning")
        return tuple(image for image in self.images if image.split == split)

    def labelled(self, split: Split) -> tuple[Image, ...]:
        """Return the images of this split that have a label."""
        return tuple(image for image in self.images if image.split == split and image.label is not None)

    def census(self) -> tuple[CensusRow, ...]:
        """Count women and images per split and stratum; strata without women are left out."""
        women: dict[str, list[Image]] = {}
        for image in self.images:
            women.setdefault(image.woman, []).append(image)
        cells: dict[tuple[Split, Stratum], list[list[Image]]] = {}
        for images in women.values():
            cells.setdefault((images[0].split, stratum(image.label for image in images)), []).append(images)
        return tuple(
            _census_row(split, name, cells[split, name])
            for split, name in itertools.product(SPLITS, STRATA)
            if (split, name) in cells
        )


def digest_of(images: Iterable[Image]) -> str:
    """Return the SHA-256 of pictures, women, labels and splits, in order, test images left out."""
    lines = (f"{i.digest} {i.woman} {i.label} {i.split}\n" for i in images if i.split != "test")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def index(
    manifest: Path,
    *,
    splits_file: Path | None = None,
    seed: int = 0,
    unreadable_max: float = UNREADABLE_MAX,
    pixels_max: int = PIXELS_MAX,
    cache_folder: Path | None = None,
    on_progress: Progress = silent,
    on_compared: Progress = silent,
    not_same: Path | None = None,
    on_found: Callable[[Comparison], None] = lambda _: None,
) -> Collection:
    """Read a manifest, decode every image once, and decide what each is used for.

    `splits_file` holds the splits that were drawn earlier and receives those drawn now; it is not written where the
    manifest gives the splits itself. With a `cache_folder`, files that did not change are not decoded again, and a
    process that was killed goes on where it was. It takes some 3 KB of memory per image (0.3 GB for 100,000), and what
    the pictures that are open take (`images.picture`). `not_same` is a file of pairs of images that show two women
    (see `not_same`). `on_found` is told what the pictures showed before anything is refused for it.
    Raises DataError (manifest, images or splits cannot be used) and StorageError (splits_file cannot be written).
    """
    rows = parse(decode_text(_read(manifest), manifest.name), manifest.name)
    given_splits = given(rows, manifest.name)
    earlier = {} if splits_file is None else _read_splits(splits_file)
    folder = manifest.resolve().parent
    _check_inside(folder, rows, manifest.name)

    looks = _look_at(folder, rows, pixels_max, cache_folder, on_progress)
    quarantined = tuple(Quarantined(row.image, look) for row, look in looks if isinstance(look, str))
    _check_readable(quarantined, len(rows), unreadable_max, manifest.name)

    seen = [_sighting(row, look) for row, look in looks if isinstance(look, Look)]
    found = compare(seen, on_compared, frozenset() if not_same is None else read_pairs(not_same))
    on_found(found)
    strata = _strata(seen, found.disputed)
    women = {patient: group[0] for group in groups(strata, found.links) for patient in group}
    _check_placeholders(women, found.leaks, manifest)
    if given_splits is None:
        splits = assign(strata, found.links, earlier, seed)
        _write_splits(splits_file, earlier, splits)
    else:
        check_links(given_splits, found.links, manifest.name, way_out=_way_out(manifest))
        splits = given_splits
    return Collection(
        folder=folder,
        manifest=manifest.name,
        images=tuple(_image(one, women, splits, found.disputed) for one in found.used),
        quarantined=quarantined,
        copies=found.copies,
        leaks=found.leaks,
        disputed=tuple(sorted(found.disputed)),
        moved=moved(earlier, splits),
        splits_given=given_splits is not None,
        told_apart=found.told_apart,
        without_effect=found.without_effect,
    )


def require(collection: Collection, purpose: Purpose) -> None:
    """Raise DataError unless the collection holds what the purpose needs.

    pretrain: images of training and of validation women. finetune: labelled cases and controls in both.
    evaluate: labelled cases and controls of test women.
    """
    missing = _missing(collection, purpose)
    if not missing:
        return
    what = ", ".join(f"no {kind or 'image'} in {split}" for split, kind in missing)
    labelled = {image.woman: image.label for image in collection.images if image.label is not None}
    cases = len({image.woman for image in collection.images if image.label == 1})
    needed = "women" if purpose == "pretrain" else "labelled women, at least 3 cases and 3 controls"
    raise DataError(
        f"{collection.manifest} cannot be used to {purpose}: {what}",
        cause=f"{len({image.woman for image in collection.images})} women, {len(labelled)} of them labelled, "
        f"{cases} of these cases",
        next_step=f"add {needed}, or mend column split" if collection.splits_given else f"add {needed}",
    )


def patients_of(manifest: Path) -> dict[Path, str]:
    """Return whose image every file is that a manifest names (files by their real paths). Raises DataError."""
    folder = manifest.resolve().parent
    rows = parse(decode_text(_read(manifest), manifest.name), manifest.name)
    return {Path(os.path.realpath(folder / row.image)): row.patient for row in rows}


def can(collection: Collection, purpose: Purpose) -> bool:
    """Return whether the collection holds what the purpose needs."""
    return not _missing(collection, purpose)


def _missing(collection: Collection, purpose: Purpose) -> list[tuple[Split, Stratum | None]]:
    return [(split, kind) for split, kind in _REQUIRED[purpose] if not _has(collection, split, kind)]


def _has(collection: Collection, split: Split, kind: Stratum | None) -> bool:
    images = (image for image in collection.images if image.split == split)
    return any(kind is None or stratum([image.label]) == kind for image in images)


def _sighting(row: Row, look: Look) -> Sighting:
    return Sighting(row.image, row.patient, row.label, look.digest, look.thumbnail)


def _image(one: Sighting, women: Mapping[str, str], splits: Mapping[str, Split], disputed: frozenset[str]) -> Image:
    return Image(
        path=one.image,
        patient=one.patient,
        woman=women[one.patient],
        label=None if one.image in disputed else one.label,
        split=splits[one.patient],
        digest=one.digest,
    )


def _census_row(split: Split, name: Stratum, women: Sequence[Sequence[Image]]) -> CensusRow:
    labels = [image.label for images in women for image in images]
    return CensusRow(split, name, len(women), sum(label is not None for label in labels), len(labels))


# What the files show


def _read(manifest: Path) -> bytes:
    try:
        return manifest.read_bytes()
    except OSError as error:
        raise DataError(
            f"the manifest {manifest} cannot be read: {error.strerror}",
            cause="the path is wrong, or its disk is not mounted" if isinstance(error, FileNotFoundError) else "",
            next_step="give the path of the CSV file that lists the images",
        ) from error


def _check_inside(folder: Path, rows: Sequence[Row], source: str) -> None:
    """Raise DataError if a link leads out of the collection's folder: nothing else on this machine is ours to read."""
    outside = [
        f"line {row.line} ({row.image})"
        for row in rows
        if not Path(os.path.realpath(folder / row.image)).is_relative_to(folder)
    ]
    if outside:
        raise DataError(
            f"{source}: images outside its folder: {', '.join(at_most(outside))}",
            cause="symbolic links that lead out of the folder",
            next_step="copy or mount these images below the folder that holds the manifest",
        )


def _look_at(
    folder: Path, rows: Sequence[Row], pixels_max: int, cache_folder: Path | None, on_progress: Progress
) -> list[tuple[Row, Look | str]]:
    """Return what every row's file showed: a look, or why there is none."""
    key = f"{folder} {pixels_max}"
    known = {} if cache_folder is None else read_looks(cache_folder, key)

    def look_at(row: Row) -> Look | str:
        return _look(folder / row.image, known.get(row.image), pixels_max)

    result: list[tuple[Row, Look | str]] = []
    kept = known
    for begin in range(0, len(rows), LOOKS_KEPT_EVERY):
        part = rows[begin : begin + LOOKS_KEPT_EVERY]
        result += zip(part, each(look_at, part, _counting(on_progress, begin, len(rows))), strict=True)
        seen = {row.image: look for row, look in result if isinstance(look, Look)}
        whole = seen if len(result) == len(rows) else {**known, **seen}
        if cache_folder is not None and whole != kept:
            write_looks(cache_folder, key, whole)
            kept = whole
    return result


def _counting(on_progress: Progress, begin: int, total: int) -> Progress:
    return lambda done, _: on_progress(begin + done, total)


def _look(path: Path, known: Look | None, pixels_max: int) -> Look | str:
    try:
        now = path.stat()
        if known is not None and (known.size_bytes, known.mtime_ns) == (now.st_size, now.st_mtime_ns):
            return known
        with picture(path, pixels_max=pixels_max) as pixels:
            return Look(now.st_size, now.st_mtime_ns, pixel_digest(pixels), thumbnail(pixels))
    except UnreadableError as error:
        return error.reason
    except OSError:
        return "no such file"


def _check_readable(quarantined: Sequence[Quarantined], rows: int, unreadable_max: float, source: str) -> None:
    count = len(quarantined)
    if count <= unreadable_max * rows and count < rows:
        return
    listed = at_most([f"{one.image}: {one.reason}" for one in quarantined])
    raise DataError(
        f"{source}: {count} of {rows} images cannot be read ({count / rows:.1%}; {unreadable_max:.1%} is allowed):\n"
        + "\n".join(f"    {line}" for line in listed),
        cause="the manifest was written for another folder, a disk is not mounted, or an export broke off",
        next_step="mend the files or remove their rows; a higher unreadable_max in site.toml (--unreadable-max of data "
        "check) goes on without them",
    )


def _strata(seen: Sequence[Sighting], disputed: frozenset[str]) -> dict[str, Stratum]:
    labels: dict[str, list[int | None]] = {}
    for one in seen:
        labels.setdefault(one.patient, []).append(None if one.image in disputed else one.label)
    return {patient: stratum(known) for patient, known in labels.items()}


def _check_placeholders(women: Mapping[str, str], leaks: Sequence[Leak], manifest: Path) -> None:
    identifiers = Counter(women.values())
    woman, count = max(identifiers.items(), key=lambda item: item[1])
    if count <= ONE_WOMAN_PATIENTS_MAX:
        return
    theirs = [leak for leak in leaks if women[leak.patients[0]] == woman]
    shared = [leak.images[0] for leak in theirs]
    alike = any(not leak.identical for leak in theirs)
    raise DataError(
        f"{manifest.name}: the same pictures stand under {count} patients: {', '.join(at_most(shared))}",
        cause="test cards, forms or placeholders among the images, or an export that repeated files",
        next_step=f"remove the rows of these pictures from {manifest.name}"
        + (f"; {_way_out(manifest)}" if alike else ""),
    )


def _way_out(manifest: Path) -> str:
    """Return what to do where pictures only look alike."""
    return (
        f"if they show different women: site-agent data check {shlex.quote(str(manifest))} --write-pairs pairs.csv, "
        "judge the pairs, then name that file: not_same below [data] in site.toml, or of the site in STUDY.toml"
    )


# The splits that were drawn earlier


def _read_splits(splits_file: Path) -> dict[str, Split]:
    if not splits_file.exists():
        return {}
    with disk(splits_file, "read"):
        raw = splits_file.read_bytes()
    return parse_splits(decode_text(raw, splits_file.name), splits_file.name)


def _write_splits(splits_file: Path | None, earlier: Mapping[str, Split], splits: Mapping[str, Split]) -> None:
    """Keep what was drawn, along with patients who are not in the collection at the moment."""
    kept = {**earlier, **splits}
    if splits_file is not None and kept != earlier:
        with disk(splits_file, "write"):
            splits_file.parent.mkdir(parents=True, exist_ok=True)
        write_secret(splits_file, format_splits(kept).encode())
