"""From a finished study to its findings: every number of the report is computed here, from test images opened once.

Rules
1. Rows that were trained with fewer seeds (fractions, controls) are compared with the same seeds of the full row.
2. The same folder gives the same findings, bit for bit.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy

from cervix_study.analysis.accounting import alike, cell_line, costs, leakage, machines
from cervix_study.analysis.by_woman import by_woman, chance_of
from cervix_study.analysis.comparing import TABLE, TESTED, Effect, HypothesisTest, aligned, compare, corrected, effect
from cervix_study.analysis.findings import (
    HOW,
    Chosen,
    Controlled,
    Curve,
    FractionPoint,
    LeftOut,
    Probe,
    Scores,
    Shuffled,
    SideBySide,
    SiteFindings,
    StudyFindings,
)
from cervix_study.analysis.hypotheses import FEDERATED, asked, starts_of
from cervix_study.analysis.result_rows import Finished, ResultRow, SiteRows, Variant, benches, labels, variant_of
from cervix_study.analysis.sequence import in_sequence
from cervix_study.evidence.calibration import calibration
from cervix_study.evidence.paper import TABLE_TWO, printed_tests
from cervix_study.evidence.spread import Spread, spread
from cervix_study.records import CellRecord, Control, CurvePoint
from fedcervix import __version__
from fedcervix.errors import DataError
from site_agent.classifier.by_woman import Measured, Roster, Trials, measure, roster
from site_agent.classifier.intervals import AREA, SHARE, Floats, Scale
from site_agent.metrics import roc
from site_agent.starts import title

OK = "OK"


def judge(finished: Finished, *, paper_audit: bool = False) -> StudyFindings:
    """Return a study's findings, and on request what the paper's printed numbers can carry.

    Raises DataError where its cells do not fit together.
    """
    tables = benches(finished)
    sizes = collections.Counter((bench.profile, q.kind) for bench in tables for q, _, _ in asked(bench))
    judged = [_judge_bench(finished, bench, sizes[bench.profile, "better"]) for bench in tables]
    comparisons = [found for _, found in judged]
    families = [[c for own in comparisons for c in own if c.profile == p] for p in finished.study.axes.profiles]
    return StudyFindings(
        study=finished.study,
        census=finished.data.rows,
        quarantine=finished.data.quarantine,
        leakage=leakage(finished.data),
        alike=alike(finished.data),
        sites=tuple(site for site, _ in judged),
        comparisons=tuple(found for family in families for found in corrected(family)),
        sequence=tuple(in_sequence(finished.study.registered, tables, finished.study.axes)),
        side_by_side=tuple(_side_by_side(tables)),
        seen_before=len(finished.selection.opened_before),
        probes={profile: _probes(finished, profile) for profile in finished.study.axes.profiles},
        printed=printed_tests() if paper_audit else (),
        costs=tuple(costs(finished)),
        cells=tuple(cell_line(finished, record) for record in finished.cells.values()),
        missing=len(finished.study.cells) - len(finished.cells),
        degraded=sum(r.encoder is not None and r.encoder.outcome != OK for r in finished.cells.values()),
        machines=machines(finished),
        versions={"fedcervix": __version__, "numpy": np.__version__, "scipy": scipy.__version__},
    )


# --- one profile at one site --------------------------------------------------------------------------------------


def _judge_bench(
    finished: Finished, bench: SiteRows, comparisons_in_all: int
) -> tuple[SiteFindings, tuple[HypothesisTest, ...]]:
    rows = bench.rows
    trials = [row.trials for row in rows]
    women = roster(trials)
    measured = {row.label: measure(row.trials, women) for row in rows}
    tested = women.tested
    comparisons = tuple(
        compare(bench, question, first, second, measured, women, comparisons_in_all)
        for question, first, second in asked(bench)
    )
    images, cases = _images_tested(trials[0]) if trials else (0, 0)
    found = SiteFindings(
        profile=bench.profile,
        site=bench.site,
        women=tested.case + tested.control,
        case_women=tested.case,
        images=images,
        cases=cases,
        undecided=tested.undecided,
        scores=tuple(_scores(finished, row, measured[row.label], women) for row in rows),
        unfinished=bench.unfinished,
        choices=_choices(finished, bench),
        encoder_curves=tuple(_encoder_curves(finished, bench)),
        classifier_curves=tuple(_classifier_curves(bench)),
        fractions=tuple(_fractions(bench)),
        shuffled=tuple(_shuffled(bench)),
        equal_updates=tuple(_equal_updates(finished, bench)),
        one_site_batches=tuple(_one_site_batches(finished, bench)),
        left_out=tuple(_left_out(finished, rows)),
    )
    return found, comparisons


def _left_out(finished: Finished, rows: Sequence[ResultRow]) -> Iterable[LeftOut]:
    """Yield every start on every device that was left out."""
    for fold, device in enumerate(finished.study.axes.leave_out_devices):
        own = {row.label: {part: s for part, s in row.trials.items() if part.fold == fold} for row in rows}
        women = roster(own.values())
        for label, trials in own.items():
            auc = measure(trials, women)["auc"].estimate(women, AREA)
            yield LeftOut(device, label, women.tested.case + women.tested.control, women.tested.case, auc)


def _images_tested(trials: Trials) -> tuple[int, int]:
    """Return (images, images of cases) of one repetition."""
    first = min(trials)
    own = [scored for part, scored in trials.items() if part[:2] == first[:2]]
    return sum(len(s.labels) for s in own), sum(int(s.labels.sum()) for s in own)


SCALES: Mapping[str, Scale] = {name: AREA if name == "auc" else SHARE for name in TABLE}
"""measure of the study's tables -> its scale"""


