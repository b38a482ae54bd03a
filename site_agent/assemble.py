"""Everything the site's report says, gathered from what the commands left in the home folder.

What cannot be read (a ledger, a history, a plan) costs its section of the report, which says so, and not the report.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

import numpy as np
import sklearn
import torch
import torchvision
from numpy.typing import NDArray

from fedcervix import __version__
from fedcervix.errors import DataError, FedcervixError
from fedcervix.plan import Augment, Recipe
from fedcervix.seeds import derive
from fedcervix.weights import digest_file
from site_agent import classifiers, dataset, models, report
from site_agent.augment import augment, draw, to_input
from site_agent.classifiers import StoredClassifier
from site_agent.collection import Collection
from site_agent.contrast import collapse_loss
from site_agent.devices import place
from site_agent.embedding_map import IMAGES_MIN, choose, lay_out
from site_agent.evaluate import Comparison, Evaluation, compare, evaluate
from site_agent.finetune import Labelled, predict
from site_agent.gauges import Gauges, alarms
from site_agent.home import SiteHome
from site_agent.model import Encoder, apply_weights, build_encoder, load_weights
from site_agent.models import CervixModel
from site_agent.neighbours import embed
from site_agent.report.predictions import Predictions, Scored, ScoredImage, women
from site_agent.runs import Federation, last_federation
from site_agent.tasks import first_seed

Tell = Callable[[str, int, int], None]
"""Called as tell(stage, done, of) while the report is made."""
Part = TypeVar("Part")

SHEET_IMAGES = 5
SHEET_VERSIONS = 5
FEDERATED = ("CSFSSL", "PPFSSL")
PARTS: tuple[Literal["train", "valid"], ...] = ("train", "valid")
"""whose women are on the maps"""
UNREADABLE = (FedcervixError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""what reading a damaged record raises"""


def silent(_stage: str, _done: int, _of: int) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Unread:
    """What could not be read while a report was gathered."""

    said: list[str] = field(default_factory=list)

    def part(self, what: str, read: Callable[[], Part], otherwise: Part) -> Part:
        """Return what `read` gives; where it fails, `otherwise`, and note that `what` is missing."""
        try:
            return read()
        except UNREADABLE as error:
            why = error.what if isinstance(error, FedcervixError) else f"{type(error).__name__}: {error}"
            self.said.append(f"{what} cannot be read and is not in this report ({why}).")
            return otherwise


def predictions(
    collection: Collection,
    stored: Sequence[StoredClassifier],
    test: Labelled,
    device: torch.device,
    tell: Tell = silent,
) -> Predictions:
    """Score every test image with every classifier. `test` holds the collection's labelled test images, in order."""
    images = tuple(
        ScoredImage(image.path, image.patient, image.woman, int(label))
        for image, label in zip(collection.labelled("test"), test.labels, strict=True)
    )
    if tuple(image.woman for image in images) != test.patients:
        raise DataError("the test images are not those of the collection", cause="the manifest changed meanwhile")
    scored = []
    for number, one in enumerate(stored, 1):
        scores = predict(one.build(), test.pixels, device=device)
        scored.append(Scored(one.start, digest_file(one.folder / classifiers.WEIGHTS), one.threshold, scores))
        tell("scoring test images: classifiers", number, len(stored))
    return Predictions(images, tuple(scored))


def evaluations(
    found: Predictions, seed: int, tell: Tell = silent
) -> tuple[tuple[Evaluation, ...], tuple[Evaluation, ...]]:
    """Return every classifier's evaluation on images, and on women."""
    labels, names = [image.label for image in found.images], [image.woman for image in found.images]
    by_image, by_woman = [], []
    for number, one in enumerate(found.classifiers, 1):
        judge = functools.partial(evaluate, one.start, threshold_validation=one.threshold, seed=seed)
        by_image.append(judge(labels, one.scores, names))
        own = women(found.images, one.scores)
        by_woman.append(judge([w.label for w in own], [w.score for w in own], [w.name for w in own]))
        tell("intervals: classifiers", number, len(found.classifiers))
    return tuple(by_image), tuple(by_woman)


def comparisons(found: Predictions, federated: str, seed: int, tell: Tell = silent) -> tuple[Comparison, ...]:
    """Compare the federated start with every other one, on images."""
    others = [one.start for one in found.classifiers if one.start != federated] if federated else []
    labels, names = [image.label for image in found.images], [image.woman for image in found.images]
    scores = {one.start: one.scores for one in found.classifiers}
    made = []
    for number, other in enumerate(others, 1):
        made.append(compare(federated, other, labels, scores, names, seed=seed))
        tell("comparisons with the federated start", number, len(others))
    return tuple(made)


