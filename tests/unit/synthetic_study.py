"""A study's folder without any training: cells whose scores are drawn, so that reports have something to say.

Each site has women who are cases or controls, two images each. A start's classifier gives a case a score that is higher
by its `gain`, on top of what is common to all starts (women who are easy or hard) and what differs from seed to seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cervix_study import records
from cervix_study.records import (
    Axes,
    Candidate,
    Cell,
    CellProvenance,
    CellRecord,
    Choice,
    ClassifierResults,
    Costs,
    CurvePoint,
    DataRow,
    EncoderResults,
    NearDuplicate,
    Opened,
    Prediction,
    ProbeResults,
    ProfileUsed,
    Quarantine,
    Registered,
    Selection,
    SharedPicture,
    Study,
    StudyData,
    StudySite,
)
from fedcervix.core.plan import Recipe, Terms
from fedcervix.core.profiles import PROFILES
from fedcervix.core.seeds import derive

GAINS = {
    "random": 0.9,
    "imagenet": 1.3,
    "ssl": 1.4,
    "cssl": 2.0,
    "csfssl": 1.9,
    "ppfssl-from-nhs": 1.8,
    "ppfssl-from-alts": 1.7,
}


@dataclass(frozen=True)
class Synthetic:
    """What is drawn. The defaults are small: two sites, one profile, two seeds."""

    sites: tuple[str, ...] = ("nhs", "alts")
    profiles: tuple[str, ...] = ("paper",)
    starts: tuple[str, ...] = ("random", "ssl", "cssl", "csfssl", "ppfssl-from-nhs", "ppfssl-from-alts")
    batch_images: tuple[int, ...] = (8, 16)
    epochs_per_round: tuple[int, ...] = (1,)
    seeds: tuple[int, ...] = (1, 2)
    classifier_seeds: tuple[int, ...] = (0,)
    folds: int = 0
    case_women: int = 25
    control_women: int = 50
    label_fractions: tuple[float, ...] = ()
    controls: tuple[str, ...] = ()
    noise: float = 0.6
    """of one training"""
    phantom: bool = True
    registered: Registered | None = None


WHOLE = Synthetic(
    profiles=("paper", "recommended"),
    starts=("random", "ssl", "cssl", "csfssl", "ppfssl-from-nhs"),
    label_fractions=(0.1,),
    controls=("shuffled-labels", "equal-updates", "one-site-batches", "site-predictability"),
    case_women=24,
    control_women=40,
)
"""a study of every start, with all controls"""


def write(folder: Path, drawn: Synthetic = Synthetic()) -> Path:
    """Write the folder of a finished study; return it."""
    cells: list[tuple[CellRecord, tuple[Prediction, ...]]] = []
    choices: list[Choice] = []
    opened: list[Opened] = []
    for profile in drawn.profiles:
        _cells_of(drawn, profile, cells, choices, opened)
    for record, predictions in cells:
        place = records.cell_folder(folder, record.key)
        place.mkdir(parents=True, exist_ok=True)
        records.write(place / records.CELL_FILE, record)
        if predictions:
            (place / records.PREDICTIONS_FILE).write_bytes(records.predictions_text(predictions))
    records.write(folder / records.STUDY_FILE, _study(drawn, tuple(record.key for record, _ in cells)))
    records.write(folder / records.DATA_FILE, _data(drawn))
    records.write(folder / records.SELECTION_FILE, Selection(choices=tuple(choices), opened=tuple(opened)))
    return folder


def _variants(drawn: Synthetic, start: str) -> list[tuple[int | None, int | None, int | None]]:
    """N, E and width of a start."""
    if start in ("random", "imagenet"):
        return [(None, None, None)]
    if start in ("ssl", "cssl"):
        return [(n, None, 64) for n in drawn.batch_images]
    return [(8, e, 64) for e in drawn.epochs_per_round]


def _cells_of(
    drawn: Synthetic,
    profile: str,
    cells: list[tuple[CellRecord, tuple[Prediction, ...]]],
    choices: list[Choice],
    opened: list[Opened],
) -> None:
    encoders: dict[Any, str] = {}
    folds = range(drawn.folds) if drawn.folds else [None]
    for site, fold, start in itertools.product(drawn.sites, folds, drawn.starts):
        candidates = []
        for variant in _variants(drawn, start):
            keys = []
            for seed, classifier_seed in itertools.product(drawn.seeds, drawn.classifier_seeds):
                place = (site if start == "ssl" else "", fold, start, variant, seed)
                if variant[0] is not None and place not in encoders:
                    encoder = _encoder(drawn, profile, start, site, variant, seed, fold)
                    encoders[place] = encoder.key
                    cells.append((encoder, ()))
                    if "site-predictability" in drawn.controls and start != "ssl" and fold in (None, 0):
                        unmixed = start == "cssl" and "one-site-batches" in drawn.controls
                        probed = ("none", "one-site-batches") if unmixed else ("none",)
                        cells += [
                            (_probe(drawn, profile, start, variant, seed, encoder.key, control), ())
                            for control in probed
                        ]
                inputs = (encoders[place],) if place in encoders else ()
                extras = [(1.0, "none", "named in advance")]
                extras += [(f, "none", "label fraction") for f in drawn.label_fractions if variant[0] in (None, 8)]
                extras += [
                    (1.0, control, "control")
                    for control in drawn.controls
                    if control != "site-predictability" and start == "cssl" and variant[0] == drawn.batch_images[0]
                ]
                for fraction, control, why in extras:
                    record, rows = _classifier(
                        drawn, profile, start, site, variant, seed, classifier_seed, fold, fraction, control, inputs
                    )
                    cells.append((record, rows))
                    opened.append(Opened(key=record.key, why=why))
                    keys += [record.key] if why == "named in advance" else []
            n, e, width = variant
            loss = 0.55 + 0.01 * (n or 0) / 8 - 0.05 * GAINS[start] + 0.02 * len(candidates)
            candidates.append(
                Candidate(
                    batch_images=n,
                    epochs_per_round=e,
                    width=width,
                    validation_loss=loss,
                    validation_auc=0.6 + 0.1 * GAINS[start],
                    keys=tuple(keys),
                )
            )
        # the second fold, where there is one, chooses the other N
        pick = 1 if fold == 1 and len(candidates) > 1 else 0
        choices.append(
            Choice(profile=profile, site=site, start=start, fold=fold, candidates=tuple(candidates), chosen=pick)
        )


def _recipe(profile: str, start: str, variant: tuple[int | None, int | None, int | None]) -> tuple[Recipe, Terms]:
    used = PROFILES[profile]
    n, e, width = variant
    recipe = dataclasses.replace(
        used.recipe, batch_images=n or 8, width=width or 64, image_px=64, architecture="resnet18"
    )
    return recipe, dataclasses.replace(used.terms, epochs_per_round=e or 1)


def _encoder(drawn, profile, start, site, variant, seed, fold) -> CellRecord:
    recipe, terms = _recipe(profile, start, variant)
    federated = start.startswith(("csfssl", "ppfssl"))
    cell = Cell(
        kind="encoder",
        profile=profile,
        start=start,
        sites=(site,) if start == "ssl" else drawn.sites,
        batch_images=variant[0],
        width=variant[2],
        epochs_per_round=variant[1],
        seed=seed,
        fold=fold,
        recipe=recipe,
        terms=terms if federated else None,
        data={name: _digest(name, fold) for name in ((site,) if start == "ssl" else drawn.sites)},
        software="synthetic",
    )
    rng = np.random.default_rng(derive(seed, "curve", cell.key))
    collapsed = math.log(2 * (variant[0] or 8) - 1)
    losses = collapsed * (0.35 + 0.5 * np.exp(-np.arange(1, 13) / 4) + 0.01 * rng.normal(size=12))
    curve = tuple(
        CurvePoint(number=i, train_loss=float(loss), valid_loss=float(loss + 0.06), seconds=30.0)
        for i, loss in enumerate(losses, 1)
    )
    results = EncoderResults(
        validation_loss=float(losses.min()),
        best=int(losses.argmin()) + 1,
        updates=1200 * len(cell.sites),
        updates_best=1100,
        images=dict.fromkeys(cell.sites, 2029),
        precision=dict.fromkeys(cell.sites, "float32"),
        outcome="OK",
        curve=curve,
        model=hashlib.sha256(cell.key.encode()).hexdigest(),
    )
    costs = Costs(seconds=600.0, cpu_s=1100.0, wire_bytes=94_600_000 * 4 if federated else None, energy_j=40_000.0)
    return CellRecord(key=cell.key, cell=cell, encoder=results, costs=costs, provenance=_provenance(federated))


def _probe(drawn, profile, start, variant, seed, encoder, control) -> CellRecord:
    recipe, _ = _recipe(profile, start, variant)
    cell = Cell(
        kind="site-probe",
        profile=profile,
        start=start,
        sites=drawn.sites,
        batch_images=variant[0],
        width=variant[2],
        epochs_per_round=variant[1],
        seed=seed,
        control=control,
        recipe=recipe,
        inputs=(encoder,),
        data={name: _digest(name, None) for name in drawn.sites},
        software="synthetic",
    )
    results = ProbeResults(
        balanced_accuracy=0.9 + 0.01 * seed,
        chance=1 / len(drawn.sites),
        recall=dict.fromkeys(drawn.sites, 0.9),
        images=dict.fromkeys(drawn.sites, 520),
    )
    return CellRecord(
        key=cell.key, cell=cell, site_probe=results, costs=Costs(seconds=9.0, cpu_s=9.0), provenance=_provenance(False)
    )


def _classifier(
    drawn, profile, start, site, variant, seed, classifier_seed, fold, fraction, control, inputs
) -> tuple[CellRecord, tuple[Prediction, ...]]:
    recipe, _ = _recipe(profile, start, variant)
    cell = Cell(
        kind="classifier",
        profile=profile,
        start=start,
        sites=(site,),
        batch_images=variant[0],
        width=variant[2],
        epochs_per_round=variant[1],
        seed=seed,
        classifier_seed=classifier_seed,
        fold=fold,
        label_fraction=fraction,
        control=control,
        recipe=recipe,
        inputs=inputs,
        data={site: _digest(site, fold)},
        software="synthetic",
    )
    gain = GAINS[start] * (1.15 if profile == "recommended" else 1.0) * (0.35 + 0.65 * (1 + math.log10(fraction) / 2))
    gain *= {"shuffled-labels": 0.0, "equal-updates": 0.9, "one-site-batches": 1.1}.get(control, 1.0)
    curve = tuple(
        CurvePoint(
            number=i, train_loss=0.7 / i**0.4, valid_loss=0.68 - 0.04 * min(i, 6) + 0.03 * max(0, i - 6), seconds=4.0
        )
        for i in range(1, 12)
    )
    results = ClassifierResults(
        validation_loss=0.44,
        validation_auc=0.8,
        best=6,
        stopped="patience",
        threshold=0.42,
        updates=1500,
        train_women=round(fraction * 272),
        train_images=round(fraction * 543),
        train_cases=round(fraction * 182),
        precision="float32",
        loaded="120 of 120 backbone tensors",
        curve=curve,
        model=hashlib.sha256(cell.key.encode()).hexdigest(),
    )
    record = CellRecord(
        key=cell.key,
        cell=cell,
        classifier=results,
        costs=Costs(seconds=60.0, cpu_s=110.0, energy_j=4000.0),
        provenance=_provenance(False),
    )
    return record, _predictions(drawn, site, fold, gain, cell.key)


def _predictions(drawn: Synthetic, site: str, fold: int | None, gain: float, key: str) -> tuple[Prediction, ...]:
    rows = []
    for split in ("valid", "test"):
        rng = np.random.default_rng(derive(0, "women", site, str(fold), split))
        women = drawn.case_women + drawn.control_women
        labels = np.repeat([1, 0], [drawn.case_women, drawn.control_women])
        ease = rng.normal(size=women)
        own = np.random.default_rng(derive(0, "training", key, split))
        for image, woman in itertools.product(range(2), range(women)):
            logit = ease[woman] + gain * (labels[woman] - 0.5) + drawn.noise * own.normal()
            name = f"{site}-{split}-{'' if fold is None else fold}{woman:03d}"
            rows.append(
                Prediction(split, f"images/{name}-{image}.png", name, int(labels[woman]), 1 / (1 + math.exp(-logit)))
            )
    return tuple(rows)


def _digest(site: str, fold: int | None) -> str:
    return hashlib.sha256(f"{site} {fold}".encode()).hexdigest()


def _provenance(federated: bool) -> CellProvenance:
    details = {"run": "r1", "plan_digest": "ab" * 32, "processes": 3} if federated else {}
    return CellProvenance(
        begun_at="2026-11-27T08:00:00+00:00",
        ended_at="2026-11-27T08:10:00+00:00",
        host="node1",
        machine="a processor",
        threads=1,
        versions={"fedcervix": "0.2.0", "torch": "2.14.1", "numpy": "2.4.6"},
        details=details,
    )


def _study(drawn: Synthetic, keys: tuple[str, ...]) -> Study:
    digests = {("-" if not drawn.folds else str(f)): "" for f in range(max(1, drawn.folds))}
    return Study(
        name="synthetic",
        state="finished",
        sites=tuple(
            StudySite(
                name=site,
                manifest=f"{site}/manifest.csv",
                phantom=site if drawn.phantom else "",
                digests={fold: _digest(site, None if fold == "-" else int(fold)) for fold in digests},
            )
            for site in drawn.sites
        ),
        profiles={
            name: ProfileUsed(recipe=PROFILES[name].recipe, terms=PROFILES[name].terms) for name in drawn.profiles
        },
        axes=Axes(
            profiles=drawn.profiles,
            starts=drawn.starts,
            batch_images=drawn.batch_images,
            federated_batch_images=(8,),
            width=(64,),
            epochs_per_round=drawn.epochs_per_round,
            seeds=drawn.seeds,
            classifier_seeds=drawn.classifier_seeds,
            folds=drawn.folds,
            label_fractions=drawn.label_fractions,
            controls=drawn.controls,
        ),
        cells=keys,
        command=("cervix-study", "run", "STUDY.toml"),
        configuration='name = "synthetic"\n[study]\nseeds = [1, 2]\n',
        versions={"fedcervix": "0.1.0", "torch": "2.14.1"},
        host="node1",
        machine="a processor",
        cores=2,
        begun_at="2026-11-27T08:00:00+00:00",
        ended_at="2026-11-27T11:00:00+00:00",
        registered=drawn.registered,
    )


def _data(drawn: Synthetic) -> StudyData:
    rows = []
    folds = range(drawn.folds) if drawn.folds else [None]
    for site, fold in itertools.product(drawn.sites, folds):
        for split, case, control in (("train", 91, 181), ("valid", 22, 45)):
            rows += [_row(site, fold, split, "case", case), _row(site, fold, split, "control", control)]
            rows.append(_row(site, fold, split, "unlabelled", 3 * case, labelled=False))
        rows += [
            _row(site, fold, "test", "case", drawn.case_women),
            _row(site, fold, "test", "control", drawn.control_women),
        ]
    one, two = drawn.sites[0], drawn.sites[-1]
    return StudyData(
        rows=tuple(rows),
        quarantine=tuple(Quarantine(site=site, rows=2600, copies=3, unreadable=1, disputed=2) for site in drawn.sites),
        shared=(
            SharedPicture(
                site=one,
                patients=("SECRET-WOMAN-1", "SECRET-WOMAN-2"),
                images=("SECRET-IMAGE-1.png", "SECRET-IMAGE-2.png"),
                identical=True,
                conflicting=True,
            ),
        ),
        near_duplicates=(
            NearDuplicate(
                sites=(one, two),
                patients=("SECRET-WOMAN-3", "SECRET-WOMAN-4"),
                images=("SECRET-IMAGE-3.png", "SECRET-IMAGE-4.png"),
                splits=("train", "test"),
                likeness=0.987,
            ),
        ),
    )


def _row(site, fold, split, stratum, women, labelled=True) -> DataRow:
    return DataRow(
        site=site,
        fold=fold,
        split=split,
        stratum=stratum,
        women=women,
        labelled_images=2 * women if labelled else 0,
        images=2 * women if labelled else 5 * women,
    )
