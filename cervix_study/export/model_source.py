"""A model to export: what it is, where it comes from, how it was tested.

    STUDY/cells/KEY            a cell of a study: a cervix model or a classifier  (KEY may be shortened)
    HOME/models/NAME           a cervix model that a site adopted or made
    HOME/classifiers/NAME      a classifier of a site
    FOLDER                     what `coordinator export` wrote

Nothing that identifies a woman is exported: only counts are read.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cervix_study import records
from cervix_study.analysis.result_rows import scored
from cervix_study.records import CELL_FILE, MODEL_FILE, CellRecord, DataRow, StudyData
from fedcervix.core.modes import title_of
from fedcervix.core.plan import Recipe
from fedcervix.errors import FedcervixError, ModelError
from fedcervix.lineage.decision_store import DecisionStore
from fedcervix.lineage.decisions import ModelStanding
from fedcervix.runtime.record import LedgerLine, stored_record
from site_agent.classifier import classifier_store
from site_agent.classifier.evaluate import Evaluation, evaluate
from site_agent.classifier.kept_models import shelf
from site_agent.home import SiteHome
from site_agent.images.preparation import SiteColour
from site_agent.starts import FLOOR, title
from site_agent.store import model_store
from site_agent.store.archive import HISTORY
from site_agent.store.model_store import CervixModel
from site_agent.store.provenance import Provenance, recipe_digest
from site_agent.store.report_store import all_reports
from site_agent.store.run_store import federation_of

ModelKind = Literal["cervix model", "classifier"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One test of the model: of itself, or, for a cervix model, of a classifier that starts from it."""

    site: str
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class CurveRound:
    """One round of a federation, as a cell of a study has it."""

    round: int
    loss: float | None
    sites: Mapping[str, Mapping[str, float]]
    """site -> what it reported"""


@dataclass(frozen=True, slots=True)
class Released:
    """Everything that a model card says."""

    kind: ModelKind
    start: str
    """as the paper prints it"""
    recipe: Recipe
    seed: int
    weights: Path
    digest: str
    """SHA-256 of the weights file"""
    sites: tuple[str, ...]
    """whose images it learned from"""
    origin: Mapping[str, object]
    """study, cell, run, plan digest, outcome ... as far as known"""
    provenance: Provenance | None = None
    """of a site's classifier: the digests that its numbers belong to"""
    rounds: tuple[LedgerLine, ...] | tuple[CurveRound, ...] = ()
    """of a federation: who contributed what to each round"""
    data: tuple[DataRow, ...] = ()
    """counts of the sites' women and images; empty where the folder does not say"""
    shared_pictures: Mapping[str, int] = field(default_factory=dict)
    """site -> pictures under several patients"""
    threshold: float | None = None
    """of a classifier, chosen on validation images"""
    judged: tuple[Judged, ...] = ()
    site_predictability: float | None = None
    """share of images whose site a linear probe told from the representation"""
    software: str = ""
    colour: SiteColour | None = None
    """of the site that made a classifier; None where its recipe does not harmonise, or where it is of no one site"""
    standing: ModelStanding = field(default_factory=ModelStanding)
    """what was decided on it, where its folder, or the home that it lies in, tells"""


def find(path: Path) -> Released:
    """Return the model that lies in a folder. Raises ModelError, StorageError."""
    folder = _folder(path)
    if (folder / CELL_FILE).exists():
        return _of_cell(folder)
    if (folder / classifier_store.WEIGHTS).exists():
        return _with_standing(folder, _of_site_classifier(folder))
    if (folder / model_store.WEIGHTS).exists():
        return _with_standing(folder, _of_model(folder))
    raise ModelError(
        f"{path} holds no model",
        cause="it is not the folder of a cell, of a site's model or classifier, or of an exported run",
        next_step="name STUDY/cells/KEY, HOME/models/NAME, HOME/classifiers/NAME or an exported run",
    )


def _with_standing(folder: Path, model: Released) -> Released:
    """Return a model with what was decided on it: in its home, or beside it where a coordinator has exported it."""
    home = _home_of(folder)
    if home is None:
        exported = DecisionStore(folder / "decisions").read()
        return dataclasses.replace(model, standing=exported.standing(model.digest, site=None))
    known = shelf(home)
    here = next((one for one in known.models if one.digest == model.digest), None)
    return dataclasses.replace(model, standing=known.standing(here) if here else known.stands(model.digest))


def _folder(path: Path) -> Path:
    """Return the folder that a path means: a cell's key may be shortened."""
    if path.is_dir():
        return path
    found = sorted(path.parent.glob(f"{path.name}*")) if path.name and path.parent.is_dir() else []
    if len(found) > 1:
        raise ModelError(
            f"{path.name} is the beginning of the names of {len(found)} folders",
            cause="the key is too short",
            next_step=f"name one of {', '.join(folder.name for folder in found[:3])}",
        )
    return found[0] if found else path


