"""The data of a study: every site's images, indexed as at a hospital, and the women divided into splits.

Rules
1. Every site has a home folder like a hospital's, one per fold. A manifest that gives splits keeps them; otherwise they
   are drawn by woman, and kept in the home's splits.csv.
2. A woman who is at two sites is put into the most protected of her splits where these are drawn; where they are given
   and differ, the study is refused.
3. Pictures of different women that only look similar are listed. A person must decide whether they show one woman.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cervix_study.data.cross_site_leakage import Link, SiteImage, check_apart, shared_names, shared_pictures, together
from cervix_study.data.folds import Fold, Patient, deal, split_in
from cervix_study.data.site_homes import OnProgress, make_home, manifest_of
from cervix_study.data.summary import describe
from cervix_study.records import StudyData
from cervix_study.settings import StudyConfig
from cervix_study.study_paths import Places
from fedcervix.core.grouped import grouped
from fedcervix.disk.files import digest_file, write_secret
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, DataError
from site_agent.data.collection import Collection, Image, digest_of, require
from site_agent.data.dataset import open_collection
from site_agent.data.index_cache import ImageFingerprint, read_looks
from site_agent.data.remarks import remarks
from site_agent.home import SiteHome
from site_agent.images.decode import PIXELS_MAX, decode
from site_agent.images.thumbnails import thumbnail
from site_agent.manifest.reading import Split
from site_agent.manifest.splits import Kept, Stratum, format_splits, stratum

Collections = Mapping[tuple[str, Fold], Collection]


@dataclass(frozen=True, slots=True)
class DatasetDigest:
    """One site's images in one fold: what cells depend on, and what their costs are estimated from."""

    contrastive: str
    """SHA-256 of everything but test women"""
    whole: str
    """SHA-256 of everything"""
    train: int
    """images"""
    valid: int
    labelled_train: int
    labelled_valid: int


