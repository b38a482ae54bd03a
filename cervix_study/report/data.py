"""The sections on the data: a Table I of what was given, and what leaks or may leak."""

from __future__ import annotations

from collections.abc import Iterable

from cervix_study.analysis.findings import StudyFindings
from cervix_study.records import Axes, DataRow
from cervix_study.report.document import Block, Column, Details, Heading, Table, Text, cells, columns, left
from site_agent.manifest.reading import SPLITS
from site_agent.manifest.splits import STRATA
from site_agent.report.answer import listed
from site_agent.report.page import three


def table_one(findings: StudyFindings) -> Iterable[Block]:
    """Yield the census in the shape of the paper's Table I; of cross-validation, the first fold."""
    yield Heading("The data (Table I)")
    folds = list(dict.fromkeys(row.fold for row in findings.census))
    first = [row for row in findings.census if row.fold == (folds[0] if folds else None)]
    if len(folds) > 1:
        yield Text(f"{_divided(findings.study.axes)} The table shows the first fold.")
    yield _census(first, findings, "Women and images by split and class")
    yield Text(
        "Women, and labelled images, of each site. Learning without labels uses all images of train and valid (last "
        "row); classifiers use labelled images. All images of a woman are in one split.",
        quiet=True,
    )
    rows = tuple(
        cells(f"{q.site}", f"{q.rows:,}", f"{q.copies:,}", f"{q.unreadable:,}", f"{q.disputed:,}")
        for q in findings.quarantine
    )
    dropped = Column("labels dropped", "they contradict")
    heads = columns("site", "rows of the manifest", "copies left out", "not readable", dropped)
    yield Table(heads, rows, "Rows of the manifests that were not used")
    for fold in folds[1:]:
        own = [row for row in findings.census if row.fold == fold]
        yield Details(f"Fold {fold}", (_census(own, findings, f"Women and images of fold {fold}"),))


def _divided(axes: Axes) -> str:
    if axes.leave_out_devices:
        return f"In each fold one device is left out and its women are tested: {listed(axes.leave_out_devices)}."
    often = f"once in each of {axes.fold_repeats} repeats" if axes.fold_repeats > 1 else "once"
    return f"Cross-validation of {axes.folds} folds: every woman is tested {often}."


def _census(rows: list[DataRow], findings: StudyFindings, label: str) -> Table:
    sites = [site.name for site in findings.study.sites]
    found = {(row.site, row.split, row.stratum): row for row in rows}
    counts = [f"{what} {site}" for what in ("women", "labelled images") for site in sites]
    lines = []
    for split in SPLITS:
        for stratum in STRATA:
            own = [found.get((site, split, stratum)) for site in sites]
            if any(row is not None and row.women for row in own):
                women = [f"{row.women:,}" if row else "0" for row in own]
                images = [f"{row.labelled_images:,}" if row else "0" for row in own]
                lines.append(cells(split, stratum, *women, *images))
    everything = [[row for row in rows if row.site == site and row.split != "test"] for site in sites]
    women = [f"{sum(row.women for row in own):,}" for own in everything]
    images = [f"{sum(row.images for row in own):,} images" for own in everything]
    lines.append(cells("train and valid", "all images", *women, *images))
    return Table(columns("split", left("class"), *counts), tuple(lines), label, strong=frozenset({len(lines) - 1}))


def leaks(findings: StudyFindings) -> Iterable[Block]:
    """Yield what is shared between patients, and what only looks alike."""
    yield Heading("Leakage and near-duplicates")
    yield Text(
        "No woman is in two splits: otherwise the study does not start. If a picture is listed under several "
        "patients, these patients count as one woman, share a split, and are resampled as one."
    )
    identical = Column("of these identical", "the others saved twice")
    heads = columns("site", "pictures under several patients", identical, "labels contradict", "patients bound")
    rows = tuple(
        cells(
            found.site, f"{found.pictures:,}", f"{found.identical:,}", f"{found.conflicting:,}", f"{found.patients:,}"
        )
        for found in findings.leakage
    )
    yield Table(heads, rows, "Pictures under several patients")
    if not findings.alike:
        yield Text("No two images of different women look so alike that a person must judge them.")
        return
    yield Text(
        "Images of **different** women that look alike, but not enough to count as one picture. They may show one "
        "woman under two names, or two women in the same light: a person must judge. `data.json` in the study's "
        "folder names them; this page does not, so it can be sent outside the institution."
    )
    heads = columns("sites", left("splits"), "pairs", Column("highest likeness", "correlation of thumbnails"))
    rows = tuple(
        cells(
            " / ".join(dict.fromkeys(found.sites)),
            " / ".join(dict.fromkeys(found.splits)),
            f"{found.pairs:,}",
            three(found.highest_likeness),
        )
        for found in findings.alike
    )
    yield Table(heads, rows, "Look-alikes of different women")
