"""Collects all data of the site's report from the files that the commands left in the home folder.

If a file (a ledger, a history, a plan) cannot be read, only its section is missing, and the report says so.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

import numpy as np
import sklearn
import torch
import torchvision
from numpy.typing import NDArray

from fedcervix import __version__
from fedcervix.core.collapse import collapse_loss
from fedcervix.core.plan import Augment, Recipe
from fedcervix.core.seeds import derive
from fedcervix.errors import FedcervixError
from fedcervix.printable import printable
from fedcervix.runtime.record import ContributionLine
from site_agent.classifier.comparable import Comparable
from site_agent.data import dataset
from site_agent.data.collection import Collection
from site_agent.data.remarks import remarks
from site_agent.home import SiteHome
from site_agent.network.augmentation import augment, draw, to_input
from site_agent.network.devices import place
from site_agent.network.encoder import Encoder, apply_weights, build_encoder, load_weights
from site_agent.report import clinic_data, clinical, content, scores
from site_agent.report.clinic_data import OpenedImages
from site_agent.report.embedding_map import IMAGES_MIN, choose, lay_out
from site_agent.report.scores import Tell, silent
from site_agent.store.audit_sheets import AuditSheet
from site_agent.store.model_store import CervixModel
from site_agent.store.provenance import FEDERATED
from site_agent.store.run_store import StoredRun, federation_of, last_federation
from site_agent.store.unread import Unread
from site_agent.training.collapse_metrics import Gauges, alarms
from site_agent.training.knn_probe import embed
from site_agent.worker.tasks import first_seed

SHEET_IMAGES = 5
SHEET_VERSIONS = 5
PARTS: tuple[Literal["train", "valid"], ...] = ("train", "valid")
"""whose women are on the maps"""


def site_report(opened: OpenedImages, site: str, now: datetime) -> content.SiteReport:
    """Score, evaluate and gather; the one place where the test images are opened."""
    home, collection, found, device, tell = opened.home, opened.collection, opened.found, opened.device, opened.tell
    unread, seed = Unread(), found.stored[0].seed
    federation = unread.part("The plan of the federation's run", lambda: _federation(home, found), None)
    federated = found.federated.start if found.federated else ""
    scored = scores.predictions(opened.used, found.stored, opened.test, device, tell)
    by_image, by_woman = scores.evaluations(scored, tell)
    sheet = unread.part("The clinical page", lambda: clinic_data.sheet(opened, scored), None) if by_woman else None
    maps, no_map = _maps(home, collection, mapped_model(found), device, tell)
    no_losses: tuple[content.Losses, ...] = ()
    return content.SiteReport(
        site=site,
        federation=home.certificate().identity.federation if home.key_file("site.crt").exists() else "",
        **_of_run(found, federation, unread),
        recipe=_recipe(found),
        when=f"{now:%Y-%m-%d %H:%M} UTC",
        versions=versions(),
        federated=federated,
        census=tuple(
            content.TableOneRow(row.split, row.stratum, row.women, row.labelled, row.images)
            for row in collection.census()
        ),
        set_aside=_set_aside(collection),
        evaluations=by_image,
        by_woman=by_woman,
        comparisons=scores.comparisons(scored, federated, tell),
        predictions=scored,
        floor=clinical.floor_evaluations(scored, sheet.floor) if sheet else (),
        clinical=clinical.clinical(sheet) if sheet else None,
        looks=clinic_data.looks(opened, scored) if by_woman and opened.look else (),
        differences=found.differences,
        reservations=found.reservations,
        provenance=tuple(one.provenance for one in found.stored),
        contrastive_history=_contrastive(found.starts, federation, unread),
        collapse_line=_collapse_line(found.starts, federation),
        neighbour_history=unread.part("The history of the neighbour probe", lambda: neighbours(found.starts), ()),
        classifier_history=unread.part("The history of fine-tuning", lambda: _fine_tuning(found), no_losses),
        audits=unread.part("The audits of the updates", lambda: _audits(federation), ()),
        alarms=unread.part("The gauges of the federation's run", lambda: _alarms(federation), ()),
        contact_sheet=contact_sheet(home, collection, _recipe(found), seed),
        maps=maps,
        no_map=no_map,
        unread=tuple(unread.said),
    )


def _fine_tuning(found: Comparable) -> tuple[content.Losses, ...]:
    """Return the curves of fine-tuning, one for each classifier."""
    return tuple(
        content.Losses(c.start, tuple(e.train_loss for e in c.history), tuple(e.valid_loss for e in c.history))
        for c in found.stored
    )


def _federation(home: SiteHome, found: Comparable) -> StoredRun | None:
    """Return the run that the numbers are about; without a federated classifier, the last one."""
    return federation_of(home, found.run) if found.run else last_federation(home, any_readable=True)


def _recipe(found: Comparable) -> Recipe:
    """Return the recipe of the model that is in question, with the terms under which classifiers were fine-tuned."""
    model, tuned = mapped_model(found), found.stored[0].recipe
    return dataclasses.replace(model.recipe, classifier=tuned.classifier) if model else tuned


class _OfRun(TypedDict):
    """Those fields of a report that are about the run."""

    run: str
    mode: str
    plan_digest: str
    final_state: str
    rounds: tuple[content.RoundRow, ...]


def _of_run(found: Comparable, federation: StoredRun | None, unread: Unread) -> _OfRun:
    """Return what the report says of the run; of none where there was none, or where its records cannot be read."""
    plan = found.federated.provenance.start.plan if found.federated else ""
    if federation is None:
        state = "not known" if unread.said or found.run else "no federation yet"
        return {"run": found.run, "mode": "", "plan_digest": plan, "final_state": state, "rounds": ()}
    run_store, run = federation.run_store, federation.run
    no_rounds: tuple[content.RoundRow, ...] = ()
    return {
        "run": run,
        "mode": federation.plan.mode,
        "plan_digest": plan or federation.plan.digest,
        "final_state": unread.part(f"How run {run} ended (outcome.txt)", run_store.outcome, "not known"),
        "rounds": unread.part(f"The ledger of run {run} (record.json)", lambda: _rounds(federation), no_rounds),
    }


def _collapse_line(starts: Sequence[CervixModel], federation: StoredRun | None) -> float | None:
    """Return the loss of a collapsed model; None where the curves that are drawn have several such lines."""
    recipes = [model.recipe for model in starts] + ([federation.plan.recipe] if federation else [])
    lines = {collapse_loss(recipe.batch_images, recipe.loss) for recipe in recipes}
    return lines.pop() if len(lines) == 1 else None


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


def _set_aside(collection: Collection) -> content.SetAside:
    return content.SetAside(
        quarantined=tuple((item.image, item.reason) for item in collection.quarantined),
        duplicates=len(collection.copies),
        shared_pictures=collection.shared_pictures,
        remarks=tuple((remark.heading, remark.items) for remark in remarks(collection)),
    )


def _contrastive(
    kept: Sequence[CervixModel], federation: StoredRun | None, unread: Unread
) -> tuple[content.Losses, ...]:
    """Return the curves of local training, and of the federation as this site saw it."""
    own = [_curve(model) for model in kept if model.history]
    joint = (
        unread.part("The history of the last run", functools.partial(_federated_curve, federation), None)
        if federation
        else None
    )
    return tuple(curve for curve in (*own, joint) if curve)


def _curve(model: CervixModel) -> content.Losses:
    history = model.history
    return content.Losses(
        model.start, tuple(epoch.train_loss for epoch in history), tuple(epoch.valid_loss for epoch in history)
    )


def _federated_curve(federation: StoredRun) -> content.Losses:
    history = federation.run_store.history()
    train = tuple(history.train[round_].loss for round_ in sorted(history.train))
    valid = tuple(history.score[round_].loss for round_ in sorted(history.score))
    return content.Losses(f"{federation.plan.mode.upper()} (this site's images)", train, valid)


def neighbours(kept: Sequence[CervixModel]) -> tuple[content.Neighbours, ...]:
    """Return the probe of every local training that measured it; records of older versions did not."""
    probed = ((model, tuple(epoch.knn_auc for epoch in model.history)) for model in kept)
    return tuple(
        content.Neighbours(model.start, aucs, model.best_epoch)
        for model, aucs in probed
        if any(auc is not None for auc in aucs)
    )


def _rounds(federation: StoredRun) -> tuple[content.RoundRow, ...]:
    """Return who gave what to each round, by the coordinator's ledger. Raises whatever a damaged one raises."""
    return tuple(
        content.RoundRow(
            line.round,
            line.loss,
            (*map(_gave, line.contributions), *(content.Contribution(m.site, why_not=m.reason) for m in line.missing)),
            tuple((alarm.site, printable(alarm.words)) for alarm in line.alarms),
        )
        for line in federation.run_store.ledger()
    )


