"""A site's images, looked at once: what can be used, for what, and what was wrong with the rest.

Rules
1. Every image of a woman is in one split. Images of validation and test women never train anything.
2. Unlabelled images of training women train the contrastive model, those of validation women validate it. Women
   without any label are in train and valid only (paper, Table I). What was drawn is kept in the site's splits.csv.
3. What cannot be decoded is set aside and counted. Above a threshold the collection is refused: then it is not a few
   bad files, it is the wrong folder, disk or export.
4. Patients who share a picture are one woman (`duplicates`): they share a split, and `Image.woman`.
5. A picture under a great many patients is a placeholder or a test card, and is refused.
6. Identifiers that are one, written in several ways, are one woman too (`identifiers`): to take two women for one costs
   little, to take one for two spoils the test score. They are named.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shlex
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from fedcervix.core.grouped import grouped
from fedcervix.core.plan import Stage
from fedcervix.disk.files import write_secret
from fedcervix.disk.ownership import made_readable
from fedcervix.disk.storage import disk, read_file
from fedcervix.errors import DataError
from site_agent.data.duplicates import Copy, CrossPatientPicture, Duplicates, IndexedImage, find_duplicates
from site_agent.data.filenames import FileNames
from site_agent.data.index_cache import ImageFingerprint, read_looks, write_looks
from site_agent.data.not_same import Pair, read_pairs
from site_agent.data.pixel_arrays import Bytes
from site_agent.data.pixel_cache import keeper
from site_agent.data.pixel_store import Kind
from site_agent.images.appearance import Appearance, Tissue, appearance
from site_agent.images.decode import PIXELS_MAX, OnCount, each, opened, pixel_digest, silent
from site_agent.images.gate import findings
from site_agent.images.quality import oddities
from site_agent.images.thumbnails import thumbnail
from site_agent.images.unreadable import CLOSED, UnreadableError
from site_agent.manifest.classes import BINARY, Classes
from site_agent.manifest.columns import KNOWN, REQUIRED
from site_agent.manifest.details import NO_DETAILS, ImageDetails, PixelBox, together
from site_agent.manifest.identifiers import Doubt, doubts, written_alike
from site_agent.manifest.manifest_file import read_manifest
from site_agent.manifest.reading import SPLITS, Manifest, ManifestRow, Split, at_most, refused, repeated
from site_agent.manifest.splits import (
    NOBODY,
    STRATA,
    Kept,
    Recognised,
    Stratum,
    assign,
    check_links,
    check_spellings,
    format_splits,
    given,
    groups,
    kept,
    moved,
    parse_splits,
    recognise,
    short,
    stratum,
)
from site_agent.manifest.spreadsheet import decode_text, shown

Purpose = Literal["pretrain", "finetune", "evaluate"]

UNREADABLE_MAX = 0.05
"""share of unreadable images above which a collection is refused"""
LOOKS_KEPT_EVERY = 4096
"""images: what a process that is killed while it looks at them has to look at again, at most"""
NO_SUCH_FILE = "no such file"
ONE_WOMAN_PATIENTS_MAX = 10
"""identifiers that one woman may plausibly have"""

Need = tuple[Split, Stratum | None, int]
"""a split, whose images of it (None: all), how many at least"""

_REQUIRED: Mapping[Purpose, tuple[Need, ...]] = {
    "pretrain": (("train", None, 2), ("valid", None, 2)),  # an image alone has nothing to be told apart from
    "finetune": (("train", "case", 1), ("train", "control", 1), ("valid", "case", 1), ("valid", "control", 1)),
    "evaluate": (("test", "case", 1), ("test", "control", 1)),
}


@dataclass(frozen=True, slots=True)
class Image:
    """One picture that is used."""

    path: str
    """below the collection's folder"""
    patient: str
    woman: str
    """the first of the patients who are linked with this one, or of her identifiers; mostly the patient herself"""
    label: int | None
    """0 = control, 1 = case, None = unlabelled"""
    split: Split
    digest: str
    """SHA-256 of the decoded pixels"""
    details: ImageDetails = NO_DETAILS
    """what the manifest says of it beside"""
    colour_stage: Stage | Literal[""] = ""
    """`green` or `iodine`, where its colours leave no doubt"""
    cervix: PixelBox | None = None
    """where the detector has found the cervix; None: it is unsure"""
    tissue: Tissue | None = None
    """the colour of its tissue; None where it shows hardly any"""

    @property
    def stage(self) -> Stage | Literal[""]:
        """One of `plan.STAGES`, by the manifest or else by its colours; empty: unknown."""
        return self.details.stage or self.colour_stage

    @property
    def visit(self) -> str:
        """Of this woman; empty: unknown."""
        return self.details.visit

    @property
    def device(self) -> str:
        """Empty: unknown."""
        return self.details.device


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An image that cannot be used, and why (the reason names no path)."""

    image: str
    reason: str
    similar: str = ""
    """the name of a file that may be meant by one that is not there"""

    @property
    def told(self) -> str:
        """The image, what is wrong with it, and which file may be meant."""
        return f"{self.image}: {self.reason}" + (f"; there is {self.similar}" if self.similar else "")


@dataclass(frozen=True, slots=True)
class SetAsideImage:
    """An image that can be read and is not used, because the site's policy says so."""

    image: str
    findings: tuple[str, ...]
    """names of `gate` and `quality`"""
    digest: str
    """SHA-256 of the decoded pixels"""
    split: Split
    """of its woman"""


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
    shared_pictures: tuple[CrossPatientPicture, ...]
    disputed: tuple[str, ...]
    """images whose label was dropped: the same picture is labelled case in one place and control in another"""
    moved: tuple[str, ...]
    """patients who changed their split, because a new link joined them with patients of a more protected one"""
    splits_given: bool
    """by the manifest, not drawn"""
    told_apart: tuple[CrossPatientPicture, ...] = ()
    """pictures that look alike, but are declared to be of two women"""
    without_effect: tuple[str, ...] = ()
    """declared pairs that change nothing, and why"""
    ignored_columns: tuple[str, ...] = ()
    """of the manifest"""
    spellings: tuple[tuple[str, ...], ...] = ()
    """identifiers that are one, written in several ways; each set counts as one woman"""
    doubts: tuple[Doubt, ...] = ()
    """identifiers that may be wrong"""
    recognised: Recognised = NOBODY
    """whom splits.csv knows"""
    odd_images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """name of a check of `quality` or `gate` -> the images for which it holds; used unless the policy says otherwise"""
    set_aside: tuple[SetAsideImage, ...] = ()
    other_stage: tuple[str, ...] = ()
    """images whose colours show another stage than the manifest says"""
    stages: tuple[str, ...] = ()
    """of the examination that `images` are limited to; none: not limited"""

    def of_stages(self, stages: Sequence[str]) -> Collection:
        """Return the collection with the images of these stages alone; none named: as it is."""
        if not stages:
            return self
        return replace(self, images=tuple(i for i in self.images if i.stage in stages), stages=tuple(stages))

    @property
    def rows(self) -> int:
        """Rows of the manifest."""
        return len(self.images) + len(self.quarantined) + len(self.copies) + len(self.set_aside)

    @property
    def digest(self) -> str:
        """SHA-256 of everything that training depends on: pictures, women, labels, splits, in order."""
        return _digest(self.images)

    def contrastive(self, split: Literal["train", "valid"]) -> tuple[Image, ...]:
        """Return all images, labelled or not, of the training women or of the validation women. Raises ValueError."""
        if split not in ("train", "valid"):
            raise ValueError("images of test women take no part in contrastive learning")
        return tuple(image for image in self.images if image.split == split)

    def labelled(self, split: Split) -> tuple[Image, ...]:
        """Return the images of this split that have a label."""
        return tuple(image for image in self.images if image.split == split and image.label is not None)

    def census(self) -> tuple[CensusRow, ...]:
        """Count women and images per split and stratum; strata without women are left out."""
        women = grouped((image.woman, image) for image in self.images).values()
        cells = grouped(((hers[0].split, stratum(image.label for image in hers)), hers) for hers in women)
        return tuple(
            _census_row(split, name, cells[split, name])
            for split, name in itertools.product(SPLITS, STRATA)
            if (split, name) in cells
        )


