"""The command `finetune`: classifiers on the site's labels, one from each start."""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fedcervix.core.plan import Recipe
from fedcervix.core.seeds import derive
from fedcervix.errors import ModelError
from fedcervix.extras import require
from fedcervix.runtime.printing import say
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.classifier import classifier_store
from site_agent.classifier.finetune import Classifier, Finetuned, build_classifier, predict
from site_agent.classifier.finetune import finetune as fit
from site_agent.classifier.privacy_accounting import WOMEN_MIN, Privacy, PrivateHead, PrivateSteps, promised
from site_agent.classifier.private_finetune import leaving, private_finetune
from site_agent.classifier.secret_draws import KEY_BYTES, SecretDraws
from site_agent.commands.command_line import command_line
from site_agent.commands.display import Display
from site_agent.commands.open_images import open_images
from site_agent.commands.setting import Setting, machine_of, reading, site_name
from site_agent.commands.stopping import stops
from site_agent.data import dataset, digests
from site_agent.data.collection import Collection
from site_agent.data.image_sets import Labelled
from site_agent.federation import shown
from site_agent.home import SiteHome
from site_agent.metrics import best_threshold
from site_agent.network.encoder import backbone_state, build_encoder, load_imagenet, load_weights, state_digest
from site_agent.network.precision import resolve_precision
from site_agent.starts import UNTRAINED, title
from site_agent.store import leak_guard, model_store
from site_agent.store.archive import utc_now
from site_agent.store.leak_guard import Seen
from site_agent.store.provenance import Provenance, Start
from site_agent.training.context import TrainingContext

SET_CHARS = 63
"""of the name of a set, at most"""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a classifier starts from."""

    label: str
    start: Start
    state: dict[str, torch.Tensor] | None
    """weights of an encoder; None: random ones"""
    seen: Seen
    """the women whose images made these weights"""


@dataclass(frozen=True, slots=True)
class Workplace:
    """What all classifiers of one command share."""

    home: SiteHome
    name: str
    """of the set; empty for the first one"""
    context: TrainingContext
    collection: Collection
    train: Labelled
    valid: Labelled
    display: Display
    privacy: Privacy | None = None
    """what is promised of each head; None: nothing"""


def finetune(home: SiteHome, used: Setting, starts: tuple[str, ...], name: str, private: float | None) -> None:
    """Fine-tune classifiers on this site's labels, one from each start, in the set `name`.

    `private`: only the heads, with differential privacy of that epsilon.
    """
    with home.locked("lock-finetune", who="another finetune"), stops(command_line(home, "finetune")):
        chosen = starts or ("random", *_newest(home))
        own = [model_store.named(home, start, UNTRAINED) for start in chosen if start not in UNTRAINED]
        _check_labels(home, own)
        machine, display = machine_of(home, used.recipe), Display()
        recipe = resolve_precision(used.recipe, machine.device, home.cache)
        say(f"fine-tuning on {machine.device} in {recipe.precision}, recipe of {used.source}", err=True)
        collection = open_images(home, display, recipe)
        train = dataset.labelled(home, collection, recipe, "train", reading(display))
        valid = dataset.labelled(home, collection, recipe, "valid", reading(display))
        context = TrainingContext(recipe=recipe, seed=used.seed, stream=site_name(home), machine=machine)
        privacy = None if private is None else _promised(train, private, len(chosen))
        place = Workplace(home, name, context, collection, train, valid, display, privacy)
        for model in own:
            _check_start(home, model, recipe, collection)  # before the first classifier takes another's place
        for start in chosen:
            _one(place, _beginning(home, start, recipe, collection))
        say(f"next: {home.command('evaluate')}{f' --set {name}' if name else ''}")


def _one(place: Workplace, beginning: Beginning) -> None:
    """Fine-tune and keep one classifier."""
    context = place.context
    classifier, loaded = build_classifier(context.recipe, context.seed, beginning.state)
    taken = f"{loaded.tensors} of {loaded.of} backbone tensors" if loaded else "no tensors: random weights"
    place.display.show(shown.Message(f"start {beginning.label}: loaded {taken}"))
    with contextlib.closing(place.display):
        fitted = _fitted(place, classifier, _steps(place.display, beginning.label))
    scores = predict(classifier, place.valid.pixels, device=context.device)
    threshold = float(best_threshold(place.valid.labels, scores))
    kept = _keep(place, beginning, fitted, threshold, _private(place, classifier, beginning))
    best = fitted.history[fitted.best_epoch - 1]
    say(
        f"{beginning.label}: kept epoch {fitted.best_epoch} of {len(fitted.history)}, "
        f"validation loss {best.valid_loss:.4f}, threshold {kept.threshold:.3g}: {kept.folder}"
    )


def _fitted(place: Workplace, classifier: Classifier, on_step: Callable[[int, int, int], None]) -> Finetuned:
    """Fit the whole network, or, where privacy is promised, the head alone."""
    if place.privacy is None:
        return fit(classifier, place.train, place.valid, place.context, on_epoch=lambda _epoch: None, on_step=on_step)
    draws = SecretDraws(secrets.token_bytes(KEY_BYTES))
    return private_finetune(classifier, place.train, place.valid, place.privacy, draws, on_step)


def _promised(train: Labelled, epsilon_max: float, heads: int) -> Privacy:
    """Return what is promised of each head, and say what it is worth. Raises ConfigError."""
    require("dp_accounting")
    women = len(set(train.patients))
    say("private heads: looking for the noise", err=True)
    privacy = promised(PrivateSteps(women), epsilon_max)
    say(
        f"private heads: epsilon {privacy.epsilon:.3g}, delta {privacy.delta:g} for each woman and head; "
        f"noise {privacy.noise:g}, {privacy.steps} steps; "
        f"each step takes {min(women, privacy.lot_women)} of {women} women on average"
    )
    say("note: the encoder is not covered: it may tell who *it* was trained on. Nor is the threshold, which stays here")
    if heads > 1:
        say(f"note: whoever receives all {heads} heads has epsilon {heads * privacy.epsilon:.3g}: send one")
    if women < WOMEN_MIN:
        say(f"warning: {women} women are few: with less than {WOMEN_MIN}, the noise leaves little to learn")
    return privacy


def _private(place: Workplace, classifier: Classifier, beginning: Beginning) -> PrivateHead | None:
    """Return what is kept of a private head."""
    if place.privacy is None:
        return None
    encoder = beginning.start.weights or "random weights"
    return PrivateHead(place.privacy, leaving(classifier, place.privacy, encoder))


def _keep(
    place: Workplace, beginning: Beginning, fitted: Finetuned, threshold: float, private: PrivateHead | None
) -> classifier_store.StoredClassifier:
    data = digests.data_of(place.collection)
    provenance = Provenance(
        label=beginning.label,
        weights="",
        start=beginning.start,
        recipe=place.context.recipe,
        seed=place.context.seed,
        data=data,
        made_at=utc_now().isoformat(timespec="seconds"),
    )
    labelled = (image for split in ("train", "valid") for image in place.collection.labelled(split))
    seen = beginning.seen | leak_guard.site_key(place.home).seen(labelled, digest=data.learning)
    return classifier_store.keep(
        place.home, place.name, fitted, provenance, threshold=threshold, seen=seen, private=private
    )


def _steps(display: Display, label: str) -> Callable[[int, int, int], None]:
    return lambda epoch, step, steps: display.show(
        shown.Advanced(label, WorkProgress(f"epoch {epoch}", step, steps, "steps"))
    )


def _newest(home: SiteHome) -> list[str]:
    """Return the newest model of each kind: an older federation's result is not fine-tuned again by default."""
    found, broken = model_store.found(home)
    for error in broken.values():
        say(f"left out: {error.explain()}", err=True)
    return [model.folder.name for model in {model.start: model for model in found}.values()]


