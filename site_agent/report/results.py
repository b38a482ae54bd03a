"""results.json: the report's numbers, for programs. It holds no image, no file name and no patient identifier.

Images that were set aside are counted there, and named only on the page: the numbers may be compared with those of
other hospitals, but the page may not leave.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcervix.core.plan import check, recipe_to_dict
from fedcervix.errors import DataError
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json
from site_agent.classifier.evaluate import Comparison, Evaluation
from site_agent.classifier.intervals import LEVEL
from site_agent.classifier.notices import NOT_CALIBRATED, RESEARCH_ONLY
from site_agent.report.answer import answer
from site_agent.report.clinical import Clinical
from site_agent.report.content import SetAside, SiteReport
from site_agent.store.provenance import Provenance
from site_agent.store.report_store import RESULTS_FILE

FORMAT = "fedcervix site results 2"


@dataclass(frozen=True, slots=True)
class Results:
    """What a results file says, as far as it is read again."""

    evaluations: tuple[Evaluation, ...]
    by_woman: tuple[Evaluation, ...]
    comparisons: tuple[Comparison, ...]
    provenance: tuple[Provenance, ...]
    """what the numbers of each evaluation are based on"""
    site: str
    run: str
    """empty where the site took part in none"""
    final_state: str
    """of the run"""
    when: str
    answer: str
    """helped, not shown, harmed or unknown"""


def to_json(report: SiteReport) -> dict[str, object]:
    """Return every number of the report as values JSON can hold: a number that is not finite is null."""
    found = answer(report)
    plain = ("site", "federation", "run", "mode", "plan_digest", "when", "final_state", "federated", "collapse_line")
    everything = {
        "format": FORMAT,
        "notice": RESEARCH_ONLY,
        "calibrated": False,
        "calibration": NOT_CALIBRATED,
        **{name: getattr(report, name) for name in plain},
        "answer": found.tone,
        "headline": found.headline,
        "missed": list(found.missed),
        "differences": list(report.differences),
        "reservations": list(report.reservations),
        "provenance": [one.to_json() for one in report.provenance],
        "interval_level": LEVEL,
        "versions": dict(report.versions),
        "recipe": recipe_to_dict(report.recipe),
        "census": [dataclasses.asdict(row) for row in report.census],
        "set_aside": _counts(report.set_aside),
        "evaluations": [one.to_json() for one in report.evaluations],
        "by_woman": [one.to_json() for one in report.by_woman],
        "floor": [one.to_json() for one in report.floor],
        "clinical": _clinical(report.clinical) if report.clinical else None,
        "comparisons": [_comparison(report, one) for one in report.comparisons],
        "contrastive_history": [dataclasses.asdict(losses) for losses in report.contrastive_history],
        "neighbour_history": [dataclasses.asdict(neighbours) for neighbours in report.neighbour_history],
        "classifier_history": [dataclasses.asdict(losses) for losses in report.classifier_history],
        "rounds": [dataclasses.asdict(turn) for turn in report.rounds],
        "alarms": list(report.alarms),
        "unread_sections": len(report.unread),
    }
    return {key: _finite(value) for key, value in everything.items()}


def _finite(value: Any) -> Any:
    """Return the value with null for every number that JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(own) for key, own in value.items()}
    return [_finite(own) for own in value] if isinstance(value, (list, tuple)) else value


def _comparison(report: SiteReport, found: Comparison) -> dict[str, object]:
    """Return a comparison with what the report concludes from it, which readers take and `parse` passes over."""
    verdict, why = report.conclusion(found)
    return {**dataclasses.asdict(found), "verdict": verdict, "why": why}


def _clinical(found: Clinical) -> dict[str, object]:
    """Return the numbers of the clinical page: no group of too few women, and no score of a woman."""
    columns = [
        {**dataclasses.asdict(column), "groups": [dataclasses.asdict(one) for one in column.groups if one.auc]}
        for column in found.columns
    ]
    calibrated = [dataclasses.asdict(one) for one in found.calibrated if one.found]
    repeats = {"agreement": found.repeats.agreement and dataclasses.asdict(found.repeats.agreement)}
    return {**dataclasses.asdict(found), "columns": columns, "calibrated": calibrated, "repeats": repeats}


def _counts(aside: SetAside) -> dict[str, int]:
    return {
        "quarantined_images": len(aside.quarantined),
        "duplicate_images": aside.duplicates,
        "shared_pictures": len(aside.shared_pictures),
        "conflicting_pictures": sum(shared.conflicting for shared in aside.shared_pictures),
    }


def dump(report: SiteReport) -> str:
    """Return the text of results.json."""
    return json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"


def parse(text: str) -> Results:
    """Read the text of a results.json. Raises DataError unless it is one."""
    try:
        raw = parsed(text)
        check(isinstance(raw, dict) and raw.get("format") == FORMAT, f"its format is not {FORMAT!r}")
        evaluations, by_woman = (
            from_json(tuple[Evaluation, ...], raw[key], extra="ignore") for key in ("evaluations", "by_woman")
        )
        comparisons = from_json(tuple[Comparison, ...], raw["comparisons"], extra="ignore")
        provenance = tuple(map(Provenance.from_json, raw["provenance"]))
        words = {name: str(raw[name]) for name in ("site", "run", "final_state", "when", "answer")}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a results file of a site report: {error!r}",
            cause="another file, another version of this software, or a file changed by hand",
            next_step="write the report again: site-agent evaluate",
        ) from error
    return Results(evaluations, by_woman, comparisons, provenance, **words)


def read(folder: Path) -> Results:
    """Return what the results.json of a report's folder says. Raises DataError, which names the file."""
    file = folder / RESULTS_FILE
    try:
        return parse(file.read_text("utf-8"))
    except (OSError, ValueError, DataError) as error:
        raise DataError(
            f"{file} cannot be read: {getattr(error, 'what', error)!s:.200}",
            cause="it was damaged, edited by hand, or written by another version",
            next_step="site-agent evaluate; it writes a new report and keeps this one",
        ) from error