def site_report(
    home: SiteHome,
    site: str,
    collection: Collection,
    stored: Sequence[StoredClassifier],
    test: Labelled,
    device: torch.device,
    now: datetime,
    tell: Tell = silent,
) -> report.SiteReport:
    """Evaluate and gather; the one place where the test images are opened."""
    unread = Unread()
    federation = unread.part("The plan of the last run", lambda: last_federation(home), None)
    no_models: list[CervixModel] = []
    kept = unread.part("The list of cervix models", lambda: models.all_models(home), no_models)
    recipe, seed = stored[0].recipe, stored[0].seed
    federated = next((c.start for c in reversed(stored) if c.start.startswith(FEDERATED)), "")
    scored = predictions(collection, stored, test, device, tell)
    by_image, by_woman = evaluations(scored, seed, tell)
    maps, no_map = _maps(home, collection, mapped_model(kept, stored), device, tell)
    return report.SiteReport(
        site=site,
        federation=home.certificate().identity.federation if home.key_file("site.crt").exists() else "",
        **_of_run(federation, unread),
        recipe=recipe,
        when=f"{now:%Y-%m-%d %H:%M} UTC",
        versions=versions(),
        federated=federated,
        census=tuple(
            report.CensusRow(row.split, row.stratum, row.women, row.labelled, row.images) for row in collection.census()
        ),
        set_aside=_set_aside(collection),
        evaluations=by_image,
        by_woman=by_woman,
        comparisons=comparisons(scored, federated, seed, tell),
        predictions=scored,
        made_of=_made_of(collection, stored, scored),
        contrastive_history=_contrastive(kept, federation, unread),
        collapse_line=collapse_loss(recipe.batch_images, recipe.loss),
        neighbour_history=unread.part("The history of the neighbour probe", lambda: neighbours(kept), ()),
        classifier_history=tuple(
            report.Losses(c.start, tuple(e.train_loss for e in c.history), tuple(e.valid_loss for e in c.history))
            for c in stored
        ),
        alarms=unread.part("The gauges of the last run", lambda: _alarms(federation, recipe), ()),
        contact_sheet=contact_sheet(home, collection, recipe, seed),
        maps=maps,
        no_map=no_map,
        unread=tuple(unread.said),
    )


def _of_run(federation: Federation | None, unread: Unread) -> dict[str, Any]:
    """Return what the report says of the last run; of none where there was none or its plan cannot be read."""
    if federation is None:
        state = "not known" if unread.said else "no federation yet"
        return {"run": "", "mode": "", "plan_digest": "", "final_state": state, "rounds": ()}
    spool, run = federation.spool, federation.run
    no_rounds: tuple[report.Round, ...] = ()
    return {
        "run": run,
        "mode": federation.plan.mode,
        "plan_digest": federation.plan.digest,
        "final_state": unread.part(f"How run {run} ended (outcome.txt)", spool.outcome, "not known"),
        "rounds": unread.part(f"The ledger of run {run} (record.json)", lambda: _rounds(federation), no_rounds),
    }


def _made_of(
    collection: Collection, stored: Sequence[StoredClassifier], scored: Predictions
) -> tuple[report.MadeOf, ...]:
    """Return the digests of what the numbers are of."""
    digests = [report.MadeOf("classifier", one.start, one.digest) for one in scored.classifiers]
    starts = [report.MadeOf("its start", c.start, str(c.record.get("origin", {}).get("digest", ""))) for c in stored]
    return (
        *digests,
        *starts,
        report.MadeOf("images, women, labels and splits", "all parts", collection.digest),
    )