def _check_labels(home: SiteHome, own: Sequence[model_store.CervixModel]) -> None:
    """Raise ModelError where two starts would make one classifier: a set holds one of each kind."""
    label, count = max(Counter(model.start for model in own).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        twice = [model.folder.name for model in own if model.start == label]
        new_set = f"from-{twice[0]}"[:SET_CHARS].strip("-")
        raise ModelError(
            f"{' and '.join(twice)} are both {label} models",
            cause=f"a set holds one {label} classifier",
            next_step=home.command(f"finetune --start {twice[0]} --name {new_set}"),
        )


def _beginning(home: SiteHome, name: str, recipe: Recipe, collection: Collection) -> Beginning:
    """Return what a start named on the command line is. Raises ModelError."""
    if name == "random":
        return Beginning(title(name), Start(name=name), None, Seen())
    if name == "imagenet":
        state = _imagenet(home, recipe)
        return Beginning(title(name), Start(name=name, weights=state_digest(state)), state, Seen())
    model = model_store.read(home.models / name)
    seen = _check_start(home, model, recipe, collection)
    return Beginning(model.start, model.as_start, load_weights(model.weights), seen)


def _imagenet(home: SiteHome, recipe: Recipe) -> dict[str, torch.Tensor]:
    encoder = build_encoder(recipe, derive(0, "imagenet-head"))
    load_imagenet(encoder, home.imagenet_weights())
    return backbone_state(encoder.state_dict())


def _check_start(home: SiteHome, model: model_store.CervixModel, recipe: Recipe, collection: Collection) -> Seen:
    """Return who made a model. Raises ModelError where no classifier can be made from it here."""
    test = (image for image in collection.images if image.split == "test")
    seen = model_store.check_unseen_by_model(home, model, test)
    if model.recipe.architecture != recipe.architecture:
        raise ModelError(
            f"model {model.folder.name} is a {model.recipe.architecture}, the recipe wants a {recipe.architecture}",
            cause="it was trained with another recipe",
            next_step="give the recipe it was trained with: --recipe FILE or --profile NAME",
        )
    model.check()
    return seen
