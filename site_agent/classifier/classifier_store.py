"""The classifiers a site has fine-tuned: sets of them, each classifier in a folder with how it came about.

    classifiers/csfssl/          a classifier of the site's first set, which has no name: one folder for each start
    classifiers/NAME/csfssl/     a classifier of the set NAME (`finetune --name NAME`)

Only the classifiers of one set are compared. One that is made anew takes the place of the one before it, which goes
into the history (see `archive`).
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedcervix import __version__
from fedcervix.core.plan import Recipe
from fedcervix.disk.files import digest_file, write_secret
from fedcervix.disk.paths import Below
from fedcervix.errors import ModelError
from fedcervix.runtime.typed_json import from_json
from site_agent.classifier.zone import Zone
from site_agent.data import site_colours
from site_agent.home import SiteHome
from site_agent.images.preparation import SiteColour
from site_agent.manifest.classes import Classes
from site_agent.starts import RINGS, TITLES, UNTRAINED
from site_agent.store import archive, leak_guard
from site_agent.store.checksummed_records import damaged, read_record, unknown, write_record
from site_agent.store.leak_guard import Seen
from site_agent.store.provenance import Provenance
from site_agent.training.epochs import EpochRecord

if TYPE_CHECKING:
    from site_agent.classifier.finetune import Finetuned, Network
    from site_agent.classifier.privacy_accounting import PrivateHead
    from site_agent.classifier.trainings import TrainedClassifier
    from site_agent.data.collection import Image

WEIGHTS = "classifier.safetensors"
RECORD = "record.json"
PRIVATE_HEAD = "private-head.json"
"""of a private classifier: the only one of its files that may leave the site"""
ORDER = (*TITLES.values(), *(ring.upper() for ring in RINGS))
"""how the paper lists the initialisations"""


@dataclass(frozen=True, slots=True)
class _Promise:
    """What is read of the part `privacy` of a record."""

    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What is read from the record of a classifier."""

    provenance: Mapping[str, object]
    threshold: float
    history: tuple[EpochRecord, ...]
    software: str = ""
    privacy: _Promise | None = None
    zone: Zone | None = None
    classes: Classes | None = None
    site_colour: SiteColour | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """What goes with a classifier's weights: how its scores become calls."""

    threshold: float
    """chosen on validation images"""
    zone: Zone | None = None
    classes: Classes | None = None


@dataclass(frozen=True, slots=True)
class StoredClassifier:
    """One fine-tuned classifier."""

    folder: Path
    threshold: float
    """chosen on validation images"""
    provenance: Provenance
    history: tuple[EpochRecord, ...]
    """its training curve; of several trainings, the first one's"""
    software: str
    """with which it was fine-tuned"""
    epsilon: float | None = None
    """how much its head tells of one woman, at most; None where nothing is promised"""
    zone: Zone | None = None
    """where it does not decide, calibrated on validation women; None where none was asked for"""
    classes: Classes | None = None
    """that it learned, where these are more than two; see `trainings.class_probabilities`"""
    colour: SiteColour | None = None
    """how its pictures were brought to the reference; None where its recipe does not harmonise"""

    @property
    def start(self) -> str:
        """The initialisation: Random, ImageNet, SSL, CSSL, CSFSSL, PPFSSL_..."""
        return self.provenance.label

    @property
    def recipe(self) -> Recipe:
        """With which it was fine-tuned."""
        return self.provenance.recipe

    @property
    def seed(self) -> int:
        """Of its random numbers."""
        return self.provenance.seed

    weights = Below(WEIGHTS)
    """The weights file."""

    def check(self) -> None:
        """Raise ModelError where the weights file is no longer the one that was kept."""
        if digest_file(self.weights) != self.provenance.weights:
            raise ModelError(
                f"{self.weights} is not the file that its record names",
                cause="it was changed or damaged after it was saved",
                next_step=_again(self.folder, self.provenance.start.name),
            )

    def build(self) -> Network:
        """Return the network with its weights. Raises ModelError, also where the file was changed."""
        from site_agent.classifier import trainings
        from site_agent.network.encoder import load_weights

        self.check()
        return trainings.restore(self.recipe, load_weights(self.weights), what=f"classifier {self.start}")


def folder_of(home: SiteHome, name: str = "") -> Path:
    """Return the folder of a set of classifiers; of the first one without a name."""
    return home.folder / "classifiers" / name


def keep(
    home: SiteHome,
    name: str,
    made: TrainedClassifier,
    provenance: Provenance,
    *,
    decided: Decisions,
    seen: Seen,
    private: PrivateHead | None = None,
) -> StoredClassifier:
    """Write a classifier of the set `name` with its record and the women it was made with.

    `provenance` has no digest of weights yet; `private` is what is promised of a private head. A classifier that stood
    there goes into the history. Raises StorageError.
    """
    import torch

    from site_agent.network.encoder import save_weights

    folder = folder_of(home, name) / provenance.label.lower()

    def fill(making: Path) -> str:
        digest = save_weights(making / WEIGHTS, made.state)
        (making / WEIGHTS).chmod(0o600)
        leak_guard.write(making, leak_guard.site_key(home), seen)
        record: dict[str, object] = {
            "provenance": dataclasses.replace(provenance, weights=digest).to_json(),
            "threshold": decided.threshold,
            **_course(made.fits[0]),
            "software": f"fedcervix {__version__}, torch {torch.__version__}",
        }
        if further := made.fits[1:]:
            record["further_trainings"] = [_course(one) for one in further]
        for key, value in (("zone", decided.zone), ("classes", decided.classes)):
            if value is not None:
                record[key] = dataclasses.asdict(value)
        if colour := site_colours.kept(home, provenance.recipe):
            record["site_colour"] = dataclasses.asdict(colour)
        if private is not None:
            record["privacy"] = dataclasses.asdict(private.privacy)
            write_secret(making / PRIVATE_HEAD, private.leaves.encode())
        write_record(making / RECORD, record)
        return digest

    archive.install(home.folder, folder, fill, WEIGHTS)
    return read(folder)


