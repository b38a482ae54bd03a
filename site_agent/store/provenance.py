"""The provenance of a classifier's numbers: its weights, its start, its recipe and its images.

Rules
1. A number belongs to digests. Names (`csfssl`, `the newest`) only help people to find a folder.
2. Classifiers are compared as "the same classifier from another start". So everything but the start must be equal:
   otherwise `check` refuses. Other differences between the classifiers, or in how the starts were trained, allow a
   comparison but no conclusion: `differences`.
3. A federated classifier is judged against the newest federated model of the site. A report about an older run is
   possible, on request, and then names that run.

Pure: values in, values out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fedcervix.core.modes import MODES
from fedcervix.core.plan import Recipe, canonical_json, parse_recipe, recipe_to_dict
from fedcervix.errors import ModelError
from site_agent.data.digests import Data

FEDERATED = tuple(mode.upper() for mode in MODES)
"""families of starts that a federation makes"""
EQUAL_KEYS = ("architecture", "image_px", "fit", "roi", "harmonise", "stages", "classifier")
"""of a recipe: what two classifiers must have in common to be compared"""
START_KEYS_IGNORED = ("classifier", "proximal")
"""of a start's recipe: used when a classifier is fine-tuned, or in a federation alone"""
AUTO = "auto"
"""the precision of a recipe that is settled where it is trained"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a classifier started from."""

    name: str
    """random, imagenet, or the model's folder below models/"""
    weights: str = ""
    """SHA-256 of the weights; empty for random ones"""
    recipe: Recipe | None = None
    """with which it was trained; None for random and ImageNet weights"""
    seed: int | None = None
    images: str = ""
    """`Data.learning` when it was trained here; empty where that is not known"""
    run: str = ""
    """of a federation; empty for what the site made itself"""
    plan: str = ""
    """digest of the run's plan"""
    sites: tuple[str, ...] = ()
    """that took part in the run"""

    @property
    def origin(self) -> str:
        """The run or the model, in words."""
        return f"run {self.run}" if self.run else f"model {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What one classifier's numbers are based on."""

    label: str
    """the start as tables print it: Random, ImageNet, SSL, CSSL, CSFSSL, PPFSSL_NHS ..."""
    weights: str
    """SHA-256 of the classifier's weights file"""
    start: Start
    recipe: Recipe
    """with which it was fine-tuned"""
    seed: int
    data: Data
    made_at: str
    """UTC, ISO 8601"""

    @property
    def federated(self) -> bool:
        """Whether its start is a federation's model."""
        return self.label.startswith(FEDERATED)

    def to_json(self) -> dict[str, object]:
        """Return the provenance as values JSON can hold, with digests of the recipes."""
        start_digest = recipe_digest(self.start.recipe) if self.start.recipe else ""
        made = {
            **dataclasses.asdict(self),
            "recipe": recipe_to_dict(self.recipe),
            "recipe_sha256": recipe_digest(self.recipe),
            "start_recipe_sha256": start_digest,
        }
        start_recipe = recipe_to_dict(self.start.recipe) if self.start.recipe else None
        return {**made, "start": {**made["start"], "recipe": start_recipe, "sites": list(self.start.sites)}}

    @classmethod
    def from_json(cls, raw: Any) -> Provenance:
        """Rebuild what `to_json` returned. Raises ValueError, KeyError, TypeError on anything else."""
        fields = {key: value for key, value in raw.items() if key not in ("recipe_sha256", "start_recipe_sha256")}
        made = cls(
            **{
                **fields,
                "start": _start(raw["start"]),
                "recipe": parse_recipe(raw["recipe"]),
                "data": Data(**raw["data"]),
            }
        )
        said = made.to_json()
        if any(said[key] != raw[key] for key in ("recipe_sha256", "start_recipe_sha256")):
            raise ValueError("a recipe is not the one whose digest is named")
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptModel:
    """A cervix model that the site keeps, as far as it matters here."""

    label: str
    name: str
    digest: str
    run: str = ""

    @property
    def origin(self) -> str:
        """The run or the model, in words."""
        return f"run {self.run}" if self.run else f"model {self.name}"


def _start(raw: Any) -> Start:
    recipe = parse_recipe(raw["recipe"]) if raw["recipe"] else None
    return Start(**{**raw, "recipe": recipe, "sites": tuple(raw["sites"])})


def recipe_digest(recipe: Recipe) -> str:
    """Return the SHA-256 of a recipe's canonical text."""
    return hashlib.sha256(canonical_json(recipe_to_dict(recipe)).encode()).hexdigest()


# --- which classifier answers the question ------------------------------------------------------------------------


def headline(tuned: Sequence[Provenance], kept: Sequence[KeptModel], run: str = "") -> Provenance | None:
    """Return the federated classifier that the report is about: of `run`, else of the newest federated model.

    `kept` stands oldest first. None where there is no such classifier.
    """
    wanted = _newest_federated(kept)
    for found in tuned:
        if found.federated and (found.start.run == run if run else wanted and found.start.weights == wanted.digest):
            return found
    return None


