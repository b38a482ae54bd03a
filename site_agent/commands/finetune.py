"""The command `finetune`: classifiers on the site's labels, one from each start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from fedcervix.errors import ModelError
from fedcervix.metrics import best_threshold
from fedcervix.plan import Recipe
from fedcervix.seeds import derive
from site_agent import classifiers, dataset, models
from site_agent.commands.collection import open_images
from site_agent.commands.setting import Setting, machine_of, reading, site_name
from site_agent.commands.stopping import command_line, stops
from site_agent.display import Display
from site_agent.finetune import build_classifier, predict
from site_agent.finetune import finetune as fit
from site_agent.home import SiteHome
from site_agent.model import backbone_state, build_encoder, load_imagenet, load_weights
from site_agent.precision import settled


def finetune(home: SiteHome, used: Setting, starts: tuple[str, ...]) -> None:
    """Fine-tune classifiers on this site's labels, one from each start."""
    with home.locked("lock-finetune", who="another finetune"), stops(command_line(home, "finetune")):
        _finetune(home, used, starts)


def _finetune(home: SiteHome, used: Setting, starts: tuple[str, ...]) -> None:
    machine, display = machine_of(home, used.recipe), Display()
    device, recipe = machine.device, settled(used.recipe, machine.device, home.cache)
    click.echo(f"fine-tuning on {device} in {recipe.precision}, recipe of {used.source}", err=True)
    collection = open_images(home, display)
    train_part, valid_part = (
        dataset.labelled(home, collection, recipe, split, reading(display)) for split in ("train", "valid")
    )
    test_women = {image.woman for image in collection.images if image.split == "test"}
    names = starts or ("random", *(model.folder.name for model in _newest(home)))
    for name in names:
        label, state, origin = _start(home, name, recipe, test_women)
        classifier, loaded = build_classifier(recipe, used.seed, state)
        taken = f"{loaded.tensors} of {loaded.of} backbone tensors" if loaded else "no tensors: random weights"
        display.show("said", {"text": f"start {label}: loaded {taken}"})
        try:
            fitted = fit(
                classifier,
                train_part,
                valid_part,
                recipe,
                seed=used.seed,
                stream=site_name(home),
                device=device,
                on_epoch=lambda _epoch: None,
                on_step=_steps(display, label),
                acceleration=machine.acceleration,
            )
        finally:
            display.close()
        threshold = best_threshold(valid_part.labels, predict(classifier, valid_part.pixels, device=device))
        kept = classifiers.keep(
            home,
            label,
            fitted,
            recipe,
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
    click.echo(f"next: {home.command('evaluate')}")


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