def _scores(finished: Finished, row: ResultRow, measured: Mapping[str, Measured], women: Roster) -> Scores:
    at_validation = row.at_validation_thresholds()
    found = measure(at_validation, women)
    thresholds = [scored.threshold for scored in at_validation.values()]
    scattered, over = _spread(row)
    return Scores(
        label=row.label,
        start=row.start,
        chosen=row.chosen,
        trainings=len(row.trials),
        measures={name: measured[name].estimate(women, scale) for name, scale in SCALES.items()},
        at_validation={name: found[name].estimate(women, scale) for name, scale in SCALES.items()},
        thresholds=(min(thresholds), max(thresholds)),
        spread=scattered,
        spread_over=over,
        calibration=calibration(row.trials, women),
        roc=mean_roc(row.trials),
        paper_row=_paper_row(row),
        chance=chance_of(row.trials),
        by_woman=by_woman(row, finished.predictions) if row.chosen else None,
    )


def _spread(row: ResultRow) -> tuple[dict[str, Spread], str]:
    """Return how single trainings scatter: over seeds; with one seed, over folds."""
    seeds = sorted({part.seed for part in row.trials})
    folds = sorted({part.fold for part in row.trials})
    if len(seeds) > 1 or len(folds) == 1:
        own = [_alone({part: s for part, s in row.trials.items() if part.seed == seed}) for seed in seeds]
        return _spreads(own), "seeds" if len(seeds) > 1 else "nothing"
    own = [_alone({part: s for part, s in row.trials.items() if part.fold == fold}) for fold in folds]
    return _spreads(own), "folds"