def digest_of(images: Iterable[Image]) -> str:
    """Return the SHA-256 of pictures, women, labels and splits, in order, test images left out."""
    return _digest(image for image in images if image.split != "test")


def _digest(images: Iterable[Image]) -> str:
    lines = (f"{i.digest} {i.woman} {i.label} {i.split}{_trained_on(i.details)}\n" for i in images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _trained_on(details: ImageDetails) -> str:
    """Return what training may depend on; nothing where the manifest says nothing of it."""
    known = {"stage": details.stage, "visit": details.visit, "roi": details.roi, "grade": details.grade}
    return "".join(f" {name}={value}" for name, value in known.items() if value or (name, value) == ("grade", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """How a manifest is read, and what is kept of that."""

    splits_file: Path | None = None
    """holds the splits that were drawn earlier and receives those drawn now"""
    keep_splits: bool = True
    """write it, unless the manifest gives the splits itself"""
    seed: int = 0
    """of the splits that are drawn"""
    unreadable_max: float = UNREADABLE_MAX
    pixels_max: int = PIXELS_MAX
    cache_folder: Path | None = None
    """with it, files that did not change are not decoded again, and a process that was killed goes on where it was"""
    squares: tuple[Kind, ...] = ()
    """what is decoded is kept there at these sizes as well, for training (`pixel_cache`)"""
    ignore_columns: Sequence[str] = ()
    """of the manifest, although they look like known ones"""
    covariates: Sequence[str] = ()
    """of the manifest's columns, those that are read beside the known ones"""
    classes: Classes = BINARY
    """what a label may be"""
    set_aside: Sequence[str] = ()
    """findings for which an image is not used"""
    not_same: Path | None = None
    """a file of pairs of images that show two women (see `not_same`)"""


DEFAULT = IndexSettings()


def index(
    manifest: Path,
    settings: IndexSettings = DEFAULT,
    *,
    on_progress: OnCount = silent,
    on_compared: OnCount = silent,
    on_found: Callable[[Duplicates], None] = lambda _: None,
) -> Collection:
    """Read a manifest, look at every image once, and decide what each is used for.

    It takes some 3 KB of memory per image, and what open pictures take (`decode.opened`). `on_found` is told what the
    pictures showed before anything is refused for it. Raises DataError (manifest, images, splits), StorageError.
    """
    listed = _listed(manifest, settings)
    told_apart = _told_apart(settings.not_same, listed.names)
    looks = _look_at(listed, settings, on_progress)
    quarantined = _quarantined(looks, listed, settings.unreadable_max, manifest.name)
    seen = _readable(looks, manifest.name)
    spellings = written_alike(row.patient for row, _ in seen)
    found = find_duplicates(_sightings(seen, spellings), on_compared, told_apart)
    on_found(found)
    strata = _strata(seen, found.conflicting_label)
    links = [*found.links, *itertools.chain.from_iterable(map(itertools.pairwise, spellings))]
    women = _women(groups(strata, links), spellings, found.shared_pictures, manifest)
    findings = _findings(looks, settings.set_aside)
    if listed.given is None:
        before, splits = _drawn(settings, _pictures(seen), listed, strata, links)
    else:
        check_links(listed.given, found.links, manifest.name, way_out=_way_out(manifest))
        before, splits = NOBODY, listed.given
    return Collection(
        folder=listed.folder,
        manifest=manifest.name,
        images=_images(found, findings, seen, women, splits),
        quarantined=quarantined,
        copies=found.copies,
        shared_pictures=found.shared_pictures,
        disputed=tuple(sorted(found.conflicting_label)),
        moved=moved({patient: known.split for patient, known in listed.earlier.items()}, splits),
        splits_given=listed.given is not None,
        told_apart=found.told_apart,
        without_effect=found.without_effect,
        ignored_columns=listed.read.ignored,
        spellings=spellings,
        doubts=doubts(_labels(seen, women)),
        recognised=before,
        odd_images=_odd_images(looks),
        set_aside=_set_aside(found.used, findings, splits),
        other_stage=tuple(row.image for row, look in seen if _differs(row.details.stage, look)),
    )


@dataclass(frozen=True, slots=True)
class _Listed:
    """What a manifest lists."""

    read: Manifest
    folder: Path
    names: FileNames
    rows: tuple[ManifestRow, ...]
    """with the files' names as the disk has them"""
    given: dict[str, Split] | None
    """the splits, where it gives them"""
    earlier: dict[str, Kept]
    """what splits.csv holds"""


def _listed(manifest: Path, settings: IndexSettings) -> _Listed:
    read = read_manifest(manifest, settings.ignore_columns, settings.covariates, settings.classes)
    given_splits, earlier = _given_splits(read, manifest.name), _read_splits(settings.splits_file)
    folder = manifest.resolve().parent
    names = FileNames(folder)
    rows = _as_on_disk(read, names, manifest.name)
    _check_inside(folder, rows, manifest.name)
    return _Listed(read, folder, names, rows, given_splits, earlier)


def require(collection: Collection, purpose: Purpose) -> None:
    """Raise DataError unless the collection holds what the purpose needs.

    pretrain: two images of training and two of validation women. finetune: labelled cases and controls in both.
    evaluate: labelled cases and controls of test women.
    """
    missing = _missing(collection, purpose)
    if not missing:
        return
    what = ", ".join(_lacks(count, need) for need, count in missing.items())
    labelled = {image.woman: image.label for image in collection.images if image.label is not None}
    cases = len({image.woman for image in collection.images if image.label == 1})
    needed = "images of other women" if purpose == "pretrain" else "labelled women, at least 3 cases and 3 controls"
    raise DataError(
        f"{collection.manifest} cannot be used to {purpose}: {what}",
        cause=f"{len({image.woman for image in collection.images})} women, {len(labelled)} of them labelled, "
        f"{cases} of these cases{_limited(collection)}",
        next_step=f"add {needed}, or correct column split" if collection.splits_given else f"add {needed}",
    )


def _limited(collection: Collection) -> str:
    if not collection.stages:
        return ""
    return (
        f". Only images of stage {' or '.join(collection.stages)} count: the recipe's `stages`, manifest column stage"
    )


def rows_by_file(manifest: Path, ignore_columns: Sequence[str] = ()) -> dict[Path, ManifestRow]:
    """Return the row of every file that a manifest names (files by their real paths). Raises DataError.

    Only columns image, patient and roi are read: a list of new pictures has no labels, and its other columns mean
    nothing.
    """
    folder = manifest.resolve().parent
    unread = set(KNOWN) - {*REQUIRED, "roi"}
    read = read_manifest(manifest, (*unread, *ignore_columns))
    rows = _as_on_disk(read, FileNames(folder), manifest.name)
    return {_real(folder / row.image): row for row in rows}


def _real(path: Path) -> Path:
    """Return the path without links; as it is where the machine's locale cannot write it."""
    with contextlib.suppress(ValueError):
        return Path(os.path.realpath(path))
    return path


def can(collection: Collection, purpose: Purpose) -> bool:
    """Return whether the collection holds what the purpose needs."""
    return not _missing(collection, purpose)


def _missing(collection: Collection, purpose: Purpose) -> dict[Need, int]:
    """Return the needs that are not met, and how many images there are."""
    counts = {need: _count(collection, need[0], need[1]) for need in _REQUIRED[purpose]}
    return {need: count for need, count in counts.items() if count < need[2]}


def _count(collection: Collection, split: Split, kind: Stratum | None) -> int:
    images = (image for image in collection.images if image.split == split)
    return sum(kind is None or stratum([image.label]) == kind for image in images)


def _lacks(count: int, need: Need) -> str:
    split, kind, at_least = need
    return (
        f"only {count} {kind or 'image'} in {split} ({at_least} needed)"
        if count
        else f"no {kind or 'image'} in {split}"
    )


def _sightings(
    seen: Sequence[tuple[ManifestRow, ImageFingerprint]], spellings: Iterable[Sequence[str]]
) -> list[IndexedImage]:
    """Return what was seen, every patient under the first way of writing her identifier."""
    first = {name: names[0] for names in spellings for name in names}
    return [
        IndexedImage(row.image, first.get(row.patient, row.patient), _said(row), look.digest, look.thumbnail)
        for row, look in seen
    ]


def _findings(
    looks: Sequence[tuple[ManifestRow, ImageFingerprint | str]], policy: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return what the policy sets images aside for (image -> names of findings); the others are missing."""
    odd = grouped((image, name) for name, them in _odd_images(looks).items() if name in policy for image in them)
    return {image: tuple(names) for image, names in odd.items()}


def _set_aside(
    images: Iterable[IndexedImage], findings: Mapping[str, tuple[str, ...]], splits: Mapping[str, Split]
) -> tuple[SetAsideImage, ...]:
    hidden = (one for one in images if one.image in findings)
    return tuple(SetAsideImage(one.image, findings[one.image], one.digest, splits[one.patient]) for one in hidden)


def _differs(stage: str, look: ImageFingerprint) -> bool:
    seen = _colour_stage(look.appearance)
    return bool(stage and seen) and stage != seen


def _said(row: ManifestRow) -> int | None:
    """Return what two copies of a picture must agree on: the class where there are more than two, else the label."""
    return row.label if row.details.grade is None else row.details.grade


def _images(
    found: Duplicates,
    findings: Container[str],
    seen: Iterable[tuple[ManifestRow, ImageFingerprint]],
    women: Mapping[str, str],
    splits: Mapping[str, Split],
) -> tuple[Image, ...]:
    used = [one for one in found.used if one.image not in findings]
    patients, labels = ({row.image: getattr(row, name) for row, _ in seen} for name in ("patient", "label"))
    details = _details(seen)
    shown = {row.image: look.appearance for row, look in seen}
    identifiers = {patients[one.image]: one.patient for one in used}
    return tuple(
        Image(
            path=one.image,
            patient=(patient := patients[one.image]),
            woman=women[patient],
            label=None if one.image in found.conflicting_label else labels[one.image],
            split=splits[patient],
            digest=one.digest,
            details=_of_woman(details[one.digest], one.patient, identifiers.get(women[patient], women[patient])),
            colour_stage=_colour_stage(shown[one.image]),
            cervix=_cervix(shown[one.image]),
            tissue=_tissue(shown[one.image]),
        )
        for one in used
    )


def _of_woman(said: ImageDetails, patient: str, woman: str) -> ImageDetails:
    """Return what is known of a picture whose patient is linked with another: two records count visits on their own."""
    return said if patient == woman or not said.visit else replace(said, visit=f"{said.visit} of {patient}")


def _colour_stage(seen: Appearance | None) -> Stage | Literal[""]:
    return seen.stage if seen else ""


def _tissue(seen: Appearance | None) -> Tissue | None:
    return seen.tissue if seen else None


def _cervix(seen: Appearance | None) -> PixelBox | None:
    return PixelBox(*seen.cervix) if seen and seen.cervix else None


def _details(seen: Iterable[tuple[ManifestRow, ImageFingerprint]]) -> dict[str, ImageDetails]:
    """Return what the rows of every picture say together (digest -> details)."""
    said = grouped((look.digest, row.details) for row, look in seen)
    return {digest: together(rows) for digest, rows in said.items()}


def _readable(
    looks: Iterable[tuple[ManifestRow, ImageFingerprint | str]], source: str
) -> list[tuple[ManifestRow, ImageFingerprint]]:
    """Return the rows whose picture was read. Raises DataError where a box is not within its picture."""
    seen = [(row, look) for row, look in looks if isinstance(look, ImageFingerprint)]
    _check_boxes(seen, source)
    return seen


def _check_boxes(seen: Iterable[tuple[ManifestRow, ImageFingerprint]], source: str) -> None:
    """Raise DataError where a box is not within its picture."""
    offences = [
        f"line {row.line}, column roi: the box {row.details.roi} is not within {shown(row.image)}, which has "
        f"{look.size_px[0]} x {look.size_px[1]} pixels as it is seen"
        for row, look in seen
        if row.details.roi is not None and not row.details.roi.is_within(*look.size_px)
    ]
    if offences:
        raise refused(offences, source)


def _pictures(seen: Iterable[tuple[ManifestRow, ImageFingerprint]]) -> dict[str, Set[str]]:
    """Return the pictures of every patient, as splits.csv keeps them."""
    found = grouped((row.patient, short(look.digest)) for row, look in seen)
    return {patient: frozenset(pictures) for patient, pictures in found.items()}


def _labels(
    seen: Iterable[tuple[ManifestRow, ImageFingerprint]], women: Mapping[str, str]
) -> dict[str, list[int | None]]:
    return grouped((women[row.patient], row.label) for row, _ in seen)


def _census_row(split: Split, name: Stratum, women: Sequence[Sequence[Image]]) -> CensusRow:
    labels = [image.label for images in women for image in images]
    return CensusRow(split, name, len(women), sum(label is not None for label in labels), len(labels))


# What the files show


def _given_splits(manifest: Manifest, source: str) -> dict[str, Split] | None:
    splits = given(manifest.rows, source)
    if splits is not None:
        check_spellings(splits, written_alike(splits), source)
    return splits


def _as_on_disk(manifest: Manifest, names: FileNames, source: str) -> tuple[ManifestRow, ...]:
    """Return the rows with the files' names as the disk has them. Raises DataError where two rows name one file."""
    rows = tuple(replace(row, image=names.found(row.image)) for row in manifest.rows)
    twice = repeated(rows)
    if twice:
        raise refused(twice, source)
    return rows


def _told_apart(not_same: Path | None, names: FileNames) -> frozenset[Pair]:
    """Return the declared pairs with the files' names as the disk has them."""
    declared = read_pairs(not_same) if not_same else frozenset[Pair]()
    return frozenset(frozenset(map(names.found, pair)) for pair in declared)


def _quarantined(
    looks: Sequence[tuple[ManifestRow, ImageFingerprint | str]], listed: _Listed, unreadable_max: float, source: str
) -> tuple[Quarantined, ...]:
    """Return the images that cannot be read. Raises DataError where they are too many."""
    reasons = [(row.image, look) for row, look in looks if isinstance(look, str)]
    found = tuple(Quarantined(im, why, listed.names.similar(im) if why == NO_SUCH_FILE else "") for im, why in reasons)
    _check_readable(found, len(looks), unreadable_max, source, listed.folder)
    return found


def _check_inside(folder: Path, rows: Sequence[ManifestRow], source: str) -> None:
    """Raise DataError if a link leads out of the collection's folder: nothing else on this machine is ours to read."""
    outside = [f"line {row.line} ({row.image})" for row in rows if not _inside(folder, row.image)]
    if outside:
        raise DataError(
            f"{source}: images outside its folder: {', '.join(at_most(outside))}",
            cause="symbolic links that lead out of the folder",
            next_step="copy or mount these images below the folder that holds the manifest",
        )


def _inside(folder: Path, image: str) -> bool:
    try:
        return Path(os.path.realpath(folder / image)).is_relative_to(folder)
    except ValueError:  # the machine's locale cannot write this name, so it is not there
        return True


def _look_at(
    listed: _Listed, settings: IndexSettings, on_progress: OnCount
) -> list[tuple[ManifestRow, ImageFingerprint | str]]:
    """Return what every row's file showed: a look, or why there is none."""
    folder, rows, cache_folder = listed.folder, listed.rows, settings.cache_folder
    key = f"{folder} {settings.pixels_max}"
    known = {} if cache_folder is None else read_looks(cache_folder, key)

    result: list[tuple[ManifestRow, ImageFingerprint | str]] = []
    kept = known
    with keeper(cache_folder, settings.squares) if cache_folder else contextlib.nullcontext(_nowhere) as keep:

        def look_at(row: ManifestRow) -> ImageFingerprint | str:
            return _look(folder / row.image, known.get(row.image), settings.pixels_max, keep)

        for begin in range(0, len(rows), LOOKS_KEPT_EVERY):
            part = rows[begin : begin + LOOKS_KEPT_EVERY]
            result += zip(part, each(look_at, part, _counting(on_progress, begin, len(rows))), strict=True)
            seen = {row.image: look for row, look in result if isinstance(look, ImageFingerprint)}
            whole = seen if len(result) == len(rows) else {**known, **seen}
            if cache_folder is not None and whole != kept:
                write_looks(cache_folder, key, whole)
                kept = whole
    return result


def _nowhere(_digest: str, _pixels: Bytes) -> None:
    """Keep nothing."""


def _counting(on_progress: OnCount, begin: int, total: int) -> OnCount:
    return lambda done, _: on_progress(begin + done, total)


def _look(
    path: Path, known: ImageFingerprint | None, pixels_max: int, keep: Callable[[str, Bytes], None]
) -> ImageFingerprint | str:
    try:
        now = path.stat()
    except PermissionError:
        return CLOSED
    except (OSError, ValueError):  # ValueError: a name that the machine's locale cannot write
        return NO_SUCH_FILE
    if known is not None and (known.size_bytes, known.mtime_ns) == (now.st_size, now.st_mtime_ns):
        return known
    try:
        with opened(path, pixels_max=pixels_max) as found:
            digest, small = pixel_digest(found.pixels), thumbnail(found.pixels)
            keep(digest, found.pixels)
            size_px, seen = (found.pixels.shape[1], found.pixels.shape[0]), appearance(found.pixels)
            odd = (*oddities(found), *findings(seen))
            return ImageFingerprint(now.st_size, now.st_mtime_ns, digest, small, odd, size_px, seen)
    except UnreadableError as error:
        return error.reason


def _odd_images(looks: Sequence[tuple[ManifestRow, ImageFingerprint | str]]) -> dict[str, tuple[str, ...]]:
    seen = ((row, look) for row, look in looks if isinstance(look, ImageFingerprint))
    found = grouped((name, row.image) for row, look in seen for name in look.oddities)
    return {name: tuple(images) for name, images in found.items()}


def _check_readable(
    quarantined: Sequence[Quarantined], rows: int, unreadable_max: float, source: str, folder: Path
) -> None:
    count = len(quarantined)
    if count <= unreadable_max * rows and count < rows:
        return
    listed = at_most([one.told for one in quarantined])
    closed = next((folder / one.image for one in quarantined if one.reason == CLOSED), None)
    cause, next_step = made_readable(closed) if closed else (INCOMPLETE, MEND)
    raise DataError(
        f"{source}: {count} of {rows} images cannot be read ({count / rows:.1%}; {unreadable_max:.1%} is allowed):\n"
        + "\n".join(f"    {line}" for line in listed),
        cause=cause,
        next_step=next_step,
    )


INCOMPLETE = "the manifest was written for another folder, a disk is not mounted, or an export was not complete"
MEND = (
    "repair the files or remove their rows; to continue without them, set a higher unreadable_max in site.toml "
    "(--unreadable-max of data check)"
)


def _strata(seen: Sequence[tuple[ManifestRow, ImageFingerprint]], disputed: frozenset[str]) -> dict[str, Stratum]:
    labels = grouped((row.patient, None if row.image in disputed else row.label) for row, _ in seen)
    return {patient: stratum(known) for patient, known in labels.items()}


def _women(
    linked: Iterable[Sequence[str]],
    spellings: Iterable[Sequence[str]],
    shared_pictures: Sequence[CrossPatientPicture],
    manifest: Path,
) -> dict[str, str]:
    """Return who every patient is: the first of those linked with her. Raises DataError for rule 5."""
    women = {patient: group[0] for group in linked for patient in group}
    respelt = {name for names in spellings for name in names[1:]}
    identifiers = Counter(woman for patient, woman in women.items() if patient not in respelt)
    woman, count = max(identifiers.items(), key=lambda item: item[1])
    if count <= ONE_WOMAN_PATIENTS_MAX:
        return women
    theirs = [shared for shared in shared_pictures if women[shared.patients[0]] == woman]
    shared = [picture.images[0] for picture in theirs]
    alike = any(not shared.identical for shared in theirs)
    raise DataError(
        f"{manifest.name}: the same pictures are listed under {count} patients: {', '.join(at_most(shared))}",
        cause="test cards, forms or placeholders among the images, or an export that repeated files",
        next_step=f"remove the rows of these pictures from {manifest.name}"
        + (f"; {_way_out(manifest)}" if alike else ""),
    )


def _way_out(manifest: Path) -> str:
    """Return what to do where pictures only look alike."""
    return (
        f"if they show different women: site-agent data check {shlex.quote(str(manifest))} --write-pairs pairs.csv, "
        'fill in column verdict, then set not_same = "/path/of/pairs.csv" in table [data] of site.toml (or for the '
        "site in STUDY.toml)"
    )


# The splits that were drawn earlier


def _drawn(
    settings: IndexSettings,
    pictures: Mapping[str, Set[str]],
    listed: _Listed,
    strata: Mapping[str, Stratum],
    links: Sequence[tuple[str, str]],
) -> tuple[Recognised, dict[str, Split]]:
    """Return whose split was known, and the splits of all; write them down."""
    before = recognise(pictures, listed.earlier, (row.patient for row in listed.rows))
    splits = assign(strata, links, before.splits, settings.seed)
    _write_splits(settings, listed.earlier, kept(splits, pictures, listed.earlier))
    return before, splits


def _read_splits(splits_file: Path | None) -> dict[str, Kept]:
    if splits_file is None or not splits_file.exists():
        return {}
    return parse_splits(decode_text(read_file(splits_file), splits_file.name), splits_file.name)


def _write_splits(settings: IndexSettings, earlier: Mapping[str, Kept], now: Mapping[str, Kept]) -> None:
    splits_file = settings.splits_file
    if splits_file is not None and settings.keep_splits and now != earlier:
        with disk(splits_file, "write"):
            splits_file.parent.mkdir(parents=True, exist_ok=True)
        write_secret(splits_file, format_splits(now).encode())
