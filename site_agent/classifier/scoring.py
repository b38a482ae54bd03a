"""New images scored by a classifier: a row for every file, and the rows as a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcervix.core.grouped import grouped
from site_agent.classifier.classifier_store import StoredClassifier
from site_agent.classifier.csv_names import path_cell, text_cell
from site_agent.classifier.finetune import predict
from site_agent.classifier.notices import CSV_NOTE
from site_agent.classifier.picture_files import Found
from site_agent.classifier.zone import Call, Zone
from site_agent.data.collection import Image
from site_agent.home import SiteHome
from site_agent.images.appearance import Corners, appearance
from site_agent.images.decode import OnCount, decode, each, pixel_digest
from site_agent.images.preparation import Preparation
from site_agent.images.samples import Pixels
from site_agent.images.unreadable import UnreadableError
from site_agent.manifest.reading import ManifestRow
from site_agent.metrics import THRESHOLD_FIXED
from site_agent.network.devices import ready
from site_agent.store.leak_guard import Seen, SiteKey

BATCH_FILES = 64
WOMAN_CALL = "woman_call"
COLUMNS = (
    *("image", "patient", "probability_of_case", "case_at_0.5", "case_at_validation_threshold", "validation_threshold"),
    *("seen_in_training", "problem", "classifier", "classifier_sha256", "note"),
)


@dataclass(frozen=True, slots=True)
class InputImage:
    """One file as the classifier takes it, or why it cannot."""

    file: Path
    problem: str = ""
    digest: str = ""
    pixels: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class ScoredFile:
    """What is said of one file."""

    file: Path
    patient: str = ""
    probability: float | None = None
    seen: str = ""
    """in training: picture, woman (another picture of her), no, unknown"""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Training:
    """What is known of the pictures that made the classifier."""

    key: SiteKey
    seen: Seen

    def met(self, digest: str, patient: str) -> str:
        """Return whether it was made with this picture, with others of this woman, or with neither."""
        if self.key.pictures([digest]) & self.seen.pictures:
            return "picture"
        one = Image(path="", patient=patient, woman=patient, label=None, split="test", digest=digest)
        if not patient:
            return "unknown"
        return "woman" if self.key.known([one], self.seen) else "no"


def score_files(
    home: SiteHome,
    stored: StoredClassifier,
    files: Sequence[Found],
    listed: Mapping[Path, ManifestRow],
    training: Training | None,
    report: OnCount,
) -> Iterator[ScoredFile]:
    """Yield a row for every file, in order. `listed` is what a manifest says of files, by their real paths."""
    device, network = ready(home.config().hardware).device, stored.build()

    def scores(pixels: Sequence[npt.NDArray[np.uint8]]) -> list[float]:
        return [float(p) for p in predict(network, np.stack(pixels), device=device)] if pixels else []

    for begin in range(0, len(files), BATCH_FILES):
        pictures = each(_reader(stored, listed), files[begin : begin + BATCH_FILES], _from(begin, len(files), report))
        found = iter(scores([picture.pixels for picture in pictures if picture.pixels is not None]))
        for picture in pictures:
            row = listed.get(_real(picture.file))
            patient = row.patient if row else ""
            if picture.pixels is None:
                yield ScoredFile(picture.file, patient, problem=picture.problem)
            else:
                seen = training.met(picture.digest, patient) if training else "unknown"
                yield ScoredFile(picture.file, patient, next(found), seen)


def _from(begin: int, total: int, report: OnCount) -> OnCount:
    return lambda done, _: report(begin + done, total)


def _reader(stored: StoredClassifier, listed: Mapping[Path, ManifestRow]) -> Callable[[Found], InputImage]:
    recipe = stored.recipe

    def box_of(file: Path, pixels: Pixels) -> Corners | None:
        """Return what to crop to. Raises UnreadableError where the manifest's box is not within the picture."""
        if recipe.roi == "detector":
            return appearance(pixels).cervix
        row = listed.get(_real(file)) if recipe.roi == "manifest" else None
        if row is None or (box := row.details.roi) is None:
            return None
        if not box.is_within(pixels.shape[1], pixels.shape[0]):
            raise UnreadableError("the manifest's box (column roi) is not within the picture")
        return box.x, box.y, box.w, box.h

    def read(found: Found) -> InputImage:
        if found.problem:
            return InputImage(found.path, found.problem)
        try:
            pixels = decode(found.path)
            prepared = Preparation(box_of(found.path, pixels), stored.colour)
        except UnreadableError as error:
            return InputImage(found.path, error.reason)
        ready = prepared.square(pixels, recipe.image_px, recipe.fit)
        return InputImage(found.path, "", pixel_digest(pixels), ready)

    return read


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def csv_text(stored: StoredClassifier, rows: Sequence[ScoredFile]) -> str:
    """Return the file's text. Column woman_call is there where the classifier has an indeterminate zone."""
    made_by = (stored.start, stored.provenance.weights, CSV_NOTE)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, *(() if stored.zone is None else (WOMAN_CALL,))))
    women = {} if stored.zone is None else womens_calls(stored.zone, rows)
    for row in rows:
        cells = (*_calls(row.probability, stored.threshold), row.seen, row.problem, *made_by)
        call = () if stored.zone is None else (women.get(_woman(row), ""),)
        writer.writerow((path_cell(row.file), text_cell(row.patient), *cells, *call))
    return text.getvalue()


def womens_calls(zone: Zone, rows: Iterable[ScoredFile]) -> dict[str, Call]:
    """Return what is said of each woman, by her highest score; a file whose patient is not known is one by itself."""
    scores = grouped((_woman(row), row.probability) for row in rows if row.probability is not None)
    return {woman: zone.call(max(own)) for woman, own in scores.items()}


def _woman(row: ScoredFile) -> str:
    return f"patient {row.patient}" if row.patient else f"file {row.file}"


def _calls(p: float | None, threshold: float) -> tuple[str, str, str, str]:
    if p is None:
        return "", "", "", repr(threshold)
    return f"{p:.6f}", str(int(p >= THRESHOLD_FIXED)), str(int(p >= threshold)), repr(threshold)
