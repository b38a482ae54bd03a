"""`site-agent data import-dicom`: from an archive's files to a collection that names nobody."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from fedcervix.extras import require
from fedcervix.runtime.printing import say
from site_agent.commands.display import progress
from site_agent.dicom.chosen_frames import FrameChoice
from site_agent.dicom.importing import MANIFEST, Imported, Wanted, bring, check_folder
from site_agent.dicom.label_table import KEYS, read_labels
from site_agent.dicom.pseudonyms import site_pseudonyms
from site_agent.dicom.refusals import BURNED_IN, PHOTOGRAPHS
from site_agent.home import SiteHome

DECODERS = ("gdcm", "jpeg_ls")
"""that pydicom asks for by itself, and does without where they are missing"""
NUMBERS_SHOWN = 10


def import_dicom(
    home: SiteHome,
    folder: Path,
    to: Path,
    labels_file: Path | None,
    key: str,
    frames: str,
    modalities: tuple[str, ...],
    **options: bool | int | None,
) -> None:
    """Import the DICOM files below a folder, and print what came of it.

    `options`: `burned_in`, and `side_max_px` (None: pictures stay as large as they are). Raises ConfigError where the
    extra is missing or the target is another import's, click.UsageError, DataError, StorageError.
    """
    for package in DECODERS:
        require(package)
    try:
        choice = FrameChoice(frames)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    check_folder(folder)
    wanted = Wanted(
        folder=folder,
        to=to,
        frames=choice,
        modalities=frozenset(modality.upper() for modality in modalities) or frozenset(PHOTOGRAPHS),
        burned_in=bool(options["burned_in"]),
        side_max_px=options["side_max_px"] or 0,
        labels=read_labels(labels_file, key) if labels_file else {},
        label_key=KEYS[key],
    )
    names = site_pseudonyms(home)
    with progress("reading DICOM files") as report:
        made = bring(wanted, names, report)
    for line in _told(made, to / MANIFEST, folder):
        say(line)
    if BURNED_IN in made.refused:
        say("  pictures with text: look at them; if the text names nobody, import again with --allow-burned-in")
    if not made.rows:
        say("  nothing was imported: see the reasons above; --modality takes other devices")
        return
    manifest, sheet = shlex.quote(str(to / MANIFEST)), shlex.quote(str(to / "sheet.png"))
    say("  headers do not tell of all text in pictures. Look for names and dates yourself:")
    say(f"  next: site-agent data sheet {manifest} {sheet} --images 200")
    say(f"  next: site-agent data check {manifest}")


def _told(made: Imported, manifest: Path, folder: Path) -> Iterator[str]:
    women, visits = ({getattr(row, name) for row in made.rows} - {""} for name in ("patient", "visit"))
    yield f"read {made.files:,} files: {len(made.rows):,} pictures of {len(women):,} women in {len(visits):,} visits"
    yield f"  wrote {manifest}"
    for name in ("label", "stage", "device"):
        counts = Counter(getattr(row, name) or "not said" for row in made.rows)
        yield f"  {name}: " + (", ".join(f"{count:,} {value}" for value, count in counts.most_common(8)) or "none")
    if made.labels_unused:
        yield f"  {made.labels_unused:,} labels belong to no picture that was imported: is --key the right one?"
    if made.several_issuers:
        yield (
            f"  {made.several_issuers:,} PatientIDs have several issuers, or one in some files and none in others: "
            "each counts as several women. If they are one, write one issuer in all files, and import them again"
        )
    for why, numbers in made.refused.items():
        shown = ", ".join(map(str, numbers[:NUMBERS_SHOWN])) + (", ..." if len(numbers) > NUMBERS_SHOWN else "")
        yield f"  not imported: {len(numbers):,} files: {why} (files {shown})"
    if made.refused:
        sorted_list = f"find {shlex.quote(str(folder))} -type f | LC_ALL=C sort"
        yield f"  to see the path of file 1, type: {sorted_list} | sed -n 1p"
