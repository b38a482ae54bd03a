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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cervix_study.data.cross_site_leakage import Link, SiteImage, check_apart, shared_names, shared_pictures, together
from cervix_study.data.folds import Fold, Patient, deals, leave_out
from cervix_study.data.site_homes import OnProgress, make_home, manifest_of
from cervix_study.data.summary import describe
from cervix_study.records import StudyData
from cervix_study.settings import StudyConfig
from cervix_study.study_paths import Places
from fedcervix.core.grouped import grouped
from fedcervix.disk.files import digest_file, write_secret
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, DataError, ModelError
from fedcervix.lineage import shelf
from fedcervix.lineage.decision_store import DecisionStore
from fedcervix.lineage.decisions import SHORT
from site_agent.data.collection import Collection, Image, digest_of, require
from site_agent.data.dataset import open_collection
from site_agent.data.index_cache import ImageFingerprint, read_looks
from site_agent.data.remarks import remarks
from site_agent.home import SiteHome
from site_agent.images.decode import PIXELS_MAX, decode
from site_agent.images.thumbnails import thumbnail
from site_agent.manifest.reading import Split, at_most
from site_agent.manifest.splits import Kept, Stratum, format_splits, groups, stratum
from site_agent.network.imagenet_package import installed
from site_agent.store import leak_guard, model_store
from site_agent.store.retired_models import retired_among

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
    """SHA-256 of the file with ImageNet's weights, where something begins from them"""

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
    divide = _in_folds if asked.settings.axes.divided else _as_drawn
    found = divide(asked, places, whole, links, on_progress)
    for fold in dict.fromkeys(fold for _, fold in found):
        check_apart({site: found[site, fold] for site in whole}, links)
    for (site, _), collection in found.items():
        for stages in dict.fromkeys(profile.recipe.stages for profile in asked.profiles.values()):
            _check_enough(collection.of_stages(stages), site)
    first = {site: next(c for (name, _), c in found.items() if name == site) for site in whole}
    lots = {place: _lot(collection) for place, collection in found.items()}
    said = tuple(f"{site}: {remark.short()}" for site, c in first.items() for remark in remarks(c))
    data, weights = describe(found, first, _seen(first, places)), _imagenet(asked)
    return Ground(
        lots=lots, data=data, manifests=manifests, remarks=(*said, *_start_model(asked, found)), imagenet=weights
    )


def _imagenet(asked: StudyConfig) -> str:
    """Return the digest of the weights, which stand at the start of a study: an extra that is missing is said now."""
    named = asked.settings.machine.imagenet_weights
    if not named:
        return digest_file(installed()) if asked.from_imagenet else ""
    with disk(asked.path(named), "read"):
        return digest_file(asked.path(named))


def _start_model(asked: StudyConfig, found: Collections) -> tuple[str, ...]:
    """Check the cervix model that encoders begin from; return what a person should know of it.

    Raises ConfigError where the file is another one, ModelError where a test woman's images made it: the home that the
    file lies in knows them.
    """
    for digest in sorted(asked.start_models):
        file = asked.path(asked.settings.machine.start_weights)
        with disk(file, "read"):
            is_it = digest_file(file) == digest
        if not is_it:
            raise ConfigError(
                f"{file} is not the cervix model {digest} that recipe.start names",
                cause="another file, or another version of it",
                next_step=f"edit {asked.file}: name its file, or write the digest of this one (sha256sum {file})",
            )
        home = SiteHome(file.parent.parent.parent)
        _check_not_retired(asked.file, home, file, digest)
        if not home.key_file(leak_guard.KEY).exists():
            return (f"nobody knows here whose images made {file.name}: none of a test woman may be among them",)
        model = model_store.read(file.parent)
        for collection in found.values():
            model_store.check_unseen_by_model(home, model, (i for i in collection.images if i.split == "test"))
    return ()


def _check_not_retired(config: Path, home: SiteHome, file: Path, digest: str) -> None:
    """Raise ModelError where the start is retired: in the home it lies in, or by decisions beside it."""
    beside = DecisionStore(file.parent / home.decisions.name).read()
    found = shelf.retired_among(beside, [digest], site=None) or retired_among(home, [digest])
    if found:
        raise ModelError(
            f"the model {digest[:SHORT]}, from which encoders would begin, is retired: {shelf.reason(found[1])}",
            cause="people have decided that this model, or one that it was made from, is not used any more",
            next_step=f"edit {config}: name another model in recipe.start, and its file as start_weights",
        )


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
            f"{asked.file}: the study divides the women again, but their splits are given by the manifest of "
            f"{', '.join(given)}",
            cause="its column split is filled",
            next_step="set folds = 0 and leave_out_devices = [], or use manifests without the column split",
        )
    found: dict[tuple[str, Fold], Collection] = {}
    for fold, splits in _divisions(asked, whole, [*links, *_linked(whole)]):
        for site in whole:
            home = places.home(site, fold)
            make_home(asked, site, home, places.home(site, None).manifest(), places.cache)
            _put_splits(home, splits, site)
            found[site, fold] = _index(asked, places, site, fold, on_progress)
    return found


def _divisions(
    asked: StudyConfig, whole: Mapping[str, Collection], links: Sequence[Link]
) -> Iterator[tuple[int, dict[Patient, Split]]]:
    axes, strata, seed = asked.settings.axes, _strata(whole), asked.settings.data.split_seed
    if not axes.leave_out_devices:
        return deals(strata, links, axes.folds, axes.fold_repeats, seed)
    devices = _devices(whole, strata, links, axes.leave_out_devices)
    return leave_out(devices, strata, links, axes.leave_out_devices, seed)


def _devices(
    whole: Mapping[str, Collection], strata: Mapping[Patient, Stratum], links: Sequence[Link], left_out: Sequence[str]
) -> dict[Patient, str]:
    """Return the device of each patient. Raises DataError where one is unknown, or left out beside others of hers."""
    known = grouped(((site, image.patient), image.device) for site, c in whole.items() for image in c.images)
    found = {group: {device for who in group for device in known[who]} for group in groups(strata, links)}
    unknown = [who for group, devices in found.items() if "" in devices for who in group]
    if unknown:
        raise DataError(
            f"pictures without a device: {_listed(unknown)}",
            cause="column device of the manifest is empty there: they may be of a device that is left out",
            next_step="fill in column device, or remove these women from a copy of the manifest",
        )
    mixed = [who for group, devices in found.items() if len(devices) > 1 and devices & set(left_out) for who in group]
    if mixed:
        raise DataError(
            f"pictures of a left-out device and of others: {_listed(mixed)}",
            cause="column device of the manifest, or women who were photographed with two devices",
            next_step="remove these women from a copy of the manifest: a device that trains is not left out",
        )
    return {who: devices[0] for who, devices in known.items()}


def _listed(women: Iterable[Patient]) -> str:
    """Return some women and their sites."""
    return "; ".join(at_most([f"{name} of {site}" for site, name in sorted(women)]))


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
