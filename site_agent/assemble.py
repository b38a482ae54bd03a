"""Everything the site's report says, gathered from what the commands left in the home folder."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
import sklearn
import torch
import torchvision
from numpy.typing import NDArray

from fedcervix import __version__
from fedcervix.plan import Augment, Recipe
from fedcervix.seeds import derive
from site_agent import dataset, report
from site_agent.augment import augment, draw, to_input
from site_agent.classifiers import StoredClassifier
from site_agent.collection import Collection
from site_agent.comparable import Comparable
from site_agent.contrast import collapse_loss
from site_agent.devices import place
from site_agent.embedding_map import IMAGES_MIN, choose, lay_out
from site_agent.evaluate import Evaluation, compare, evaluate
from site_agent.finetune import Labelled, predict
from site_agent.gauges import Gauges, alarms
from site_agent.home import SiteHome
from site_agent.model import Encoder, apply_weights, build_encoder, load_weights
from site_agent.models import CervixModel
from site_agent.neighbours import embed
from site_agent.runs import Federation, federation_of, last_federation
from site_agent.tasks import first_seed

SHEET_IMAGES = 5
SHEET_VERSIONS = 5
FEDERATED = ("CSFSSL", "PPFSSL")
PARTS: tuple[Literal["train", "valid"], ...] = ("train", "valid")
"""whose women are on the maps"""


def evaluations(
    stored: Sequence[StoredClassifier], test: Labelled, device: torch.device, seed: int
) -> tuple[tuple[Evaluation, ...], dict[str, Any]]:
    """Score every classifier on the test images; return the evaluations and the scores they are of."""
    scores = {c.start: predict(c.build(), test.pixels, device=device) for c in stored}
    evaluated = tuple(
        evaluate(c.start, test.labels, scores[c.start], test.patients, threshold_validation=c.threshold, seed=seed)
        for c in stored
    )
    return evaluated, scores


def site_report(
    home: SiteHome,
    site: str,
    collection: Collection,
    found: Comparable,
    test: Labelled,
    device: torch.device,
    now: datetime,
) -> report.SiteReport:
    """Evaluate and gather; the one place where the test images are opened."""
    stored = found.stored
    federation = federation_of(home, found.run) if found.run else last_federation(home)
    recipe, seed = stored[0].recipe, stored[0].seed
    evaluated, scores = evaluations(stored, test, device, seed)
    maps, no_map = embedding_maps(home, collection, mapped_model(found), device)
    federated = found.federated.start if found.federated else ""
    others = [c.start for c in stored if c.start != federated] if federated else []
    return report.SiteReport(
        site=site,
        federation=home.certificate().identity.federation if home.key_file("site.crt").exists() else "",
        run=found.run or (federation.run if federation else ""),
        mode=federation.plan.mode if federation else "csfssl",
        plan_digest=found.federated.provenance.start.plan
        if found.federated
        else federation.plan.digest
        if federation
        else "",
        recipe=recipe,
        when=f"{now:%Y-%m-%d %H:%M} UTC",
        versions=versions(),
        final_state=federation.spool.outcome() if federation else "no federation yet",
        federated=federated,
        census=tuple(
            report.CensusRow(row.split, row.stratum, row.women, row.labelled, row.images) for row in collection.census()
        ),
        set_aside=_set_aside(collection),
        provenance=tuple(c.provenance for c in stored),
        evaluations=evaluated,
        comparisons=tuple(compare(federated, other, test.labels, scores, test.patients, seed=seed) for other in others),
        contrastive_history=_contrastive(found.starts, federation),
        collapse_line=collapse_loss(recipe.batch_images, recipe.loss),
        neighbour_history=neighbours(found.starts),
        classifier_history=tuple(
            report.Losses(c.start, tuple(e.train_loss for e in c.history), tuple(e.valid_loss for e in c.history))
            for c in stored
        ),
        rounds=_rounds(federation),
        alarms=_alarms(federation, recipe),
        contact_sheet=contact_sheet(home, collection, recipe, seed),
        maps=maps,
        no_map=no_map,
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


def _contrastive(kept: Sequence[CervixModel], federation: Federation | None) -> tuple[report.Losses, ...]:
    """Return the curves of local training, and of the federation as this site saw it."""
    curves = []
    for model in kept:
        if "history" in model.record:
            history = model.record["history"]
            train, valid = (tuple(e[key] for e in history) for key in ("train_loss", "valid_loss"))
            curves.append(report.Losses(model.start, train, valid))
    if federation:
        history = federation.spool.history()
        train = tuple(values["loss"] for values in _by_round(history.get("train", {})))
        valid = tuple(v["loss_sum"] / v["count"] for v in _by_round(history.get("score", {})))
        curves.append(report.Losses(f"{federation.plan.mode.upper()} (this site's images)", train, valid))
    return tuple(curves)


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


def _rounds(federation: Federation | None) -> tuple[report.Round, ...]:
    """Return who gave what to each round, by the coordinator's ledger."""
    if federation is None:
        return ()
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


def mapped_model(found: Comparable) -> CervixModel | None:
    """Return the model whose map is shown: the federation's that is evaluated, else the last one of the starts."""
    federated = found.federated.provenance.start.weights if found.federated else ""
    mapped = [model for model in found.starts if model.digest == federated] or found.starts
    return mapped[-1] if mapped else None


def embedding_maps(
    home: SiteHome, collection: Collection, model: CervixModel | None, device: torch.device
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
    model.check()
    apply_weights(trained, load_weights(model.weights), what=f"cervix model {model.folder.name}")
    whose = "the federated model" if model.start.startswith(FEDERATED) else "the model"
    named = {"random weights": untrained, f"{whose} ({model.start})": trained}
    maps = (
        report.EmbeddingMap(name, _places(encoder, pixels, device, model.seed), shown, len(labels))
        for name, encoder in named.items()
    )
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
