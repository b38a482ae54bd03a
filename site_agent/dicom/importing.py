"""From a folder of DICOM files to pictures and a manifest that name nobody.

Rules
1. Every file is either imported, or counted with a reason.
2. The result depends on the files and on the site's key alone. Of two files with one SOPInstanceUID, the first in the
   sorted list counts. Killed at any file and begun again, an import ends with the same files: a picture that is there
   is not made again, and which frames were chosen stands in CHOSEN.
3. Nothing of a patient stands in a picture's name, in the manifest, in CHOSEN, or in what is printed. A file is
   named by its number in the sorted list of all files.
4. A woman is one PatientID of one issuer, in whatever way it is written; a visit is one study.
5. Of a file that is refused no picture stays. Pictures of two files with one SOPInstanceUID that name two women are
   never taken for one another.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedcervix.core.formats import UnknownFormat, contents
from fedcervix.disk.files import append_line, make_folder, write_whole
from fedcervix.disk.storage import disk, later, read_file
from fedcervix.errors import ConfigError, DataError
from fedcervix.json_text import parsed
from site_agent.dicom.chosen_frames import FrameChoice
from site_agent.dicom.frame_process import FrameProcess
from site_agent.dicom.headers import UNREADABLE, DicomHeader, RefusedError, read_header
from site_agent.dicom.pseudonyms import Pseudonyms
from site_agent.dicom.refusals import refusal
from site_agent.dicom.stage_words import named_stage
from site_agent.images.decode import OnCount, silent
from site_agent.manifest.identifiers import forms

MANIFEST, CHOSEN, PICTURES = "manifest.csv", "chosen.jsonl", "images"
COLUMNS: Final = ("image", "patient", "label", "stage", "visit", "device")
FORMAT = 1
TWICE = "the same picture is in another file, too (SOPInstanceUID)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for."""

    folder: Path
    to: Path
    frames: FrameChoice
    modalities: frozenset[str]
    burned_in: bool = False
    side_max_px: int = 0
    """of a picture's longer side; 0: as large as it is"""
    labels: Mapping[str, str] = field(default_factory=dict)
    label_key: Callable[[DicomHeader], str] = lambda header: header.accession


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the manifest."""

    image: str
    patient: str
    label: str
    stage: str
    visit: str
    device: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import."""

    files: int
    """that were looked at"""
    rows: tuple[Row, ...]
    refused: Mapping[str, tuple[int, ...]]
    """by reason: the numbers of the files, from 1, in the order of `files_in`"""
    labels_unused: int
    """labels that belong to no picture"""
    several_issuers: int = 0
    """numbers of patients that have several issuers, or one in some files and none in others"""


@dataclass
class _Import:
    """An import that goes on."""

    wanted: Wanted
    names: Pseudonyms
    process: FrameProcess
    chosen: dict[str, tuple[int, ...]]

    def rows(self, path: Path, header: DicomHeader) -> list[Row]:
        """Make the pictures of a file; return their rows. Raises RefusedError, StorageError."""
        woman = self.names.patient(header.issuer, header.patient)
        name = self.names.picture(header.instance, woman)
        images = [f"{PICTURES}/{name}-{index:05d}.png" for index in self._frames(path, header, name)]
        try:
            for index, image in zip(self.chosen[name], images, strict=True):
                self._make(path, index, self.wanted.to / image)
        except RefusedError:
            for image in images:
                with disk(self.wanted.to / image, "write"):
                    (self.wanted.to / image).unlink(missing_ok=True)
            raise
        return [self._row(header, image, woman) for image in images]

    def _row(self, header: DicomHeader, image: str, woman: str) -> Row:
        return Row(
            image=image,
            patient=woman,
            label=self.wanted.labels.get(self.wanted.label_key(header), ""),
            stage=named_stage(header.remarks),
            visit=self.names.visit(header.study),
            device=header.device,
        )

    def _frames(self, path: Path, header: DicomHeader, name: str) -> tuple[int, ...]:
        if name not in self.chosen:
            self.chosen[name] = self.wanted.frames.of(
                header.frames or 1, lambda index: self.process.sharpness(path, index)
            )
            line = json.dumps({"picture": name, "frames": self.chosen[name]}, allow_nan=False)
            append_line(self.wanted.to / CHOSEN, line, sync=True)
        return self.chosen[name]

    def _make(self, path: Path, index: int, to: Path) -> None:
        if not to.exists():
            with disk(to, "write"):
                self.process.write(path, index, to, self.wanted.side_max_px)


