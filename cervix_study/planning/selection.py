"""How validation chooses N, width and E, and which test parts may then be opened. Both rules are only here.

Section III-D: "We vary the network hyper-parameters for both SSL and classification model training and choose the best
hyper-parameters based on the validation loss."

Rules of choosing
1. For every profile, site, start and fold, the combination whose classifiers have the lowest validation loss, averaged
   over seeds (`site_agent.classifier.choosing`; `site_agent.classifier.sweep` says why contrastive losses do not
   choose). AUC on the same images is shown and chooses nothing.
2. A combination that could not be trained with every seed cannot be chosen.

Rule of opening: a classifier is scored on test images if, and only if, it
- was chosen, or
- has the combination that STUDY.toml named in advance ([named]), or
- follows a chosen one: a control, or a smaller share of the labels, or
- is the SSL classifier that the equal-updates control of a chosen CSSL classifier is compared with.
Nothing is chosen afterwards. A start is compared with another by opened cells alone.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping

from cervix_study.planning.grid import Combination, combination_of, counterpart
from cervix_study.records import Candidate, Cell, CellRecord, Choice, Opened
from cervix_study.settings import NamedSection
from fedcervix.core.grouped import grouped
from site_agent.classifier.choosing import preference

Group = tuple[str, str, str, int | None]
"""(profile, site, start, fold): within it one combination is chosen"""


def group_of(cell: Cell) -> Group:
    """Return what a classifier competes for."""
    return cell.profile, cell.site, cell.start, cell.fold


def competes(cell: Cell) -> bool:
    """Return whether a cell is one of those that validation chooses from."""
    return cell.kind == "classifier" and cell.control == "none" and cell.label_fraction == 1.0


def choose(cells: Iterable[Cell], finished: Mapping[str, CellRecord]) -> tuple[Choice, ...]:
    """Return the choice of every group that has a candidate, in the order of the cells."""
    groups = {
        group: grouped((combination_of(cell), cell) for cell in theirs)
        for group, theirs in grouped((group_of(cell), cell) for cell in cells if competes(cell)).items()
    }
    choices = (_choice(group, [_candidate(s, c, finished) for s, c in by.items()]) for group, by in groups.items())
    return tuple(choice for choice in choices if choice is not None)


def _candidate(setting: Combination, cells: list[Cell], finished: Mapping[str, CellRecord]) -> Candidate:
    records = [finished.get(cell.key) for cell in cells]
    results = [record.classifier for record in records if record and record.classifier]
    complete = len(results) == len(cells)
    return Candidate(
        batch_images=setting.batch_images,
        epochs_per_round=setting.epochs_per_round,
        width=setting.width,
        validation_loss=statistics.fmean(r.validation_loss for r in results) if complete else None,
        validation_auc=statistics.fmean(r.validation_auc for r in results) if complete else None,
        keys=tuple(cell.key for cell in cells),
    )


def _choice(group: Group, candidates: list[Candidate]) -> Choice | None:
    """Return the choice; None where no combination could be trained with every seed."""
    ranked = sorted(
        (preference(loss, width=c.width, batch_images=c.batch_images, epochs_per_round=c.epochs_per_round), place)
        for place, c in enumerate(candidates)
        if (loss := c.validation_loss) is not None
    )
    if not ranked:
        return None
    profile, site, start, fold = group
    return Choice(profile=profile, site=site, start=start, fold=fold, candidates=tuple(candidates), chosen=ranked[0][1])


def to_open(choices: Iterable[Choice], cells: Mapping[str, Cell], named: NamedSection | None) -> tuple[Opened, ...]:
    """Return the classifiers whose test part is opened, with the first reason that holds."""
    chosen = {key for choice in choices for key in choice.candidates[choice.chosen].keys}
    reasons: dict[str, Opened] = {}
    for key in chosen:
        reasons[key] = Opened(key=key, why="chosen")
    for key, cell in cells.items():
        if competes(cell) and named and _is_named(cell, named):
            reasons.setdefault(key, Opened(key=key, why="named in advance"))
        if cell.kind == "classifier" and not competes(cell):
            _follow(key, cell, cells, chosen, reasons)
    return tuple(reasons[key] for key in cells if key in reasons)


def _is_named(cell: Cell, named: NamedSection) -> bool:
    there = dataclasses.asdict(combination_of(cell))
    return all(value is None or value == getattr(named, name) for name, value in there.items())


def _follow(key: str, cell: Cell, cells: Mapping[str, Cell], chosen: set[str], reasons: dict[str, Opened]) -> None:
    """Open a follower of a chosen cell; and whom the equal-updates control is compared with."""
    leader = _leader(cell, cells, chosen)
    if leader is None:
        return  # of an earlier choice
    reasons[key] = Opened(key=key, why="label fraction" if cell.control == "none" else "control")
    if cell.control == "equal-updates":
        rival = counterpart(leader, cells.values()).key
        reasons.setdefault(rival, Opened(key=rival, why="counterpart of a control"))


def _leader(cell: Cell, cells: Mapping[str, Cell], chosen: set[str]) -> Cell | None:
    """Return the chosen cell that this one follows."""
    wanted = dataclasses.replace(cell, control="none", label_fraction=1.0, inputs=())
    leaders = (cells[key] for key in cells if key in chosen)
    return next((leader for leader in leaders if dataclasses.replace(leader, inputs=()) == wanted), None)