def _course(fitted: Finetuned) -> dict[str, object]:
    """Return how one training went."""
    history = [dataclasses.asdict(epoch) for epoch in fitted.history]
    return {"best_epoch": fitted.best_epoch, "stopped": fitted.stopped, "history": history}


def read(folder: Path) -> StoredClassifier:
    """Return the classifier in a folder. Raises ModelError."""
    file = folder / RECORD
    next_step = _again(folder, folder.name) if folder.is_dir() else _where_to_look(folder)
    raw = read_record(file, what="classifier", next_step=next_step)
    try:
        found = from_json(_Record, raw, extra="ignore")
        provenance = Provenance.from_json(found.provenance)
        epsilon = found.privacy.epsilon if found.privacy else None
        return StoredClassifier(
            folder,
            found.threshold,
            provenance,
            found.history,
            found.software,
            epsilon,
            found.zone,
            found.classes,
            colour=_colour(found, provenance.recipe),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(file, error, what="classifier", next_step=next_step) from error


def _colour(found: _Record, recipe: Recipe) -> SiteColour | None:
    if (found.site_colour is not None) != (recipe.harmonise != "none"):
        raise ValueError("site_colour is said where the recipe harmonises, and only there")
    return found.site_colour


def named(home: SiteHome, name: str) -> StoredClassifier:
    """Return the classifier in a folder below classifiers/, or at a path. Raises ModelError."""
    below = folder_of(home) / name
    folder = below if below.is_dir() else Path(name)
    if not (folder / RECORD).exists() and not (folder / WEIGHTS).exists():
        existing = [str(place.relative_to(folder_of(home))) for place in archive.entries(folder_of(home), RECORD)]
        use, make = home.command("predict NAME IMAGES"), home.command("finetune")
        raise unknown("classifier", name, existing, use=use, make=make)
    return read(folder)


def _home_of(folder: Path) -> SiteHome | None:
    home = next((above for above in folder.parents if (above / "site.toml").exists()), None)
    return SiteHome(home) if home else None


def _where_to_look(folder: Path) -> str:
    """Return the command that helps where there is no such classifier: it lists what there is, or makes the first."""
    home = _home_of(folder)
    if home is None:
        return "site-agent history"
    return home.command("history" if names(home) else "finetune")


def _again(folder: Path, name: str) -> str:
    """Return the command that makes a classifier again, in the set that the folder lies in."""
    home, start = _home_of(folder), name if name in UNTRAINED else ""
    if home is None:
        return "site-agent finetune"
    words = [home.command("finetune")]
    words += [f"--name {folder.parent.name}"] if folder.parent.parent.name == "classifiers" else []
    words += [f"--start {start}"] if start else []
    return " ".join(words)


def found(home: SiteHome, name: str = "") -> tuple[list[StoredClassifier], dict[str, ModelError]]:
    """Return the classifiers of a set in the paper's order, and by name what is wrong with the others."""
    whole, broken = [], dict[str, ModelError]()
    for file in sorted(folder_of(home, name).glob(f"*/{RECORD}")):
        try:
            if not file.parent.name.startswith("."):
                whole.append(_in_place(read(file.parent)))
        except ModelError as error:
            broken[file.parent.name] = error
    return sorted(whole, key=lambda c: (_rank(c.start, ORDER), c.start)), broken


def _in_place(found: StoredClassifier) -> StoredClassifier:
    """Raise ModelError where a classifier lies in another folder than that of its start: a set has one of each."""
    if found.folder.name != found.start.lower():
        raise ModelError(
            f"{found.folder} holds the classifier {found.start}, whose folder is {found.start.lower()}",
            cause="the folder was copied or renamed by hand",
            next_step=f"mv {shlex.quote(str(found.folder))} to a place outside classifiers",
        )
    return found


def names(home: SiteHome) -> list[str]:
    """Return the names of the site's sets; the first one's is empty."""
    folder = folder_of(home)
    sets = (place.parent for place in archive.entries(folder, RECORD))
    return sorted({str(place.relative_to(folder)).removeprefix(".") for place in sets})


def check_unseen_by_classifiers(home: SiteHome, stored: Sequence[StoredClassifier], test: Iterable[Image]) -> None:
    """Raise ModelError where a woman of the test images took part in making a classifier, or nobody can tell."""
    key, images = leak_guard.site_key(home), tuple(test)
    for one in stored:
        next_step = _again(one.folder, one.provenance.start.name)
        seen = leak_guard.read(one.folder, key, next_step=next_step)
        leak_guard.check_unseen(seen, key, images, what=f"classifier {one.start}", next_step=next_step)


def check_colours(home: SiteHome, stored: Iterable[StoredClassifier]) -> None:
    """Raise ModelError where a classifier was made with other colours of the site than those that are kept now."""
    for one in stored:
        if one.colour != site_colours.kept(home, one.recipe):
            raise ModelError(
                f"classifier {one.start} was made with other colours of the site than {home.colours} holds",
                cause="that file was deleted or replaced since, or the classifier is of another site",
                next_step=f"restore it from a backup, or fine-tune: {_again(one.folder, one.provenance.start.name)}",
            )


def _rank(start: str, order: Sequence[str]) -> int:
    family = start.split("_")[0]
    return order.index(family) if family in order else len(order)