def _gave(c: ContributionLine) -> content.Contribution:
    return content.Contribution(c.site, c.images, c.steps, c.norm, c.cosine, c.distance)


def _alarms(federation: StoredRun | None) -> tuple[str, ...]:
    scored = federation.run_store.history().score if federation else {}
    if federation is None or not scored:
        return ()
    last, recipe = scored[max(scored)], federation.plan.recipe
    return tuple(alarms(Gauges(**last.gauges), last.loss, recipe.batch_images, recipe.loss))


def _audits(federation: StoredRun | None) -> tuple[AuditSheet, ...]:
    trained = federation.run_store.history().train if federation else {}
    return tuple(one.audit for _, one in sorted(trained.items()) if one.audit is not None)


def contact_sheet(home: SiteHome, collection: Collection, recipe: Recipe, seed: int) -> tuple[content.Augmented, ...]:
    """Return a few training images with what the trainer makes of them."""
    images = dataset.contrastive(home, collection, recipe, "train")
    step = max(1, len(images) // SHEET_IMAGES)
    chosen = images.pixels[np.arange(0, len(images), step)[:SHEET_IMAGES]]
    versions = [_augmented(chosen, recipe.augment, derive(seed, "contact-sheet", k)) for k in range(SHEET_VERSIONS)]
    return tuple(
        content.Augmented(original, tuple(version[row] for version in versions)) for row, original in enumerate(chosen)
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


def _maps(
    home: SiteHome, collection: Collection, model: CervixModel | None, device: torch.device, tell: Tell
) -> tuple[tuple[content.EmbeddingMap, ...], str]:
    """Return the maps; a model whose weights cannot be read costs them, and says why."""
    try:
        return embedding_maps(home, collection, model, device, tell)
    except FedcervixError as error:
        return (), f"There is no map: {error.what}."


def embedding_maps(
    home: SiteHome, collection: Collection, model: CervixModel | None, device: torch.device, tell: Tell = silent
) -> tuple[tuple[content.EmbeddingMap, ...], str]:
    """Return how random weights and the model arrange the site's images; where there is no map, why."""
    if model is None:
        return (), "There is no map: this site keeps no cervix model yet."
    mapped = collection.of_stages(model.recipe.stages)
    labels = [image.label for split in PARTS for image in mapped.contrastive(split)]
    if len(labels) < IMAGES_MIN:
        return (), f"There is no map: it takes at least {IMAGES_MIN} images, and there are {len(labels)}."
    chosen = choose(len(labels), model.seed)
    pixels, shown = _mapped_pixels(home, collection, model.recipe, chosen), tuple(labels[k] for k in chosen)
    untrained, trained = (build_encoder(model.recipe, first_seed(model.seed)) for _ in range(2))
    model.check()
    apply_weights(trained, load_weights(model.weights), what=f"cervix model {model.folder.name}")
    whose = "the federated model" if model.start.startswith(FEDERATED) else "the model"
    named = {"random weights": untrained, f"{whose} ({model.start})": trained}
    maps = []
    for number, (name, encoder) in enumerate(named.items(), 1):
        tell("map of the images", number, len(named))
        maps.append(content.EmbeddingMap(name, _places(encoder, pixels, device, model.seed), shown, len(labels)))
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