def files_in(folder: Path) -> list[Path]:
    """Return all regular files below a folder, sorted by their bytes as `LC_ALL=C sort` does; no link is followed.

    Raises StorageError.
    """
    found: list[Path] = []
    with disk(folder, "read"):
        for at, _, names in os.walk(folder, onerror=_raised):
            found += [path for name in names if stat.S_ISREG((path := Path(at, name)).lstat().st_mode)]
    return sorted(found, key=os.fsencode)


def _raised(error: OSError) -> None:
    raise error


def bring(wanted: Wanted, names: Pseudonyms, on_progress: OnCount = silent) -> Imported:
    """Import a folder. Raises ConfigError where the target is that of another import, DataError, StorageError."""
    files = files_in(wanted.folder)
    make_folder(wanted.to / PICTURES)
    chosen = _chosen(wanted, names)
    refused: dict[str, list[int]] = {}
    rows: list[Row] = []
    taken: set[str] = set()
    used: set[str] = set()
    issuers: dict[str, set[str]] = {}
    with FrameProcess() as process:
        going = _Import(wanted, names, process, chosen)
        for number, path in enumerate(files, 1):
            try:
                header = _usable(path, wanted, taken)
                rows += going.rows(path, header)
                taken.add(header.instance)
                used.add(wanted.label_key(header))
                issuers.setdefault(forms(header.patient)[0], set()).add(header.issuer)
            except RefusedError as error:
                refused.setdefault(str(error), []).append(number)
            on_progress(number, len(files))
    rows.sort(key=lambda row: row.image)
    write_whole(wanted.to / MANIFEST, _csv(rows).encode())
    unused = len(wanted.labels.keys() - used)
    several = sum(1 for found in issuers.values() if len(found) > 1)
    why_not = {why: tuple(found) for why, found in sorted(refused.items())}
    return Imported(len(files), tuple(rows), why_not, unused, several)


def _usable(path: Path, wanted: Wanted, taken: Collection[str]) -> DicomHeader:
    try:
        header = read_header(path)
    except OSError as error:
        raise RefusedError(UNREADABLE) from error
    if why := refusal(header, wanted.modalities, burned_in=wanted.burned_in):
        raise RefusedError(why)
    if header.instance in taken:
        raise RefusedError(TWICE)
    return header


def _chosen(wanted: Wanted, names: Pseudonyms) -> dict[str, tuple[int, ...]]:
    """Return which frames an earlier import has chosen. Raises ConfigError, DataError, StorageError."""
    file = wanted.to / CHOSEN
    asked = {"key": names.key_name, "frames": wanted.frames.text, "side_max_px": wanted.side_max_px}
    lines = [line for text in _texts(file) if (line := _line(text))]
    if not lines:
        if any((wanted.to / PICTURES).iterdir()) or (wanted.to / MANIFEST).exists():
            raise _of_another(wanted.to, "it has pictures or a manifest that no import has made")
        append_line(file, json.dumps({"format": FORMAT, **asked}, allow_nan=False), sync=True)
        return {}
    try:
        made_with = contents("the list of chosen frames", lines[0], FORMAT)
    except UnknownFormat as error:
        raise later(file, error) from error
    if other := [name for name, value in asked.items() if made_with.get(name) != value]:
        raise _of_another(wanted.to, f"an import with another {' and another '.join(other)} has made it")
    return {
        str(line["picture"]): tuple(frames)
        for line in lines[1:]
        if "picture" in line and isinstance(frames := line.get("frames"), list)
    }


def _texts(file: Path) -> list[str]:
    return read_file(file).decode("utf-8", "replace").splitlines() if file.exists() else []


def _line(text: str) -> dict[str, object]:
    """Return a line as an object; {} where it is empty, or was cut off."""
    try:
        found = parsed(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_another(folder: Path, why: str) -> ConfigError:
    return ConfigError(f"{folder} cannot take this import: {why}", next_step="name a new folder with --out")


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[getattr(row, column) for column in COLUMNS] for row in rows])
    return text.getvalue()


def check_folder(folder: Path) -> None:
    """Raise DataError where there is no folder to import."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", next_step="name the folder that holds the DICOM files")