def versions() -> dict[str, str]:
    """Return the versions of what made the numbers."""
    return {
        "fedcervix": __version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def _set_aside(collection: Collection) -> report.SetAside:
    return report.SetAside(
        quarantined=tuple((item.image, item.reason) for item in collection.quarantined),
        duplicates=len(collection.copies),
        leaks=tuple(report.Leak(leak.patients, leak.images, leak.conflicting) for leak in collection.leaks),
    )


def _contrastive(
    kept: Sequence[CervixModel], federation: Federation | None, unread: Unread
) -> tuple[report.Losses, ...]:
    """Return the curves of local training, and of the federation as this site saw it."""
    own = [
        unread.part(f"The history of model {model.folder.name}", functools.partial(_curve, model), None)
        for model in kept
        if "history" in model.record
    ]
    joint = (
        unread.part("The history of the last run", functools.partial(_federated_curve, federation), None)
        if federation
        else None
    )
    return tuple(curve for curve in (*own, joint) if curve)


def _curve(model: CervixModel) -> report.Losses:
    history = model.record["history"]
    train, valid = (tuple(epoch[key] for epoch in history) for key in ("train_loss", "valid_loss"))
    return report.Losses(model.start, train, valid)


def _federated_curve(federation: Federation) -> report.Losses:
    history = federation.spool.history()
    train = tuple(values["loss"] for values in _by_round(history.get("train", {})))
    valid = tuple(v["loss_sum"] / v["count"] for v in _by_round(history.get("score", {})))
    return report.Losses(f"{federation.plan.mode.upper()} (this site's images)", train, valid)


def neighbours(kept: Sequence[CervixModel]) -> tuple[report.Neighbours, ...]:
    """Return the probe of every local training that measured it; records of older versions did not."""
    probed = ((model, tuple(epoch.get("knn_auc") for epoch in model.record.get("history", ()))) for model in kept)
    return tuple(
        report.Neighbours(model.start, aucs, model.record.get("best_epoch"))
        for model, aucs in probed
        if any(auc is not None for auc in aucs)
    )


def _by_round(rounds: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [rounds[number] for number in sorted(rounds, key=int)]


def _rounds(federation: Federation) -> tuple[report.Round, ...]:
    """Return who gave what to each round, by the coordinator's ledger."""
    return tuple(
        report.Round(line["round"], line["loss"], (*map(_gave, line["contributions"]), *map(_missed, line["missing"])))
        for line in federation.spool.ledger()
    )


def _gave(line: dict[str, Any]) -> report.Contribution:
    return report.Contribution(line["site"], line["images"], line["steps"])


def _missed(line: dict[str, Any]) -> report.Contribution:
    return report.Contribution(line["site"], why_not=line["reason"])


def _alarms(federation: Federation | None, recipe: Recipe) -> tuple[str, ...]:
    if federation is None:
        return ()
    scored = _by_round(federation.spool.history().get("score", {}))
    if not scored:
        return ()
    last = scored[-1]
    gauges = Gauges(**last["gauges"])
    return tuple(alarms(gauges, last["loss_sum"] / last["count"], recipe.batch_images, recipe.loss))


def contact_sheet(home: SiteHome, collection: Collection, recipe: Recipe, seed: int) -> tuple[report.Augmented, ...]:
    """Return a few training images with what the trainer makes of them."""
    images = dataset.contrastive(home, collection, recipe, "train")
    step = max(1, len(images) // SHEET_IMAGES)
    chosen = images.pixels[np.arange(0, len(images), step)[:SHEET_IMAGES]]
    versions = [_augmented(chosen, recipe.augment, derive(seed, "contact-sheet", k)) for k in range(SHEET_VERSIONS)]
    return tuple(
        report.Augmented(original, tuple(version[row] for version in versions)) for row, original in enumerate(chosen)
    )


def _augmented(pixels: Any, settings: Augment, seed: int) -> Any:
    """Return uint8 (n, S, S, 3) augmented as in training."""
    generator = torch.Generator().manual_seed(seed)
    views = augment(to_input(torch.from_numpy(pixels)), draw(len(pixels), settings, generator))
    return (views.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def mapped_model(kept: Sequence[CervixModel], stored: Sequence[StoredClassifier]) -> CervixModel | None:
    """Return the model whose map is shown: the federation's that was fine-tuned last, else the newest of the site."""
    tuned = {c.record["origin"].get("digest") for c in stored if c.start.startswith(FEDERATED)}
    federated = [model for model in kept if model.start.startswith(FEDERATED)]
    found = [model for model in federated if model.record.get("digest") in tuned] or federated or list(kept)
    return found[-1] if found else None


def _maps(
    home: SiteHome, collection: Collection, model: CervixModel | None, device: torch.device, tell: Tell
) -> tuple[tuple[report.EmbeddingMap, ...], str]:
    """Return the maps; a model whose weights cannot be read costs them, and says why."""
    try:
        return embedding_maps(home, collection, model, device, tell)
    except FedcervixError as error:
        return (), f"There is no map: {error.what}."


def embedding_maps(
    home: SiteHome, collection: Collection, model: CervixModel | None, device: torch.device, tell: Tell = silent
) -> tuple[tuple[report.EmbeddingMap, ...], str]:
    """Return how random weights and the model arrange the site's images; where there is no map, why."""
    if model is None:
        return (), "There is no map: this site keeps no cervix model yet."
    labels = [image.label for split in PARTS for image in collection.contrastive(split)]
    if len(labels) < IMAGES_MIN:
        return (), f"There is no map: it takes at least {IMAGES_MIN} images, and there are {len(labels)}."
    chosen = choose(len(labels), model.seed)
    pixels, shown = _mapped_pixels(home, collection, model.recipe, chosen), tuple(labels[k] for k in chosen)
    untrained, trained = (build_encoder(model.recipe, first_seed(model.seed)) for _ in range(2))
    apply_weights(trained, load_weights(model.weights), what=f"cervix model {model.folder.name}")
    whose = "the federated model" if model.start.startswith(FEDERATED) else "the model"
    named = {"random weights": untrained, f"{whose} ({model.start})": trained}
    maps = []
    for number, (name, encoder) in enumerate(named.items(), 1):
        maps.append(report.EmbeddingMap(name, _places(encoder, pixels, device, model.seed), shown, len(labels)))
        tell("maps of the images", number, len(named))
    return tuple(maps), ""


def _mapped_pixels(
    home: SiteHome, collection: Collection, recipe: Recipe, chosen: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the chosen ones of all training images followed by all validation images, reading no others."""
    train, valid = (dataset.contrastive(home, collection, recipe, split).pixels for split in PARTS)
    count = len(train)
    return np.concatenate([train[chosen[chosen < count]], valid[chosen[chosen >= count] - count]])


def _places(
    encoder: Encoder, pixels: NDArray[np.uint8], device: torch.device, seed: int
) -> tuple[tuple[float, float], ...]:
    """Return where each image lies, in round numbers."""
    place(encoder, device)
    return tuple((round(x, 2), round(y, 2)) for x, y in lay_out(embed(encoder, pixels, device), seed).tolist())
