"""The command `predict`: the probability of case of new images, as a CSV file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedcervix.disk.files import write_secret
from fedcervix.errors import ConfigError, DataError, ModelError, StorageError
from fedcervix.lineage.decisions import SHORT
from fedcervix.runtime.printing import say
from site_agent.classifier import classifier_store
from site_agent.classifier.classifier_store import StoredClassifier
from site_agent.classifier.csv_names import path_cell
from site_agent.classifier.notices import CSV_NOTE
from site_agent.classifier.picture_files import Listing, list_files
from site_agent.commands.command_line import command_line
from site_agent.commands.display import progress
from site_agent.commands.loading import loading
from site_agent.data import site_colours
from site_agent.data.collection import rows_by_file
from site_agent.home import SiteHome
from site_agent.images.unreadable import FORMATS_TEXT
from site_agent.manifest.reading import ManifestRow, at_most
from site_agent.store import leak_guard
from site_agent.store.retired_models import check_usable

if TYPE_CHECKING:  # it stands on torch, which a mistake in an argument does not wait for
    from site_agent.classifier.scoring import ScoredFile, Training


def predict(
    home: SiteHome,
    classifier: str,
    images: tuple[Path, ...],
    out: Path,
    manifest: Path | None,
    *,
    force: bool,
    force_retired: bool = False,
) -> None:
    """Write the probability of case of every file named or below a named folder to `out`.

    Raises DataError, StorageError.
    """
    _check_free(out, force=force)
    stored = classifier_store.named(home, classifier)
    check_usable(
        home,
        f"classifier {classifier} ({stored.provenance.weights[:SHORT]})",
        [stored.provenance.weights, stored.provenance.start.weights],
        again=f"{command_line(home, 'predict')} --force-retired",
        forced=force_retired,
    )
    listing = list_files(images)
    if not listing.files:
        raise _nothing(listing)
    _check_no_picture(out, listing)
    listed = _listed(home, manifest)
    loading("predict")
    from site_agent.classifier.scoring import csv_text, score_files

    training = _training(home, stored)
    with progress("scoring images") as report:
        rows = tuple(score_files(home, stored, listing.files, listed, training, report))
    write_secret(out, csv_text(stored, rows).encode("utf-8"))
    for line in _summary(stored, rows, listing.passed_over):
        say(line)
    if stored.colour and stored.colour != site_colours.kept(home, stored.recipe):
        say(
            "note: the classifier has the colours of the site that made it, and these are not the present ones here: "
            "probabilities of pictures of another site mean nothing"
        )
    say(f"{CSV_NOTE}\nwrote {path_cell(out)}")
    if all(row.probability is None for row in rows):
        raise _none_readable(rows, out)


def _check_free(out: Path, *, force: bool) -> None:
    """Raise StorageError where the result cannot be written, before hours are spent on it."""
    if out.exists() and not out.is_file():
        raise StorageError(
            f"{path_cell(out)} is not a file that can be replaced",
            cause="a device, a pipe or a folder has this name",
            next_step="give the name of a new file with --out",
        )
    if os.path.lexists(out) and not force:
        raise StorageError(
            f"{path_cell(out)} exists already",
            cause="it contains earlier predictions; files are overwritten only with --force",
            next_step="choose another name with --out, or add --force to replace it",
        )
    parent = out.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(
            f"{path_cell(out)} cannot be written",
            cause=f"{path_cell(parent)} is not a folder, or this user has no permission to write there",
            next_step="give a file in a folder of yours with --out",
        )


def _check_no_picture(out: Path, listing: Listing) -> None:
    """Raise StorageError where the result would take the place of a picture that is to be scored."""
    real = os.path.realpath(out)
    if out.exists() and any(os.path.realpath(found.path) == real for found in listing.files):
        raise StorageError(
            f"{path_cell(out)} is one of the files to be scored: the result would replace it",
            cause="--out names a file below IMAGES",
            next_step="give another name with --out",
        )


def _listed(home: SiteHome, manifest: Path | None) -> Mapping[Path, ManifestRow]:
    """Return what a manifest says of the files that it names; that of the site may be missing."""
    if manifest is not None:
        return rows_by_file(manifest)
    try:
        return rows_by_file(home.manifest(), home.config().data.ignore_columns)
    except (ConfigError, DataError) as error:
        say(f"column patient is empty: {error.what}", err=True)
        return {}


def _training(home: SiteHome, stored: StoredClassifier) -> Training | None:
    """Return what made the classifier, None where it does not tell (it was copied from another site)."""
    from site_agent.classifier.scoring import Training

    if home.key_file(leak_guard.KEY).exists():
        key = leak_guard.site_key(home)
        try:
            return Training(key, leak_guard.read(stored.folder, key, next_step=""))
        except ModelError as error:
            say(f"column seen_in_training is unknown: {error.what}", err=True)
    return None


def _summary(stored: StoredClassifier, rows: Sequence[ScoredFile], passed_over: Mapping[str, int]) -> Iterator[str]:
    """Yield what a person should know of the file."""
    problems = [f"{path_cell(row.file)}: {row.problem}" for row in rows if row.problem]
    yield f"{len(rows)} files: {len(rows) - len(problems)} scored by {stored.start}, {len(problems)} not"
    yield from (f"  {line}" for line in at_most(problems))
    counted = [f"{count} {kind}" for kind, count in sorted(passed_over.items()) if count]
    if counted:
        yield f"skipped: {', '.join(counted)}"
    if stages := " or ".join(stored.recipe.stages):
        yield (
            f"note: pictures of stage {stages} alone made and tested this classifier. Give it no others: their rows "
            "mean nothing, and a woman's call is that of all her pictures."
        )
    pictures, women = (sum(row.seen == kind for row in rows) for kind in ("picture", "woman"))
    if pictures or women:
        yield (
            f"warning: {_pictures(pictures)} used in training; {women} more {'shows' if women == 1 else 'show'} women "
            "whose other pictures were used. Do not judge the classifier by these rows (column seen_in_training)."
        )
    yield from _nameless(rows)


def _nameless(rows: Sequence[ScoredFile]) -> Iterator[str]:
    """Say that some pictures have no patient, where that leaves open whether their women were trained on."""
    if count := sum(not row.patient and row.seen == "unknown" for row in rows):
        yield (
            f"{count} of {len(rows)} files have no patient in the manifest: it is not known whether other pictures of "
            "these women were used in training. Name a manifest that lists them with --manifest"
        )


def _pictures(count: int) -> str:
    return "1 picture was" if count == 1 else f"{count} pictures were"


def _nothing(listing: Listing) -> DataError:
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(listing.passed_over.items()) if count)
    return DataError(
        "no images found",
        cause=f"only files that are not pictures: {counted}" if counted else "the folder is empty",
        next_step=f"name a folder with {FORMATS_TEXT} files",
    )


def _none_readable(rows: Sequence[ScoredFile], out: Path) -> DataError:
    return DataError(
        f"none of {len(rows)} files can be scored",
        cause=rows[0].problem,
        next_step=f"see column problem of {path_cell(out)}",
    )