# --- a cell of a study --------------------------------------------------------------------------------------------


def _of_cell(folder: Path) -> Released:
    study = folder.parent.parent
    record = records.read_cell(study, folder.name)
    results = (record.encoder or record.classifier) if record is not None else None
    if record is None or results is None:
        raise ModelError(f"{folder} is a site probe, which has no model", next_step="name another cell")
    if record.cell.start == FLOOR:
        raise ModelError(f"{folder} is the floor, which is no network", next_step="name another cell")
    weights = folder / MODEL_FILE
    if not weights.exists():
        raise ModelError(
            f"cell {folder.name} has no weights",
            cause="the study keeps the weights of chosen cells only, or they were moved",
            next_step="name a chosen cell (selection.json), or set the study to keep weights and run it again",
        )
    cell, data = record.cell, records.read_data(study)
    cells = records.read_cells(study)
    learnt_from = _sites(record, cells)
    return Released(
        kind="cervix model" if cell.kind == "encoder" else "classifier",
        start=title(cell.start),
        recipe=cell.recipe,
        seed=cell.seed,
        weights=weights,
        digest=results.model,
        sites=learnt_from,
        origin=_origin(record, study),
        rounds=_rounds(record),
        data=tuple(row for row in data.rows if row.site in learnt_from and row.fold in (None, cell.fold)),
        shared_pictures=_shared_pictures(data, learnt_from),
        threshold=record.classifier.threshold if record.classifier else None,
        judged=tuple(_judged(study, record, cells)),
        site_predictability=_predictability(record, cells),
        software=_made_with(record.provenance.versions),
    )