def _spreads(trainings: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    return {name: spread([values[name] for values in trainings]) for name in TESTED}


def _alone(trials: Trials) -> dict[str, float]:
    """Return the measures of some trainings."""
    return {name: found.value for name, found in measure(trials, roster([trials])).items()}


def _paper_row(row: ResultRow) -> str:
    """Return the row of Table II with this start, N and E; width 64 or not named."""
    v = row.variant
    if v is None or v.width not in (None, 64):
        return ""
    name = title(v.start)
    if v.start in ("ssl", "cssl"):
        name = f"{name} N={v.batch_images}"
    elif v.batch_images not in (None, 8) or v.epochs_per_round not in (None, 1):
        return ""
    return name if name in TABLE_TWO else ""


def mean_roc(trials: Trials) -> tuple[tuple[float, float], ...]:
    """Return the mean recall of all trainings at every false positive rate that any of them has (Fawcett 2006, 8.1).

    Where a curve rises upright, both ends of the rise count: the area below the mean is the mean of the areas.
    """
    curves = [roc(scored.labels, scored.scores)[:2] for scored in trials.values()]
    rates = np.unique(np.concatenate([false_rate for false_rate, _ in curves]))
    ends = np.mean([_recall_at(rates, *curve) for curve in curves], axis=0)
    return tuple(dict.fromkeys(zip(np.repeat(rates, 2).tolist(), ends.ravel().tolist(), strict=True)))


def _recall_at(rates: Floats, false_rate: Floats, true_rate: Floats) -> Floats:
    """Return both ends (rates, 2) of a curve's rise at false positive rates: alike where it does not rise upright."""
    own = np.unique(false_rate)
    lower = true_rate[np.searchsorted(false_rate, own, side="left")]
    upper = true_rate[np.searchsorted(false_rate, own, side="right") - 1]
    after = np.searchsorted(own, rates)
    before = np.maximum(after - 1, 0)
    way = np.divide(rates - own[before], own[after] - own[before], out=np.zeros_like(rates), where=after > 0)
    between = upper[before] + way * (lower[after] - upper[before])
    met = own[after] == rates
    return np.stack([np.where(met, lower[after], between), np.where(met, upper[after], between)], axis=1)


# --- choices and curves -------------------------------------------------------------------------------------------


def _choices(finished: Finished, bench: SiteRows) -> tuple[Chosen, ...]:
    found = []
    for choice in finished.selection.choices:
        if (choice.profile, choice.site) != (bench.profile, bench.site):
            continue
        candidate = choice.candidates[choice.chosen]
        others = [c.validation_loss for place, c in enumerate(choice.candidates) if place != choice.chosen]
        losses = [loss for loss in others if loss is not None]
        found.append(
            Chosen(
                start=choice.start,
                fold=choice.fold,
                batch_images=candidate.batch_images,
                epochs_per_round=candidate.epochs_per_round,
                width=candidate.width,
                candidates=len(choice.candidates),
                validation_loss=candidate.validation_loss,
                next_best_loss=min(losses) if losses else None,
                validation_auc=candidate.validation_auc,
            )
        )
    return tuple(found)


def _encoder_curves(finished: Finished, bench: SiteRows) -> Iterable[Curve]:
    """Yield the losses of the chosen rows' encoders; an encoder that several classifiers start from comes once."""
    seen: set[str] = set()
    for row in bench.rows:
        for record in row.cells.values() if row.chosen else ():
            for encoder in _encoders(finished, record):
                if encoder.key not in seen and encoder.encoder and encoder.encoder.curve:
                    seen.add(encoder.key)
                    yield _encoder_curve(title(row.start), encoder)


def _encoders(finished: Finished, record: CellRecord) -> list[CellRecord]:
    """Return the encoders that a classifier starts from: one, or none."""
    inputs = [finished.cells[key] for key in record.cell.inputs if key in finished.cells]
    return [found for found in inputs if found.encoder is not None]


def _encoder_curve(name: str, record: CellRecord) -> Curve:
    """Scale losses by log(2N - 1), what a collapsed model has; count rounds of a federation in epochs."""
    assert record.encoder is not None
    collapsed = math.log(2 * (record.cell.batch_images or 1) - 1) or 1.0
    epochs = record.cell.epochs_per_round or 1
    best = record.encoder.best
    return _curve(name, record.encoder.curve, epochs, collapsed, best)


def _classifier_curves(bench: SiteRows) -> Iterable[Curve]:
    for row in bench.rows:
        for record in row.cells.values() if row.chosen else ():
            if record.classifier is not None:
                yield _curve(title(row.start), record.classifier.curve, 1, 1.0, record.classifier.best)


def _curve(name: str, turns: Sequence[CurvePoint], epochs: int, unit: float, best: int | None) -> Curve:
    return Curve(
        name=name,
        train=tuple((t.number * float(epochs), t.train_loss / unit) for t in turns if t.train_loss is not None),
        valid=tuple((t.number * float(epochs), t.valid_loss / unit) for t in turns if t.valid_loss is not None),
        kept=None if best is None else float(best * epochs),
    )


# --- fewer labels and controls ------------------------------------------------------------------------------------


def _together(rows: Sequence[Trials]) -> list[tuple[dict[str, Measured], Roster]]:
    """Return some rows on the same women, over the trainings that all of them have (rule 1); none without any."""
    parts = set.intersection(*(set(trials) for trials in rows))
    kept = [{part: scored for part, scored in trials.items() if part in parts} for trials in rows]
    if not parts:
        return []
    women = roster(kept)
    return [(measure(trials, women), women) for trials in kept]


def _fractions(bench: SiteRows) -> Iterable[FractionPoint]:
    """Yield each start's points, fewest labels first; all of them over the same trainings."""
    fewer = [found for found in bench.followers if found.control == "none"]
    for start in dict.fromkeys(found.start for found in fewer):
        rows = [(found.label_fraction, found.row) for found in fewer if found.start == start]
        full = bench.chosen(start)
        rows = sorted([*rows, *([(1.0, full)] if full else [])], key=lambda pair: pair[0])
        together = _together([row.trials for _, row in rows])
        for (fraction, row), (measured, women) in zip(rows, together, strict=False):
            trained = [record.classifier.train_women for record in row.cells.values() if record.classifier]
            yield FractionPoint(
                start=start,
                label=title(start),
                label_fraction=fraction,
                train_women=float(np.mean(trained)),
                auc=measured["auc"].estimate(women, AREA),
                accuracy=measured["accuracy"].estimate(women, SHARE),
            )


def _shuffled(bench: SiteRows) -> Iterable[Shuffled]:
    for found in bench.followers:
        if found.control == "shuffled-labels":
            ((measured, women),) = _together([found.row.trials])
            yield Shuffled(found.row.label, measured["auc"].estimate(women, AREA))


def _equal_updates(finished: Finished, bench: SiteRows) -> Iterable[Controlled]:
    """Yield the start that was held to SSL's number of updates: beside SSL, and beside itself without the hold."""
    for found in bench.followers:
        if found.control == "equal-updates":
            for other in (found.rival, bench.chosen(found.start)):
                if other is not None:
                    yield from _controlled(finished, found.row, other)


def _one_site_batches(finished: Finished, bench: SiteRows) -> Iterable[Controlled]:
    """Yield pooled training in mini-batches of one site each: beside the mixed one, random weights, federations."""
    for found in bench.followers:
        if found.control == "one-site-batches":
            for start in (found.start, "random", *starts_of(bench, FEDERATED)):
                other = bench.chosen(start)
                if other is not None:
                    yield from _controlled(finished, found.row, other)


def _controlled(finished: Finished, row: ResultRow, other: ResultRow) -> Iterable[Controlled]:
    together = _together([row.trials, other.trials])
    if together:
        yield Controlled(
            label=row.label,
            updates=_updates(finished, row),
            versus=other.label,
            versus_updates=_updates(finished, other),
            itself=other.start == row.start,
            effects=_effects(together),
        )


def _updates(finished: Finished, row: ResultRow) -> float:
    """Return the updates of a row's encoders, mean over trainings; 0 where nothing was trained."""
    encoders = [encoder for record in row.cells.values() for encoder in _encoders(finished, record)]
    counts = [found.encoder.updates for found in encoders if found.encoder]
    return float(np.mean(counts)) if counts else 0.0


def _side_by_side(tables: Sequence[SiteRows]) -> Iterable[SideBySide]:
    """Yield what each start gains from the second profile, wherever both were trained and tested on the same images."""
    for first, second in itertools.combinations(tables, 2):
        if first.site != second.site:
            continue
        for start in dict.fromkeys(row.start for row in first.rows):
            one, two = first.chosen(start), second.chosen(start)
            if one and two and _same_images(one, two):
                found = _effects(_together([two.trials, one.trials]))
                yield SideBySide(first.site, title(start), first.profile, second.profile, found)


def _effects(together: Sequence[tuple[Mapping[str, Measured], Roster]]) -> dict[str, Effect]:
    """Return what the first of two rows does better than the second."""
    (first, women), (second, _) = together
    return {name: effect(first[name], second[name], "better", women) for name in TESTED}


def _same_images(first: ResultRow, second: ResultRow) -> bool:
    try:
        aligned(first.trials, second.trials)
    except DataError:
        return False
    return True


def _probes(finished: Finished, profile: str) -> tuple[Probe, ...]:
    groups: dict[tuple[Variant, Control], list[CellRecord]] = {}
    for record in finished.cells.values():
        cell = record.cell
        if cell.kind == "site-probe" and cell.profile == profile:
            groups.setdefault((variant_of(cell), cell.control), []).append(record)
    names = labels({variant for variant, _ in groups})
    return tuple(_probe(_named(names[variant], control), found) for (variant, control), found in groups.items())


def _named(label: str, control: Control) -> str:
    return label if control == "none" else f"{label}, {HOW[control][0]}"


def _probe(label: str, found: Sequence[CellRecord]) -> Probe:
    values = [record.site_probe.balanced_accuracy for record in found if record.site_probe]
    chances = [record.site_probe.chance for record in found if record.site_probe]
    return Probe(label, float(np.mean(values)), min(values), max(values), float(np.mean(chances)), len(values))
