"""The models a site keeps: the cervix models it adopted or made itself, each with a record of where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedcervix import __version__
from fedcervix.core.bounds import DIGEST
from fedcervix.core.events import Task
from fedcervix.core.modes import title_of
from fedcervix.core.plan import Plan, Recipe, parse_recipe, recipe_to_dict
from fedcervix.disk.files import copy_file, digest_file
from fedcervix.disk.paths import Below
from fedcervix.errors import ModelError
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.typed_json import fields_of, from_json
from site_agent.home import SiteHome
from site_agent.store import archive, leak_guard
from site_agent.store.archive import utc_now
from site_agent.store.checksummed_records import damaged, read_record, unknown, write_record
from site_agent.store.leak_guard import Seen
from site_agent.store.provenance import KeptModel, Start
from site_agent.store.run_store import RunStore

if TYPE_CHECKING:
    from site_agent.data.collection import Image

WEIGHTS = "cervix-model.safetensors"
RECORD = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEpoch:
    """One epoch of a training at this site."""

    train_loss: float
    valid_loss: float
    knn_auc: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What stands in a record. Which keys there are depends on where the model was made, here or in a federation."""

    start: str
    """how the classifier's start is called in the tables: SSL, CSSL, CSFSSL, PPFSSL_NHS ..."""
    seed: int
    digest: str
    """SHA-256 of its weights file when it was kept"""
    made_at: str
    """UTC, ISO 8601"""
    software: str = ""
    images: str = ""
    run: str = ""
    """the federation's; empty for what the site made itself"""
    round: int | None = None
    plan_digest: str = ""
    mode: str = ""
    sites: tuple[str, ...] = ()
    best_epoch: int | None = None
    collections: int | None = None
    history: tuple[ModelEpoch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CervixModel(_Record):
    """One cervix model: a folder below models/, and what stands in its record."""

    folder: Path
    recipe: Recipe

    weights = Below(WEIGHTS)
    """The weights file."""

    @property
    def kept(self) -> KeptModel:
        """What provenance needs of it."""
        return KeptModel(label=self.start, name=self.folder.name, digest=self.digest, run=self.run)

    @property
    def as_start(self) -> Start:
        """What a classifier's provenance says of it."""
        return Start(
            name=self.folder.name,
            weights=self.digest,
            recipe=self.recipe,
            seed=self.seed,
            images=self.images,
            run=self.run,
            plan=self.plan_digest,
            sites=self.sites,
        )

    def check_architecture(self, recipe: Recipe) -> None:
        """Raise ModelError where nothing of this recipe can start from it."""
        if self.recipe.architecture != recipe.architecture:
            raise ModelError(
                f"model {self.folder.name} has the architecture {self.recipe.architecture}, "
                f"the recipe wants {recipe.architecture}",
                cause="it was trained with another recipe",
                next_step="give the recipe it was trained with: --recipe FILE or --profile NAME",
            )

    def check(self) -> None:
        """Raise ModelError where the weights file is no longer the one that was kept."""
        if digest_file(self.weights) != self.digest:
            raise ModelError(
                f"{self.weights} is not the file that its record names",
                cause="it was changed or damaged after it was saved",
                next_step=f"restore it from a backup, or {again(self.folder, self.start)}",
            )


def again(folder: Path, start: str = "SSL") -> str:
    """Return how a model is made again, as a command."""
    home = SiteHome(folder.parent.parent)
    if home.run_folder(folder.name).exists():
        return f"take part in another run; until then: {home.command('finetune --start random')}"
    pooled = " --also MANIFEST" if start == "CSSL" else ""
    return f"make it again: {home.command(f'pretrain --name {folder.name}{pooled}')}"


@dataclass(frozen=True, slots=True)
class Trained:
    """How a model was trained, for its record."""

    start: str
    recipe: Recipe
    seed: int
    more: Mapping[str, object]


def adopt(home: SiteHome, task: Task, plan: Plan, blobs: BlobStore, clock: Callable[[], datetime] = utc_now) -> None:
    """Keep the result of a run. Done twice, it does the same. Raises StorageError."""
    if _adopted(home.models / task.run, task, plan):
        return
    start = title_of(plan.mode, plan.sites)
    seen = _seen_in_run(home, task.run, plan)
    more = {
        "run": task.run,
        "round": task.round,
        "plan_digest": plan.digest,
        "mode": plan.mode,
        "sites": list(plan.sites),
        "images": seen.images,
    }
    trained = Trained(start, plan.recipe, plan.terms.seed, more)
    keep(home, task.run, blobs.path(task.base), trained, seen, clock())


def _adopted(folder: Path, task: Task, plan: Plan) -> bool:
    try:
        known = read(folder)
        known.check()
    except ModelError:
        return False
    return (known.digest, known.plan_digest) == (task.base, plan.digest)


def _seen_in_run(home: SiteHome, run: str, plan: Plan) -> Seen:
    """Return the women of all rounds of a run here; of a site that took part in no round, nobody."""
    folder = home.run_folder(run)
    took_part = RunStore(folder).has_worked()
    before = seen_by_start(home, plan.recipe)
    try:
        seen = leak_guard.read(folder, leak_guard.site_key(home), next_step="")
    except ModelError:
        return before | Seen(run=plan.digest, whole=not took_part)
    return seen if seen.run == plan.digest else before | Seen(run=plan.digest, whole=not took_part)


def keep(
    home: SiteHome,
    name: str,
    weights: Path,
    trained: Trained,
    seen: Seen,
    now: datetime,
) -> CervixModel:
    """Copy a weights file into models/NAME with its record and the women it was made with.

    A model that stood there goes into the history. Raises StorageError.
    """
    folder = home.models / name

    def fill(making: Path) -> str:
        digest = copy_file(weights, making / WEIGHTS)
        leak_guard.write(making, leak_guard.site_key(home), seen)
        record = {
            "start": trained.start,
            "recipe": recipe_to_dict(trained.recipe),
            "seed": trained.seed,
            "software": f"fedcervix {__version__}",
            **trained.more,
            "digest": digest,
            "made_at": now.isoformat(timespec="seconds"),
        }
        write_record(making / RECORD, record)
        return digest

    archive.install(home.folder, folder, fill, WEIGHTS)
    return read(folder)


def read(folder: Path) -> CervixModel:
    """Return the cervix model in a folder. Raises ModelError."""
    file = folder / RECORD
    history = SiteHome(folder.parent.parent).command("history")
    next_step = f"restore it from a backup, or {again(folder)}" if folder.is_dir() else history
    raw = read_record(file, what="cervix model", next_step=next_step)
    try:
        found = from_json(_Record, raw, extra="ignore")
        return CervixModel(folder=folder, recipe=parse_recipe(raw["recipe"]), **fields_of(found))  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(file, error, what="cervix model", next_step=next_step) from error


def named(home: SiteHome, name: str, other_starts: Iterable[str]) -> CervixModel:
    """Return the cervix model that is named as the start of a classifier, or given by its digest. Raises ModelError."""
    if DIGEST.fullmatch(name) and (model := of_digest(home, name)):
        return model
    folder = home.models / name
    if not (folder / RECORD).exists() and not (folder / WEIGHTS).exists():
        made = (str(place.relative_to(home.models)) for place in archive.entries(home.models, RECORD))
        use, make = home.command("finetune --start NAME"), home.command("pretrain")
        if same := [model.folder.name for model in found(home)[0] if model.start.lower() == name.lower()]:
            raise ModelError(
                f"there is no start {name}",
                cause=f"that is the kind of a model; the models of this kind here: {', '.join(same)}",
                next_step=use.replace("NAME", same[-1]),
            )
        raise unknown("start", name, [*other_starts, *made], use=use, make=make)
    return read(folder)


def of_digest(home: SiteHome, digest: str) -> CervixModel | None:
    """Return the site's cervix model with these weights, if any. Raises ModelError where they were changed."""
    models, _ = found(home) if digest else ([], {})
    model = next((model for model in models if model.digest == digest), None)
    if model:
        model.check()
    return model


def start_weights(home: SiteHome, recipe: Recipe) -> Path | None:
    """Return the weights file that a recipe starts from; None: there is none, or ImageNet's of no named file.

    Raises ModelError where the recipe names a model that is not here.
    """
    if not recipe.start_model:
        return home.imagenet_weights()
    if model := of_digest(home, recipe.start_model):
        model.check_architecture(recipe)
        return model.weights
    if (file := home.start_weights()) and file.is_file() and digest_file(file) == recipe.start_model:
        return file
    raise ModelError(
        f"the recipe starts from the cervix model {recipe.start_model}, which is not here",
        cause=f"no model below {home.models} has this digest, nor has the file of [hardware] start_weights",
        next_step=f"see the models here: {home.command('history')}; or name the file in {home.config_file}: "
        "start_weights under [hardware]",
    )


def seen_by_start(home: SiteHome, recipe: Recipe) -> Seen:
    """Return the women of this site whose images made the model that a recipe starts from: whose it is kept here.

    Where its file of women cannot be read, what is made from it is not `whole`.
    """
    try:
        model = of_digest(home, recipe.start_model)
        return leak_guard.read(model.folder, leak_guard.site_key(home), next_step="") if model else Seen()
    except ModelError:
        return Seen(whole=False)


def found(home: SiteHome) -> tuple[list[CervixModel], dict[str, ModelError]]:
    """Return the site's cervix models, oldest first, and by name what is wrong with those that cannot be read."""
    whole, broken = [], dict[str, ModelError]()
    for folder in archive.entries(home.models, RECORD):
        try:
            whole.append(read(folder))
        except ModelError as error:
            broken[folder.name] = error
    return sorted(whole, key=lambda model: model.made_at), broken


def check_unseen_by_model(home: SiteHome, model: CervixModel, test: Iterable[Image]) -> Seen:
    """Return the women whose images made a model.

    Raises ModelError if a woman of the test images is among them, or if this is not known.
    """
    key = leak_guard.site_key(home)
    what, next_step = f"model {model.folder.name}", again(model.folder, model.start)
    seen = leak_guard.read(model.folder, key, next_step=next_step)
    leak_guard.check_unseen(seen, key, test, what=what, next_step=next_step)
    return seen
