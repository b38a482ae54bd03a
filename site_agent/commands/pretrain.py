"""The command `pretrain`: contrastive training at the site alone (SSL), or on pooled collections (CSSL)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fedcervix.core.plan import Recipe, canonical_json, recipe_to_dict
from fedcervix.disk.storage import disk
from fedcervix.errors import ModelError, StorageError
from fedcervix.runtime.printing import say
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.commands.command_line import command_line
from site_agent.commands.display import Display
from site_agent.commands.open_images import open_images
from site_agent.commands.setting import (
    RECIPE_OPTIONS,
    Setting,
    check_start_usable,
    machine_of,
    reading,
    site_name,
)
from site_agent.commands.stopping import stops
from site_agent.data import dataset
from site_agent.data.collection import Collection, can, digest_of, index
from site_agent.data.remarks import of_recipe
from site_agent.federation import shown
from site_agent.home import SiteHome
from site_agent.network.encoder import Encoder, save_weights
from site_agent.network.first_weights import start_encoder
from site_agent.network.precision import resolve_precision
from site_agent.report.report_data import contact_sheet
from site_agent.report.tensorboard import Events, require_tensorboard
from site_agent.store import leak_guard, model_store
from site_agent.store.archive import utc_now
from site_agent.store.leak_guard import Seen
from site_agent.training.context import TrainingContext
from site_agent.training.knn_probe import label_probe
from site_agent.training.loop import Epoch, Position, StepReport
from site_agent.training.monitor import epoch_line, images_per_s
from site_agent.training.pretrain import Callbacks, Pretrained
from site_agent.training.pretrain import pretrain as train
from site_agent.training.stopping import Stop, Stoppable
from site_agent.worker.tasks import first_seed

Part = Literal["train", "valid"]
COPIES = 2
"""of the weights that lie on the disk while a model is kept"""
PARTS: tuple[Part, Part] = ("train", "valid")


def pretrain(
    home: SiteHome,
    used: Setting,
    also: tuple[Path, ...],
    tensorboard: Path | None,
    name: str,
    restart: bool,
    *,
    force_retired: bool = False,
) -> None:
    """Train a cervix model on this site's images alone (SSL), or on pooled manifests (CSSL).

    An interrupted training continues from its last checkpoint when the same command is given again. An earlier model in
    the folder is moved to the history (site-agent history).
    """
    folder = home.models / (name or ("cssl" if also else "ssl"))
    _check_place(home, folder)
    check_start_usable(home, used, command_line(home, "pretrain"), forced=force_retired)
    with home.locked("lock-pretrain", who="another pretrain"), stops(command_line(home, "pretrain")) as stop:
        machine, display, site = machine_of(home, used.recipe), Display(), site_name(home)
        recipe = resolve_precision(used.recipe, machine.device, home.cache)
        say(f"contrastive training on {machine.device} in {recipe.precision}, recipe of {used.source}", err=True)
        with contextlib.ExitStack() as stack:
            stack.callback(display.close)
            require_tensorboard(tensorboard)
            collections = _collections(home, also, display, recipe)
            _check_start(home, recipe, collections[0])
            _say_notes(collections[0], recipe)
            contract = _contract(recipe, used.seed, site, collections)
            events = _events(stack, tensorboard, recipe, folder.name, contract)
            parts = {split: dataset.pooled(home, collections, recipe, split, reading(display)) for split in PARTS}
            encoder = _first_encoder(home, recipe, used.seed)
            checkpoints = _checkpoints(home, contract, stop, restart=restart)
            if events:
                events.sheet(contact_sheet(home, collections[0], recipe, used.seed))
            watch = Watch(recipe, display, events)
            with stop.waits_for_checkpoint():
                trained = train(
                    encoder,
                    parts["train"],
                    parts["valid"],
                    TrainingContext(recipe=recipe, seed=used.seed, stream=site, machine=machine),
                    Callbacks(watch.step, watch.epoch, watch.resumed),
                    probe=label_probe(home, collections[0], recipe, machine.device),
                    checkpoints=checkpoints,
                )
        kept = _keep(home, used, folder.name, recipe, trained, collections)
        checkpoints.drop()
        say(f"kept epoch {trained.best_epoch} of {len(trained.history)}: {kept.weights}")
        say(_next(home, collections[0], recipe))


def _say_notes(collection: Collection, recipe: Recipe) -> None:
    for line in of_recipe(collection, recipe):
        say(f"note: {line}", err=True)


def _first_encoder(home: SiteHome, recipe: Recipe, seed: int) -> Encoder:
    """Return the network to begin with. Raises StorageError where the disk has no room for what is kept of it."""
    encoder = start_encoder(recipe, first_seed(seed), model_store.start_weights(home, recipe))
    check_room(home.models, COPIES * sum(tensor.nbytes for tensor in encoder.state_dict().values()))
    return encoder


def _checkpoints(home: SiteHome, contract: str, stop: Stop, *, restart: bool) -> Stoppable:
    checkpoints = Stoppable(home.folder / "checkpoints", contract, stop)
    if restart:
        checkpoints.drop()
    return checkpoints


def _next(home: SiteHome, collection: Collection, recipe: Recipe) -> str:
    if can(collection.of_stages(recipe.stages), "finetune"):
        return f"next: {command_line(home, 'finetune', RECIPE_OPTIONS)}"
    return "to fine-tune a classifier, at least 3 labelled women of each class are needed here"


def _check_place(home: SiteHome, folder: Path) -> None:
    """Raise ModelError where the folder holds a federation's model. That a run has the name alone does no harm."""
    if _holds_model_of_run(folder):
        raise ModelError(
            f"{folder} holds the model of run {folder.name}",
            cause="a run of this federation has this name",
            next_step=f"{command_line(home, 'pretrain', RECIPE_OPTIONS)} --name {folder.name}-local",
        )


