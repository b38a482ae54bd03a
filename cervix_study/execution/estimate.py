"""Estimates the time.

The size of a cell is the number of images that pass through the network; finished cells give the speed.

Sizes are upper bounds: patience may end a training earlier. Before the first cell, paces are timed on noise (`timing`).
Times are those of one place to work (`machine.workers`); a federation takes one for every site.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cervix_study.data.preparation import Ground
from cervix_study.execution.tasks import make
from cervix_study.records import Cell, CellRecord

FORWARD_SHARE = 1 / 3
"""of a training pass: what scoring an image costs"""
PROBE_EPOCHS = 1
"""of training, that take as long as a probe: it scores training images once, and validation images twice"""
FEDERATION_S = 15.0
"""how long the processes of a federation take to start and to enrol, on a slow core"""


def size(cell: Cell, ground: Ground) -> float:
    """Return how many passes of one image a cell takes at most; a federation's are those of all sites."""
    lots = {site: ground.lots[site, cell.fold] for site in cell.sites}
    if cell.kind == "site-probe":
        return FORWARD_SHARE * sum(lot.train + lot.valid for lot in lots.values())
    if cell.kind == "classifier":
        [lot] = lots.values()
        per_epoch = cell.label_fraction * lot.labelled_train + FORWARD_SHARE * lot.labelled_valid
        terms = cell.recipe.classifier
        return terms.trainings * (PROBE_EPOCHS if terms.method == "probe" else terms.epochs_max) * per_epoch
    per_round = cell.terms.epochs_per_round if cell.terms else 1
    epochs = per_round * cell.terms.rounds_max(cell.recipe) if cell.terms else cell.recipe.epochs_max
    scored = sum(lot.valid for lot in lots.values()) / per_round
    return 2 * epochs * (sum(lot.train for lot in lots.values()) + FORWARD_SHARE * scored)


def kind_of(cell: Cell) -> str:
    """Return what cells a pace is good for: those of one kind, network and size of image."""
    return f"{cell.kind} {cell.recipe.architecture} {cell.recipe.image_px}"


def paces(finished: Iterable[CellRecord], ground: Ground, workers: int) -> dict[str, float]:
    """Return seconds per pass, by kind."""
    seconds: dict[str, float] = {}
    passes: dict[str, float] = {}
    for record in finished:
        kind, places = kind_of(record.cell), min(make(record.cell).processes, workers)
        spent = max(0.0, record.costs.seconds - (FEDERATION_S if record.cell.terms else 0.0))
        seconds[kind] = seconds.get(kind, 0.0) + spent * places
        passes[kind] = passes.get(kind, 0.0) + size(record.cell, ground)
    return {kind: seconds[kind] / passes[kind] for kind in seconds if passes[kind]}


def seconds_left(waiting: Iterable[Cell], paces: Mapping[str, float], ground: Ground, workers: int) -> float | None:
    """Return how long the cells will take; None where nothing is known of a kind that takes long."""
    total = 0.0
    for cell in waiting:
        pace = paces.get(kind_of(cell), 0.0 if cell.kind == "site-probe" else None)
        if pace is None:
            return None
        started = FEDERATION_S * make(cell).processes if cell.terms else 0.0
        total += pace * size(cell, ground) + started
    return total / workers


def duration(seconds: float) -> str:
    """Return a duration as a person says it."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"