def _made_with(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {versions[package]}" for package in ("fedcervix", "torch") if package in versions)


def _sites(record: CellRecord, cells: Mapping[str, CellRecord]) -> tuple[str, ...]:
    """Return the sites of a cell and of what it begins from."""
    before = [site for key in record.cell.inputs if key in cells for site in cells[key].cell.sites]
    return tuple(dict.fromkeys([*before, *record.cell.sites]))


def _origin(record: CellRecord, study: Path) -> dict[str, object]:
    details = record.provenance.details
    outcome = record.encoder.outcome if record.encoder else ""
    found = {
        "study": records.read_study(study).name,
        "cell": record.key,
        "profile": record.cell.profile,
        "fold": record.cell.fold,
        "label_fraction": record.cell.label_fraction if record.classifier else None,
        "control": record.cell.control if record.cell.control != "none" else None,
        "begins_from": ", ".join(record.cell.inputs),
        "outcome": outcome,
        **{key: details[key] for key in ("run", "plan_digest", "best_round", "reason") if details.get(key)},
        "made": f"{record.provenance.begun_at} to {record.provenance.ended_at}",
    }
    return {key: value for key, value in found.items() if value not in (None, "")}


def _rounds(record: CellRecord) -> tuple[CurveRound, ...]:
    """Return the ledger of a federation as the cell has it."""
    if record.encoder is None or record.cell.epochs_per_round is None:
        return ()
    return tuple(CurveRound(turn.number, turn.valid_loss, turn.by_site) for turn in record.encoder.curve)


def _shared_pictures(data: StudyData, sites: Iterable[str]) -> dict[str, int]:
    return {site: sum(picture.site == site for picture in data.shared) for site in sites}


def _judged(study: Path, record: CellRecord, cells: Mapping[str, CellRecord]) -> Iterable[Judged]:
    """Yield the test of a classifier, or of the opened ones that begin from a cervix model with all labels."""
    opened = {found.key for found in records.read_selection(study).opened}
    own = [record] if record.classifier else [r for r in cells.values() if _began_from(r, record)]
    for found in own:
        plain = found.cell.control == "none" and found.cell.label_fraction == 1
        if found.classifier and found.key in opened and (plain or found is record):
            test = scored(records.read_predictions(study, found.key))
            yield Judged(
                found.cell.site,
                evaluate(
                    title(found.cell.start),
                    test.labels,
                    test.scores,
                    test.women,
                    threshold_validation=found.classifier.threshold,
                ),
            )


def _began_from(found: CellRecord, encoder: CellRecord) -> bool:
    """Say whether a cell began from these very weights: the encoder may have been trained again since."""
    weights = encoder.encoder.model if encoder.encoder else ""
    return encoder.key in found.cell.inputs and found.provenance.details.get("start_sha256") == weights


def _predictability(record: CellRecord, cells: Mapping[str, CellRecord]) -> float | None:
    probes = [r.site_probe for r in cells.values() if r.site_probe and record.key in r.cell.inputs]
    return sum(probe.balanced_accuracy for probe in probes) / len(probes) if probes else None


# --- models of a site, and exported runs --------------------------------------------------------------------------


def _of_site_classifier(folder: Path) -> Released:
    stored = classifier_store.read(folder)
    stored.check()
    provenance = stored.provenance
    return Released(
        kind="classifier",
        start=stored.start,
        recipe=stored.recipe,
        seed=stored.seed,
        weights=stored.weights,
        digest=provenance.weights,
        sites=provenance.start.sites,
        origin=_origin_of(provenance),
        provenance=provenance,
        threshold=stored.threshold,
        judged=tuple(_site_results(folder, lambda found: found.weights == provenance.weights)),
        software=stored.software,
        colour=stored.colour,
    )


def _origin_of(provenance: Provenance) -> dict[str, object]:
    """Return what a card says of a site's classifier: names and digests."""
    start = provenance.start
    found = {
        "run": start.run,
        "plan_digest": start.plan,
        "started_from": start.name,
        "weights_it_started_from": start.weights,
        "fine_tuned_by_recipe": recipe_digest(provenance.recipe),
        "splits": provenance.data.splits,
        "test_images": provenance.data.test_images,
        "made": provenance.made_at,
    }
    return {key: value for key, value in found.items() if value}


def _of_model(folder: Path) -> Released:
    """Read a site's cervix model, or a run that the coordinator exported."""
    home = _home_of(folder)
    kept = home and any(folder.resolve().is_relative_to(p.resolve()) for p in (home.models, home.folder / HISTORY))
    return _of_site_model(folder) if kept else _of_export(folder)


def _of_site_model(folder: Path) -> Released:
    model = model_store.read(folder)
    model.check()
    keys = ("run", "plan_digest", "mode", "round", "best_epoch", "collections", "made_at")
    ended = _ended(folder, model)
    return Released(
        kind="cervix model",
        start=model.start,
        recipe=model.recipe,
        seed=model.seed,
        weights=model.weights,
        digest=model.digest,
        sites=model.as_start.sites,
        origin={key: found for key in keys if (found := getattr(model, key)) not in (None, "")} | ended.origin,
        rounds=ended.rounds,
        judged=tuple(_site_results(folder, lambda found: found.start.weights == model.digest)),
        software=model.software,
    )


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the coordinator told a site of the run that made a model."""

    origin: dict[str, object] = field(default_factory=dict)
    rounds: tuple[LedgerLine, ...] = ()


def _ended(folder: Path, model: CervixModel) -> _Ended:
    """Return how the run of a model ended, where this home still has the record of that very plan."""
    home = _home_of(folder)
    with contextlib.suppress(FedcervixError, OSError, ValueError):
        run = federation_of(home, model.run) if home and model.run else None
        if run and run.plan.digest == model.plan_digest:
            return _Ended({"outcome": run.run_store.outcome()}, run.run_store.ledger())
    return _Ended()


def _of_export(folder: Path) -> Released:
    try:
        record = stored_record((folder / model_store.RECORD).read_bytes())
        plan, digest = record.agreed, record.model or ""
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} holds no record of its model ({error})",
            cause="not a model's folder, or written by another version",
            next_step="coordinator export RUN FOLDER, or site-agent pretrain",
        ) from error
    keys = ("run", "plan_digest", "best_round", "outcome", "reason")
    return Released(
        kind="cervix model",
        start=title_of(plan.mode, plan.sites),
        recipe=plan.recipe,
        seed=plan.terms.seed,
        weights=folder / model_store.WEIGHTS,
        digest=digest,
        sites=plan.sites,
        origin={key: value for key in keys if (value := getattr(record, key))},
        rounds=record.ledger,
        software=record.software,
    )


def _home_of(folder: Path) -> SiteHome | None:
    """Return the home that a model lies in: in models/, classifiers/ or the history."""
    found = (above for above in folder.resolve().parents if SiteHome(above).config_file.exists())
    return next(map(SiteHome, found), None)


def _site_results(folder: Path, belongs: Callable[[Provenance], bool]) -> Iterable[Judged]:
    """Yield the newest test of every classifier whose provenance `belongs`; one for each classifier's weights.

    A report that cannot be read, or does not say what its numbers belong to, counts for nothing.
    """
    from site_agent.report.results import read  # with what draws figures

    home, told = _home_of(folder), set[str]()
    for place in reversed(all_reports(home.reports) if home else []):
        with contextlib.suppress(FedcervixError):
            found = read(place)
            scores = {evaluation.name: evaluation for evaluation in found.evaluations}
            for one in found.provenance:
                if belongs(one) and one.weights not in told and one.label in scores:
                    told.add(one.weights)
                    yield Judged(found.site, scores[one.label])
