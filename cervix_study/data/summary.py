"""The summary of a study's images: Table I, and the findings that a person should check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cervix_study.data.cross_site_leakage import SiteImage
from cervix_study.data.folds import Fold
from cervix_study.records import DataRow, NearDuplicate, Quarantine, SharedPicture, StudyData
from site_agent.data.collection import Collection
from site_agent.data.duplicates import ALIKE_FROM, likenesses

JUDGED_FROM = 0.85
"""likeness from which on two pictures of different women are listed: those of different women had .82 at most"""
JUDGED_MAX = 200
"""pairs listed, the most alike"""


def describe(
    found: Mapping[tuple[str, Fold], Collection], first: Mapping[str, Collection], seen: Sequence[SiteImage]
) -> StudyData:
    """Return data.json of the sites' collections in every fold, and in the `first` one, whose images are `seen`."""
    return StudyData(
        rows=tuple(row for (site, fold), collection in found.items() for row in _rows(site, fold, collection)),
        quarantine=tuple(_quarantine(site, collection) for site, collection in first.items()),
        shared=tuple(picture for site, collection in first.items() for picture in _shared(site, collection)),
        near_duplicates=near_duplicates(seen),
    )


def summary(data: StudyData) -> list[str]:
    """Return what a person should know of the images before the study begins."""
    found = []
    for site in dict.fromkeys(picture.site for picture in data.shared):
        pairs = {picture.patients for picture in data.shared if picture.site == site}
        found.append(f"{site}: {len(pairs)} women have several identifiers; they count as one woman each (data.json)")
    if data.near_duplicates:
        count = len(data.near_duplicates)
        most = " (those are listed)" if count == JUDGED_MAX else ""
        found.append(
            f"{count} pairs of pictures of different women{most} look alike: judge the pairs listed in data.json"
        )
    return found


def _rows(site: str, fold: Fold, collection: Collection) -> list[DataRow]:
    return [
        DataRow(
            site=site,
            fold=fold,
            split=row.split,
            stratum=row.stratum,
            women=row.women,
            labelled_images=row.labelled,
            images=row.images,
        )
        for row in collection.census()
    ]


def _quarantine(site: str, collection: Collection) -> Quarantine:
    return Quarantine(
        site=site,
        rows=collection.rows,
        copies=len(collection.copies),
        unreadable=len(collection.quarantined),
        disputed=len(collection.disputed),
    )


def _shared(site: str, collection: Collection) -> list[SharedPicture]:
    return [
        SharedPicture(
            site=site,
            patients=shared.patients,
            images=shared.images,
            identical=shared.identical,
            conflicting=shared.conflicting,
        )
        for shared in collection.shared_pictures
    ]


def near_duplicates(seen: Sequence[SiteImage]) -> tuple[NearDuplicate, ...]:
    """Return the pictures of different women that look alike without counting as one, the most alike first."""
    pairs = likenesses([one.thumbnail for one in seen], [one.owner for one in seen], JUDGED_FROM)
    judged = sorted((pair for pair in pairs if pair[2] < ALIKE_FROM), key=lambda pair: -pair[2])
    return tuple(_pair(seen[i], seen[j], likeness) for i, j, likeness in judged[:JUDGED_MAX])


def _pair(one: SiteImage, other: SiteImage, likeness: float) -> NearDuplicate:
    return NearDuplicate(
        sites=(one.site, other.site),
        patients=(one.image.patient, other.image.patient),
        images=(one.image.path, other.image.path),
        splits=(one.image.split, other.image.split),
        likeness=round(likeness, 4),
    )