def _newest_federated(kept: Sequence[KeptModel]) -> KeptModel | None:
    return next((model for model in reversed(kept) if model.label.startswith(FEDERATED)), None)


# --- what is refused ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Again:
    """How the classifiers of a set are made again: in words that are a command."""

    program: str
    """`site-agent --home HOME`"""
    name: str = ""
    """of the set; empty for the one without a name"""

    def of(self, starts: Iterable[str], *, anew: bool = False) -> str:
        """Return the command for these starts; `anew` in another set, beside this one."""
        name = (f"{self.name}-anew" if self.name else "anew") if anew else self.name
        words = [
            self.program,
            "finetune",
            *([f"--name {name}"] if name else []),
            *(f"--start {start}" for start in starts),
        ]
        return " ".join(words)

    def all(self, tuned: Sequence[Provenance], kept: Sequence[KeptModel], run: str = "") -> str:
        """Return the command that makes all of them again, each from the newest model of its kind.

        One whose model is no longer kept cannot be made again. Then the others go into another set.
        """
        names = [_start_now(found, kept, run) for found in tuned]
        newest = _newest_federated(kept)
        named = [name for name in names if name] + ([newest.name] if newest and not run else [])
        return self.of(dict.fromkeys(named), anew=not all(names))


def _start_now(found: Provenance, kept: Sequence[KeptModel], run: str) -> str:
    """Return the start that a classifier would be made from today; empty where its model is no longer kept."""
    if found.start.recipe is None:
        return found.start.name
    names = [model.name for model in kept if model.label == found.label]
    own = found.start.name in names and (not found.federated or bool(run))
    return found.start.name if own else next(reversed(names), "")


def check(tuned: Sequence[Provenance], kept: Sequence[KeptModel], data: Data, *, again: Again, run: str = "") -> None:
    """Raise ModelError where the classifiers cannot be compared on these images.

    `kept` are the site's models, oldest first; with `run` the report is about that run, whether or not it is the
    newest.
    """
    _check_data(tuned, kept, data, again, run)
    _check_equal(tuned, kept, again, run)
    _check_run(tuned, kept, again, run)
    _check_newest(tuned, kept, again, run)


def _check_data(tuned: Sequence[Provenance], kept: Sequence[KeptModel], data: Data, again: Again, run: str) -> None:
    stale = [found.label for found in tuned if found.data != data]
    if stale:
        raise ModelError(
            f"the images have changed since {', '.join(stale)} was fine-tuned",
            cause="images, labels or splits were added or changed: a test woman might have been used in training",
            next_step=again.all(tuned, kept, run),
        )


def _check_equal(tuned: Sequence[Provenance], kept: Sequence[KeptModel], again: Again, run: str) -> None:
    for one, other in itertools.pairwise(tuned):
        found = _recipe_differences(one.recipe, other.recipe, EQUAL_KEYS)
        found += [] if one.seed == other.seed else [f"seed {one.seed} and {other.seed}"]
        if found:
            raise ModelError(
                f"{one.label} and {other.label} were not fine-tuned alike: {', '.join(found)}",
                cause="they were fine-tuned by commands with different recipes; only the start may differ",
                next_step=again.all(tuned, kept, run),
            )


def _check_run(tuned: Sequence[Provenance], kept: Sequence[KeptModel], again: Again, run: str) -> None:
    if run and headline(tuned, kept, run) is None:
        known = [model.name for model in kept if model.run == run]
        others = ", ".join(dict.fromkeys(model.run for model in kept if model.run))
        raise ModelError(
            f"no classifier here was fine-tuned from run {run}",
            cause="a classifier of a later run has replaced it"
            if known
            else f"runs with a model here: {others or 'none'}",
            next_step=again.of(known) if known else f"{again.program} history",
        )


def _check_newest(tuned: Sequence[Provenance], kept: Sequence[KeptModel], again: Again, run: str) -> None:
    """A federation's model is the newest of its kind; one that the site made itself is the one of its name today.

    A set with a name of its own may hold none of a federation: then it says nothing of one.
    """
    for found in tuned:
        alike = [model for model in kept if model.label == found.label]
        rivals = [model for model in alike if found.federated or model.name == found.start.name]
        newest = rivals[-1] if rivals and not (run and found.federated) else None
        if newest and newest.digest != found.start.weights:
            raise ModelError(
                f"the newest {found.label} model is of {newest.origin}, "
                f"the classifier was fine-tuned from {_before(found, newest)}",
                cause="the model was made or received after the classifier was fine-tuned",
                next_step=again.all(tuned, kept, run),
            )
    federated = _newest_federated(kept)
    alone = bool(again.name) and not any(found.federated for found in tuned)
    if federated and not alone and not run and headline(tuned, kept) is None:
        raise ModelError(
            f"the newest model is of {federated.origin}, and no classifier was fine-tuned from it",
            cause="a federation ended after the classifiers were made",
            next_step=again.all(tuned, kept),
        )