def _check_start(home: SiteHome, recipe: Recipe, collection: Collection) -> None:
    """Raise ModelError where a woman of the test part has made the model that the training starts from."""
    if model := model_store.of_digest(home, recipe.start_model):
        model_store.check_unseen_by_model(home, model, (i for i in collection.images if i.split == "test"))


def _holds_model_of_run(folder: Path) -> bool:
    with contextlib.suppress(ModelError):
        return bool(model_store.read(folder).run)
    return False


def check_room(folder: Path, needed: int) -> None:
    """Raise StorageError where a model will not find its bytes: now, not after days of training."""
    with disk(folder, "write"):
        folder.mkdir(exist_ok=True)
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder} has room for {free:,} bytes; keeping the trained model takes {needed:,}",
            cause="the disk is full",
            next_step=f"free some space (df -h {folder}) and start again",
        )


def _events(
    stack: contextlib.ExitStack, folder: Path | None, recipe: Recipe, name: str, contract: str
) -> Events | None:
    """Open the event files of a training: in a folder of its own, or the curves of two trainings would be one."""
    if folder is None:
        return None
    of_training = hashlib.sha256(contract.encode()).hexdigest()[:8]
    return stack.enter_context(Events(folder / f"{name}-{of_training}", recipe))


def _contract(recipe: Recipe, seed: int, site: str, collections: Sequence[Collection]) -> str:
    """Return what a checkpoint of this training depends on."""
    images = " ".join(collection.digest for collection in collections)
    return f"{canonical_json(recipe_to_dict(recipe))} {seed} {site} {images}"


def _keep(
    home: SiteHome, used: Setting, name: str, recipe: Recipe, trained: Pretrained, collections: Sequence[Collection]
) -> model_store.CervixModel:
    """Keep the trained model with its record."""
    start = "CSSL" if len(collections) > 1 else "SSL"
    making = home.models / f".{name}.safetensors"
    save_weights(making, trained.best_state)
    more = {
        "best_epoch": trained.best_epoch,
        "collections": len(collections),
        "train_images": sum(map(len, dataset.pooled_images(collections, "train", recipe.stages))),
        "images": digest_of(collections[0].images),
        "history": [_history(epoch) for epoch in trained.history],
    }
    seen = model_store.seen_by_start(home, recipe)
    seen |= seen_by(leak_guard.site_key(home), collections, recipe.stages)
    kept = model_store.keep(home, name, making, model_store.Trained(start, recipe, used.seed, more), seen, utc_now())
    making.unlink()
    return kept


def seen_by(key: leak_guard.SiteKey, collections: Sequence[Collection], stages: Sequence[str] = ()) -> Seen:
    """Return whose images a training on these collections uses, or on their images of some stages.

    Of women in other hospitals' manifests the pictures are remembered: their identifiers may be those of others here.
    """
    parts = [dataset.pooled_images(collections, split, stages) for split in PARTS]
    own, others = ([image for part in parts for image in part[place]] for place in (0, 1))
    seen = key.seen(own, digest=digest_of(collections[0].images))
    return dataclasses.replace(seen, pictures=seen.pictures | key.pictures(image.digest for image in others))


def _history(epoch: Epoch) -> dict[str, object]:
    return {
        "epoch": epoch.train.epoch,
        "train_loss": epoch.train.loss,
        "valid_loss": epoch.valid.loss,
        "gauges": dataclasses.asdict(epoch.valid.gauges),
        "knn_auc": epoch.knn_auc,
        "images_per_s": images_per_s(epoch),
    }


class Watch:
    """Shows the progress of a training."""

    def __init__(self, recipe: Recipe, display: Display, events: Events | None) -> None:
        self._recipe, self._display, self._events = recipe, display, events
        self._started_s, self._timed = time.monotonic(), 0

    def resumed(self, position: Position) -> None:
        """Show that an interrupted training continues."""
        where = f"epoch {position.epoch} of {self._recipe.epochs_max}, after step {position.step}"
        self._display.show(shown.Message(f"continues from its checkpoint: {where}"))

    def step(self, step: StepReport) -> None:
        """Draw a step."""
        progress = WorkProgress("training", step.step, step.steps, "steps", step.loss_sum / step.step)
        self._display.show(shown.Advanced(f"epoch {step.epoch}", progress))
        if self._events:
            self._events.step(step)

    def epoch(self, epoch: Epoch) -> None:
        """Say how an epoch went."""
        self._timed += 1
        seconds = time.monotonic() - self._started_s
        lines = epoch_line(epoch, self._recipe, seconds=seconds, timed_epochs=self._timed)
        self._display.show(shown.Message(shown.NEXT_LINE.join(lines)))
        if self._events:
            self._events.epoch(epoch)


def _collections(home: SiteHome, also: Sequence[Path], display: Display, recipe: Recipe) -> list[Collection]:
    """Return this site's collection, and those of further manifests behind it."""
    of_home, collections = dataset.settings_of(home, [recipe]), [open_images(home, display, recipe)]
    for manifest in also:
        name = hashlib.sha256(str(manifest.resolve()).encode()).hexdigest()[:12]
        collections.append(
            index(manifest, dataclasses.replace(of_home, splits_file=home.folder / f"splits-{name}.csv", not_same=None))
        )
    return collections