@dataclass(frozen=True, slots=True)
class Ground:
    """All sites in all folds."""

    lots: Mapping[tuple[str, Fold], DatasetDigest]
    data: StudyData
    manifests: Mapping[str, Path]
    remarks: tuple[str, ...] = ()
    """what a person should know of the manifests' columns and identifiers"""
    imagenet: str = ""
    """SHA-256 of the file with ImageNet's weights, where the study names one"""

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The folds, in order; (None,) without cross-validation."""
        return tuple(dict.fromkeys(fold for _, fold in self.lots))


def prepare(asked: StudyConfig, places: Places, on_progress: OnProgress) -> Ground:
    """Draw phantoms, index every collection, divide the women, check. Raises ConfigError, DataError, StorageError."""
    manifests = {site.name: manifest_of(asked, places, site, on_progress) for site in asked.settings.sites}
    for site, manifest in manifests.items():
        make_home(asked, site, places.home(site, None), manifest, places.cache)
    whole = {site: _index(asked, places, site, None, on_progress) for site in manifests}
    links = shared_pictures(_seen(whole, places))
    links += shared_names(whole) if asked.settings.data.shared_identifiers else []
    divide = _in_folds if asked.settings.axes.folds else _as_drawn
    found = divide(asked, places, whole, links, on_progress)
    for fold in dict.fromkeys(fold for _, fold in found):
        check_apart({site: found[site, fold] for site in whole}, links)
    for (site, _), collection in found.items():
        _check_enough(collection, site)
    first = {site: next(c for (name, _), c in found.items() if name == site) for site in whole}
    lots = {place: _lot(collection) for place, collection in found.items()}
    data, weights = describe(found, first, _seen(first, places)), _imagenet(asked)
    said = tuple(f"{site}: {remark.short()}" for site, c in first.items() for remark in remarks(c))
    return Ground(lots=lots, data=data, manifests=manifests, remarks=said, imagenet=weights)


def _imagenet(asked: StudyConfig) -> str:
    named = asked.settings.machine.imagenet_weights
    if not named:
        return ""
    with disk(asked.path(named), "read"):
        return digest_file(asked.path(named))


def _index(asked: StudyConfig, places: Places, site: str, fold: Fold, on_progress: OnProgress) -> Collection:
    return open_collection(
        places.home(site, fold),
        lambda done, of: on_progress(f"looking at the images of {site}", done, of),
        recipes=[profile.recipe for profile in asked.profiles.values()],
    )


def _seen(collections: Mapping[str, Collection], places: Places) -> list[SiteImage]:
    """Return all images with their thumbnails: indexing has just made them."""
    found = []
    for site, collection in collections.items():
        looks = read_looks(places.cache, f"{collection.folder} {PIXELS_MAX}")
        found += [SiteImage(site, image, _thumbnail(collection, image, looks)) for image in collection.images]
    return found


def _thumbnail(collection: Collection, image: Image, looks: Mapping[str, ImageFingerprint]) -> bytes:
    kept = looks.get(image.path)  # not there where the disk took no cache
    return kept.thumbnail if kept else thumbnail(decode(collection.folder / image.path))


def _lot(collection: Collection) -> DatasetDigest:
    return DatasetDigest(
        contrastive=digest_of(collection.images),
        whole=collection.digest,
        train=len(collection.contrastive("train")),
        valid=len(collection.contrastive("valid")),
        labelled_train=len(collection.labelled("train")),
        labelled_valid=len(collection.labelled("valid")),
    )


def _check_enough(collection: Collection, site: str) -> None:
    """Raise DataError where a site lacks what some cell will need."""
    try:
        require(collection, "pretrain")
        require(collection, "finetune")
        require(collection, "evaluate")
    except DataError as error:
        raise DataError(f"site {site}: {error.what}", cause=error.cause, next_step=error.next_step) from error


# --- dividing the women -------------------------------------------------------------------------------------------


def _as_drawn(
    asked: StudyConfig, places: Places, whole: Mapping[str, Collection], links: Sequence[Link], on_progress: OnProgress
) -> Collections:
    """Return the collections as given or drawn, women of two sites moved to the most protected of their splits."""
    splits = {(site, image.patient): image.split for site, c in whole.items() for image in c.images}
    settled = together(splits, [*links, *_linked(whole)])
    moved = {site for (site, patient), split in settled.items() if split != splits[site, patient]}
    for site in moved:
        if not whole[site].splits_given:  # what is given is not changed, and refused afterwards
            _put_splits(places.home(site, None), settled, site)
    return {
        (site, None): _index(asked, places, site, None, on_progress) if site in moved else collection
        for site, collection in whole.items()
    }


def _in_folds(
    asked: StudyConfig, places: Places, whole: Mapping[str, Collection], links: Sequence[Link], on_progress: OnProgress
) -> Collections:
    """Deal the women to folds; every fold has homes of its own, with their own splits.csv."""
    given = [site for site, collection in whole.items() if collection.splits_given]
    if given:
        raise ConfigError(
            f"{asked.file}: folds divides the women again, but their splits are given by the manifest of "
            f"{', '.join(given)}",
            cause="its column split is filled",
            next_step="set folds = 0, or use manifests without the column split",
        )
    strata, folds = _strata(whole), asked.settings.axes.folds
    parts = deal(strata, [*links, *_linked(whole)], folds, asked.settings.data.split_seed)
    found: dict[tuple[str, Fold], Collection] = {}
    for fold, site in itertools.product(range(folds), whole):
        home = places.home(site, fold)
        make_home(asked, site, home, places.home(site, None).manifest(), places.cache)
        _put_splits(home, {who: split_in(part, strata[who], fold, folds) for who, part in parts.items()}, site)
        found[site, fold] = _index(asked, places, site, fold, on_progress)
    return found


def _put_splits(home: SiteHome, splits: Mapping[Patient, Split], site: str) -> None:
    mine = {patient: Kept(split) for (where, patient), split in splits.items() if where == site}
    write_secret(home.splits, format_splits(mine).encode())


def _strata(whole: Mapping[str, Collection]) -> dict[Patient, Stratum]:
    labels = grouped(((site, image.patient), image.label) for site, c in whole.items() for image in c.images)
    return {patient: stratum(known) for patient, known in labels.items()}


def _linked(whole: Mapping[str, Collection]) -> list[Link]:
    """Return pairs of a site's patients who are one woman."""
    patients = grouped(((site, image.woman), image.patient) for site, c in whole.items() for image in c.images)
    named = (((site, name) for name in sorted(set(names))) for (site, _), names in sorted(patients.items()))
    return [pair for hers in named for pair in itertools.pairwise(hers)]
