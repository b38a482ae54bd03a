"""The commands that train at the site alone: pretrain (SSL, CSSL) and finetune."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import torch

from fedcervix.config import apply_profile, read_toml
from fedcervix.errors import ModelError
from fedcervix.metrics import best_threshold
from fedcervix.plan import Plan, Recipe
from fedcervix.profiles import PROFILES
from fedcervix.seeds import derive
from site_agent import classifiers, dataset, models
from site_agent.collection import index
from site_agent.contrast import collapse_loss
from site_agent.devices import choose, prepare
from site_agent.display import Display
from site_agent.finetune import build_classifier, predict
from site_agent.finetune import finetune as fit
from site_agent.gauges import alarms
from site_agent.home import SiteHome
from site_agent.model import backbone_state, build_encoder, load_imagenet, load_weights, save_weights, start_encoder
from site_agent.pretrain import Epoch, Images
from site_agent.pretrain import pretrain as train
from site_agent.runs import last_federation
from site_agent.tasks import first_seed


@dataclass(frozen=True, slots=True)
class Setting:
    """With what a command trains, and where that comes from."""

    recipe: Recipe
    seed: int
    source: str


def setting(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None) -> Setting:
    """Return the recipe: of a file, of a profile, of the last run's plan, or the paper's."""
    if recipe_file is not None:
        raw = read_toml(recipe_file)
        found = apply_profile(raw.pop("profile", "paper"), raw, {}, source=recipe_file)
        return Setting(found.recipe, seed or 0, str(recipe_file))
    if profile is not None:
        return Setting(PROFILES[profile].recipe, seed or 0, f"profile {profile}")
    plan = last_plan(home)
    if plan is not None:
        return Setting(plan.recipe, plan.terms.seed if seed is None else seed, "the last run's plan")
    return Setting(PROFILES["paper"].recipe, seed or 0, "profile paper")


def last_plan(home: SiteHome) -> Plan | None:
    """Return the plan of the run that this site took part in last."""
    federation = last_federation(home)
    return federation.plan if federation else None


def site_name(home: SiteHome) -> str:
    """Return the site's name; a site that has not joined a federation is called `site`."""
    return home.certificate().identity.name if home.key_file("site.crt").exists() else "site"


def ready_device(home: SiteHome) -> torch.device:
    """Return the device of the site's configuration, with the process set up for it."""
    hardware = home.config().hardware
    device = choose(hardware.device)
    prepare(device, hardware.threads or len(os.sched_getaffinity(0)))
    return device


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--seed", type=click.IntRange(min=0), help="Default: that of the last run, or 0."),
        click.option("--recipe", "recipe_file", type=click.Path(path_type=Path), help="TOML file with recipe keys."),
        click.option("--profile", type=click.Choice(list(PROFILES)), help="Default: the last run's recipe, or paper."),
    ):
        command = option(command)
    return command


@click.command("pretrain")
@_recipe_options
@click.option(
    "--also", type=click.Path(path_type=Path), multiple=True, help="Further manifests to pool (CSSL), where allowed."
)
@click.pass_obj
def pretrain(
    home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None, also: tuple[Path, ...]
) -> None:
    """Train a cervix model on this site's images alone (SSL), or on pooled manifests (CSSL)."""
    used = setting(home, profile, recipe_file, seed)
    device, display, site = ready_device(home), Display(), site_name(home)
    click.echo(f"contrastive training on {device}, recipe of {used.source}", err=True)
    train_images, valid_images = (_pooled(home, used.recipe, split, also, display) for split in ("train", "valid"))
    weights = home.config().hardware.imagenet_weights
    encoder = start_encoder(used.recipe, first_seed(used.seed), Path(weights) if weights else None)
    try:
        trained = train(
            train_images,
            valid_images,
            used.recipe,
            seed=used.seed,
            stream=site,
            encoder=encoder,
            device=device,
            on_step=lambda step: display.show(
                "progress",
                {
                    "task": f"epoch {step.epoch}",
                    "stage": "training",
                    "done": step.step,
                    "of": step.steps,
                    "unit": "steps",
                    "loss": step.loss_sum / step.step,
                },
            ),
            on_epoch=lambda epoch: display.show("said", {"text": _epoch_line(epoch, used.recipe)}),
        )
    finally:
        display.close()
    start = "CSSL" if also else "SSL"
    making = home.models / f".{start.lower()}.safetensors"
    digest = save_weights(making, trained.best_state)
    more = {
        "digest": digest,
        "best_epoch": trained.best_epoch,
        "collections": 1 + len(also),
        "train_images": len(train_images),
        "history": [
            {
                "epoch": e.train.epoch,
                "train_loss": e.train.loss,
                "valid_loss": e.valid.loss,
                "gauges": dataclasses.asdict(e.valid.gauges),
            }
            for e in trained.history
        ],
    }
    kept = models.keep(home, start.lower(), start, used.recipe, used.seed, making, more)
    models.remember_women(kept.folder, (*train_images.patients, *valid_images.patients))
    making.unlink()
    click.echo(f"kept epoch {trained.best_epoch} of {len(trained.history)}: {kept.weights}")
    click.echo(f"next: site-agent --home {home.folder} finetune")


def _epoch_line(epoch: Epoch, recipe: Recipe) -> str:
    line = collapse_loss(recipe.batch_images, recipe.loss)
    said = (
        f"epoch {epoch.train.epoch}: loss {epoch.train.loss:.4f}, validation {epoch.valid.loss:.4f} "
        f"(collapse at {line:.4f}), {epoch.train.images / max(1e-9, epoch.train.seconds):.0f} images/s"
    )
    found = alarms(epoch.valid.gauges, epoch.valid.loss, recipe.batch_images, recipe.loss)
    return "\n          ".join([said, *found])


