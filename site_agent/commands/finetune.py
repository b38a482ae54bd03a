"""The command `finetune`: classifiers on the site's labels, one from each start."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedcervix.core.plan import Recipe
from fedcervix.errors import ConfigError, ModelError
from fedcervix.extras import require
from fedcervix.lineage.decisions import SHORT
from fedcervix.runtime.printing import say
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.classifier import classifier_store, trainings
from site_agent.classifier.classifier_store import Decisions
from site_agent.classifier.conformal import calibrate
from site_agent.classifier.finetune import Classifier, build_classifier, predict
from site_agent.classifier.privacy_accounting import WOMEN_MIN, Privacy, PrivateHead, PrivateSteps, promised
from site_agent.classifier.private_finetune import leaving, private_finetune
from site_agent.classifier.secret_draws import KEY_BYTES, SecretDraws
from site_agent.classifier.trainings import TrainedClassifier
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
from site_agent.network.encoder import load_weights, state_digest
from site_agent.network.first_weights import imagenet_backbone
from site_agent.network.precision import resolve_precision
from site_agent.starts import UNTRAINED, title
from site_agent.store import leak_guard, model_store
from site_agent.store.archive import utc_now
from site_agent.store.leak_guard import Seen
from site_agent.store.provenance import Provenance, Start
from site_agent.store.retired_models import check_usable, retired_among
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


def finetune(
    home: SiteHome,
    used: Setting,
    starts: tuple[str, ...],
    name: str,
    private: float | None,
    *,
    force_retired: bool = False,
) -> None:
    """Fine-tune classifiers on this site's labels, one from each start, in the set `name`.

    `private`: only the heads, with differential privacy of that epsilon.
    """
    with home.locked("lock-finetune", who="another finetune"), stops(command_line(home, "finetune")):
        chosen = [_folder_name(home, start) for start in starts or ("random", *_newest(home))]
        own = [model_store.read(home.models / start) for start in chosen if start not in UNTRAINED]
        _check_labels(home, own)
        for model in own:
            _check_not_retired(home, model, forced=force_retired)
        machine, display = machine_of(home, used.recipe), Display()
        recipe = resolve_precision(used.recipe, machine.device, home.cache)
        if private is not None:
            _check_private(used)
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
    with contextlib.closing(place.display):
        made = _trained(place, beginning)
    scores = predict(made.network, place.valid.pixels, device=place.context.device)
    decided = _decided(place, scores)
    kept = _keep(place, beginning, made, decided, _private(place, made, beginning))
    taken = (
        f"{made.loaded.tensors} of {made.loaded.of} backbone tensors" if made.loaded else "no tensors: random weights"
    )
    say(f"start {beginning.label}: loaded {taken}")
    say(
        f"{beginning.label}: {_epochs(made)}, validation loss {made.validation_loss:.4f}, "
        f"threshold {kept.threshold:.3g}: {kept.folder}"
    )
    if decided.zone and decided.zone.lacking:
        say(f"note: {beginning.label}: indeterminate zone: {decided.zone.lacking}")


def _decided(place: Workplace, scores: NDArray[np.float64]) -> Decisions:
    """Return how scores become calls: threshold, and zone where the recipe asks for one; of validation scores (n,)."""
    terms, valid = place.context.recipe.classifier, place.valid
    return Decisions(
        threshold=float(best_threshold(valid.labels, scores)),
        zone=calibrate(valid.labels, scores, valid.patients, terms.zone_error) if terms.zone_error else None,
        classes=valid.classes if terms.labels == "ordered" and valid.classes.ordered else None,
    )


def _epochs(made: TrainedClassifier) -> str:
    """Return in words what was kept."""
    each = ("the probe" if one.is_probe else f"epoch {one.best_epoch} of {len(one.history)}" for one in made.fits)
    kept = f"kept {', '.join(each)}"
    return kept if len(made.fits) == 1 else f"mean of {len(made.fits)} trainings, {kept}"


def _trained(place: Workplace, beginning: Beginning) -> TrainedClassifier:
    """Train as the recipe asks, or, where privacy is promised, the head alone."""
    context, steps_of = place.context, _steps(place.display, beginning.label, place.context.recipe)
    if place.privacy is None:
        return trainings.train(beginning.state, place.train, place.valid, context, steps_of)
    classifier, loaded = build_classifier(context.recipe, context.seed, beginning.state)
    draws = SecretDraws(secrets.token_bytes(KEY_BYTES))
    fitted = private_finetune(classifier, place.train, place.valid, place.privacy, draws, steps_of(1))
    return TrainedClassifier(classifier, (fitted,), loaded, fitted.history[0].valid_loss)


def _check_private(used: Setting) -> None:
    """Raise ConfigError where the recipe asks for what a private head cannot be."""
    terms = used.recipe.classifier
    for key, value, off in (("trainings", terms.trainings, 1), ("labels", terms.labels, "binary")):
        if value != off:
            found, wanted = (json.dumps(one, allow_nan=False) for one in (value, off))
            raise ConfigError(
                f"a private head is one training on cases and controls; {used.source} has {key} = {found}",
                cause="what is promised of each woman is computed for that",
                next_step=f"set {key} = {wanted} in table [classifier] of a recipe file: --recipe FILE",
            )
    if used.recipe.harmonise != "none":
        raise ConfigError(
            f'a private head has no promise with harmonise = "{used.recipe.harmonise}", which {used.source} has',
            cause="the colours of the site are made of all its training women: they would change what the head sees of "
            "every other woman",
            next_step='train an encoder and the head with harmonise = "none" in a recipe file: --recipe FILE',
        )


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


def _private(place: Workplace, made: TrainedClassifier, beginning: Beginning) -> PrivateHead | None:
    """Return what is kept of a private head."""
    if place.privacy is None or not isinstance(made.network, Classifier):
        return None
    encoder = beginning.start.weights or "random weights"
    return PrivateHead(place.privacy, leaving(made.network, place.privacy, encoder))


def _keep(
    place: Workplace, beginning: Beginning, made: TrainedClassifier, decided: Decisions, private: PrivateHead | None
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
    taught = place.collection.of_stages(place.context.recipe.stages)
    labelled = (image for split in ("train", "valid") for image in taught.labelled(split))
    seen = beginning.seen | leak_guard.site_key(place.home).seen(labelled, digest=data.learning)
    return classifier_store.keep(
        place.home,
        place.name,
        made,
        provenance,
        decided=decided,
        seen=seen,
        private=private,
    )


def _steps(display: Display, label: str, recipe: Recipe) -> trainings.StepsOf:
    def told(training: int, epoch: int, step: int, steps: int) -> None:
        at = trainings.stage(recipe.classifier, training, epoch)
        display.show(shown.Advanced(label, WorkProgress(at, step, steps, "steps")))

    return lambda training: functools.partial(told, training)


def _folder_name(home: SiteHome, start: str) -> str:
    """Return the name of a start, which may be given by its digest. Raises ModelError."""
    return start if start in UNTRAINED else model_store.named(home, start, UNTRAINED).folder.name


def _newest(home: SiteHome) -> list[str]:
    """Return the newest model of each kind: an older federation's result is not fine-tuned again by default."""
    found, broken = model_store.found(home)
    for error in broken.values():
        say(f"left out: {error.explain()}", err=True)
    usable = [model for model in found if retired_among(home, [model.digest]) is None]
    for model in found:
        if model not in usable:
            say(f"left out: model {model.folder.name}, which is retired", err=True)
    return [model.folder.name for model in {model.start: model for model in usable}.values()]


def _check_not_retired(home: SiteHome, model: model_store.CervixModel, *, forced: bool) -> None:
    """Raise ModelError where a model that was named as a start is retired, and nobody insists."""
    again = f"{command_line(home, 'finetune')} --force-retired"
    check_usable(
        home, f"model {model.folder.name} ({model.digest[:SHORT]})", [model.digest], again=again, forced=forced
    )


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
        state = imagenet_backbone(recipe, home.imagenet_weights())
        return Beginning(title(name), Start(name=name, weights=state_digest(state)), state, Seen())
    model = model_store.read(home.models / name)
    seen = _check_start(home, model, recipe, collection)
    return Beginning(model.start, model.as_start, load_weights(model.weights), seen)


def _check_start(home: SiteHome, model: model_store.CervixModel, recipe: Recipe, collection: Collection) -> Seen:
    """Return who made a model. Raises ModelError where no classifier can be made from it here."""
    test = (image for image in collection.images if image.split == "test")
    seen = model_store.check_unseen_by_model(home, model, test)
    model.check_architecture(recipe)
    model.check()
    return seen