def _before(found: Provenance, newest: KeptModel) -> str:
    return "an earlier one of that name" if found.start.name == newest.name else found.start.origin


# --- what is said -------------------------------------------------------------------------------------------------


def differences(tuned: Sequence[Provenance], kept: Sequence[KeptModel] = (), run: str = "") -> tuple[str, ...]:
    """Return, in sentences, how the classifiers were trained differently: then no comparison has a conclusion."""
    said = [line for one, other in _start_pairs(tuned, kept, run) for line in _start_differences(one, other)]
    return (*said, *_precisions(tuned))


def reservations(tuned: Sequence[Provenance], kept: Sequence[KeptModel] = (), run: str = "") -> tuple[str, ...]:
    """Return, in sentences, what a reader should know of the compared classifiers; it forbids no conclusion."""
    seeds = [line for one, other in _start_pairs(tuned, kept, run) for line in _start_seeds(one, other)]
    inputs = [line for found in tuned for line in _input_difference(found)]
    return (*seeds, *inputs, *_left_out(tuned, kept), *_newer_run(headline(tuned, kept, run), kept))


def _start_pairs(
    tuned: Sequence[Provenance], kept: Sequence[KeptModel], run: str
) -> Iterable[tuple[Provenance, Provenance]]:
    """Yield every classifier of a trained start with the federated one, or with the first one where there is none."""
    trained = [found for found in tuned if found.start.recipe]
    reference = headline(tuned, kept, run) or next(iter(trained), None)
    return ((found, reference) for found in trained if reference and found is not reference)


def _start_seeds(one: Provenance, other: Provenance) -> Iterable[str]:
    """Another seed is another draw of the same training: nothing that favours one of the two."""
    if one.start.seed != other.start.seed:
        seeds = f"{one.start.seed} and {other.start.seed}"
        yield f"{one.label} and {other.label} were pretrained with different seeds: {seeds}."


def _start_differences(one: Provenance, other: Provenance) -> Iterable[str]:
    if one.start.recipe and other.start.recipe:
        ignored = {*START_KEYS_IGNORED, *_unsettled(one.start.recipe, other.start.recipe)}
        keys = [field.name for field in dataclasses.fields(Recipe) if field.name not in ignored]
        found = _recipe_differences(one.start.recipe, other.start.recipe, keys)
        if found:
            yield f"{one.label} and {other.label} were pretrained with different recipes: {', '.join(found)}."
    if one.start.images and other.start.images and one.start.images != other.start.images:
        yield f"{one.label} and {other.label} were pretrained on different images or splits of this site."


def _unsettled(*recipes: Recipe) -> tuple[str, ...]:
    """A federation's plan says precision `auto`, and each site settles it; a model made here says what was settled."""
    return ("precision",) if any(recipe.precision == AUTO for recipe in recipes) else ()


def _recipe_differences(one: Recipe, other: Recipe, keys: Iterable[str]) -> list[str]:
    """Return `key value and value` for every value in which two recipes differ."""
    pairs = ((key, getattr(one, key), getattr(other, key)) for key in keys)
    return [line for key, a, b in pairs for line in _value_differences(key, a, b)]


def _value_differences(key: str, one: Any, other: Any) -> list[str]:
    if one == other:
        return []
    if not dataclasses.is_dataclass(one):
        return [f"{key} {one} and {other}"]
    names = [field.name for field in dataclasses.fields(one)]
    return [line for n in names for line in _value_differences(f"{key}.{n}", getattr(one, n), getattr(other, n))]


def _input_difference(found: Provenance) -> Iterable[str]:
    before = found.start.recipe
    if before and (before.image_px, before.fit) != (found.recipe.image_px, found.recipe.fit):
        yield (
            f"{found.label} was pretrained on images of {before.image_px} px ({before.fit}) and fine-tuned on "
            f"{found.recipe.image_px} px ({found.recipe.fit})."
        )


def _precisions(tuned: Sequence[Provenance]) -> Iterable[str]:
    if len({found.recipe.precision for found in tuned} - {AUTO}) > 1:
        told = ", ".join(f"{found.label} {found.recipe.precision}" for found in tuned)
        yield f"The classifiers were fine-tuned in different arithmetic: {told}."


def _left_out(tuned: Sequence[Provenance], kept: Sequence[KeptModel]) -> Iterable[str]:
    used = {found.start.weights for found in tuned}
    for model in kept:
        if model.digest not in used and not model.run:
            yield f"The model {model.name} ({model.label}) of this site is not compared here."


def _newer_run(about: Provenance | None, kept: Sequence[KeptModel]) -> Iterable[str]:
    newest = _newest_federated(kept)
    if about and newest and newest.digest != about.start.weights:
        yield f"This report is about {about.start.origin}. The model of {newest.origin} is newer and is not in it."