def _pooled(home: SiteHome, recipe: Recipe, split: str, also: tuple[Path, ...], display: Display) -> Images:
    """Return this site's images of a split, with those of further manifests behind them.

    A picture that is in another part of any of the collections is left out: no test woman trains under another name.
    """
    data, own = home.config().data, dataset.open_collection(home, _reading(display))
    collections = [own]
    for manifest in also:
        name = hashlib.sha256(str(manifest.resolve()).encode()).hexdigest()[:12]
        collections.append(
            index(
                manifest,
                splits_file=home.folder / f"splits-{name}.csv",
                seed=data.split_seed,
                unreadable_max=data.unreadable_max,
                cache_folder=home.cache,
            )
        )
    barred = {image.digest for collection in collections for image in collection.images if image.split != split}
    parts = []
    for number, collection in enumerate(collections):
        images = dataset.contrastive(home, collection, recipe, split, _reading(display))
        kept = [k for k, image in enumerate(collection.contrastive(_part(split))) if image.digest not in barred]
        women = (images.patients[k] if number == 0 else f"{number}:{images.patients[k]}" for k in kept)
        parts.append(Images(images.pixels[kept], tuple(women)))
    return dataset.joined(parts)


def _part(split: str) -> Literal["train", "valid"]:
    return "train" if split == "train" else "valid"


def _reading(display: Display) -> Callable[[int, int], None]:
    return lambda done, of: display.show(
        "progress", {"task": "images", "stage": "reading", "done": done, "of": of, "unit": "images"}
    )


@click.command("finetune")
@_recipe_options
@click.option(
    "--start",
    "starts",
    multiple=True,
    help="random, imagenet, or the name of a model below models/. Default: random and every model there.",
)
@click.pass_obj
def finetune(
    home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None, starts: tuple[str, ...]
) -> None:
    """Fine-tune classifiers on this site's labels, one from each start."""
    used = setting(home, profile, recipe_file, seed)
    device, display = ready_device(home), Display()
    click.echo(f"fine-tuning on {device}, recipe of {used.source}", err=True)
    collection = dataset.open_collection(home, _reading(display))
    train_part, valid_part = (
        dataset.labelled(home, collection, used.recipe, split, _reading(display)) for split in ("train", "valid")
    )
    test_women = {image.woman for image in collection.images if image.split == "test"}
    names = starts or ("random", *(model.folder.name for model in _newest(home)))
    for name in names:
        label, state, origin = _start(home, name, used.recipe, test_women)
        classifier, loaded = build_classifier(used.recipe, used.seed, state)
        taken = f"{loaded.tensors} of {loaded.of} backbone tensors" if loaded else "no tensors: random weights"
        display.show("said", {"text": f"start {label}: loaded {taken}"})
        try:
            fitted = fit(
                classifier,
                train_part,
                valid_part,
                used.recipe,
                seed=used.seed,
                stream=site_name(home),
                device=device,
                on_epoch=lambda _epoch: None,
                on_step=_steps(display, label),
            )
        finally:
            display.close()
        threshold = best_threshold(valid_part.labels, predict(classifier, valid_part.pixels, device=device))
        kept = classifiers.keep(
            home,
            label,
            fitted,
            used.recipe,
            seed=used.seed,
            threshold=float(threshold),
            collection=collection.digest,
            origin=origin,
        )
        best = fitted.history[fitted.best_epoch - 1]
        click.echo(
            f"{label}: kept epoch {fitted.best_epoch} of {len(fitted.history)}, validation loss {best.valid_loss:.4f}, "
            f"threshold {threshold:.3f}: {kept.folder}"
        )
    click.echo(f"next: site-agent --home {home.folder} evaluate")


def _steps(display: Display, label: str) -> Callable[[int, int, int], None]:
    return lambda epoch, step, steps: display.show(
        "progress", {"task": label, "stage": f"epoch {epoch}", "done": step, "of": steps, "unit": "steps"}
    )


def _newest(home: SiteHome) -> list[models.CervixModel]:
    """Return the newest model of each kind: an older federation's result is not fine-tuned again by default."""
    by_start = {model.start: model for model in models.all_models(home)}
    return list(by_start.values())


def _start(
    home: SiteHome, name: str, recipe: Recipe, test_women: set[str]
) -> tuple[str, dict[str, torch.Tensor] | None, dict[str, Any]]:
    """Return (label, weights to start from, where they come from). Raises ModelError."""
    if name == "random":
        return "Random", None, {}
    if name == "imagenet":
        weights = home.config().hardware.imagenet_weights
        encoder = build_encoder(recipe, derive(0, "imagenet-head"))
        load_imagenet(encoder, Path(weights) if weights else None)
        return "ImageNet", backbone_state(encoder.state_dict()), {"weights": weights or "torchvision"}
    model = models.read(home.models / name)
    made_in = home.run_folder(model.record["run"]) if "run" in model.record else model.folder
    models.check_unseen(made_in, test_women, what=f"model {name}")
    if model.recipe.architecture != recipe.architecture:
        raise ModelError(
            f"model {name} is a {model.recipe.architecture}, the recipe wants a {recipe.architecture}",
            cause="it was trained with another recipe",
            next_step="give the recipe it was trained with: --recipe FILE or --profile NAME",
        )
    origin: dict[str, Any] = {
        key: model.record[key] for key in ("run", "round", "digest", "plan_digest") if key in model.record
    }
    return model.start, load_weights(model.weights), origin
