"""results.json: the report's numbers, for programs. It holds no image, no file name and no patient identifier.

What was set aside is therefore counted there and named on the page only: numbers may be laid beside those of other
hospitals, the page may not.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from fedcervix.errors import DataError
from site_agent.evaluate import LEVEL, Comparison, Evaluation
from site_agent.provenance import Provenance
from site_agent.report.answer import answer
from site_agent.report.content import SetAside, SiteReport

FORMAT = "fedcervix site results 1"


@dataclass(frozen=True, slots=True)
class Results:
    """What a results file says: the scores as values, everything as plain JSON."""

    evaluations: tuple[Evaluation, ...]
    comparisons: tuple[Comparison, ...]
    provenance: tuple[Provenance, ...]
    """to what the numbers of each evaluation belong"""
    everything: dict[str, Any]


def to_json(report: SiteReport) -> dict[str, Any]:
    """Return every number of the report as values JSON can hold."""
    plain = ("site", "federation", "run", "mode", "plan_digest", "when", "final_state", "federated", "collapse_line")
    return {
        "format": FORMAT,
        **{name: getattr(report, name) for name in plain},
        "answer": answer(report).tone,
        "interval_level": LEVEL,
        "versions": dict(report.versions),
        "recipe": dataclasses.asdict(report.recipe),
        "census": [dataclasses.asdict(row) for row in report.census],
        "set_aside": _counts(report.set_aside),
        "provenance": [found.to_json() for found in report.provenance],
        "evaluations": [found.to_json() for found in report.evaluations],
        "comparisons": [found.to_json() for found in report.comparisons],
        "contrastive_history": [dataclasses.asdict(losses) for losses in report.contrastive_history],
        "neighbour_history": [dataclasses.asdict(neighbours) for neighbours in report.neighbour_history],
        "classifier_history": [dataclasses.asdict(losses) for losses in report.classifier_history],
        "rounds": [dataclasses.asdict(turn) for turn in report.rounds],
        "alarms": list(report.alarms),
    }


def _counts(aside: SetAside) -> dict[str, int]:
    return {
        "quarantined_images": len(aside.quarantined),
        "duplicate_images": aside.duplicates,
        "shared_pictures": len(aside.leaks),
        "conflicting_pictures": sum(leak.conflicting for leak in aside.leaks),
    }


def dump(report: SiteReport) -> str:
    """Return the text of results.json."""
    return json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"


def parse(text: str) -> Results:
    """Read the text of a results.json. Raises DataError unless it is one."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise _foreign(f"it is not JSON ({error})") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise _foreign(f"its format is not {FORMAT!r}")
    try:
        evaluations = tuple(map(Evaluation.from_json, raw["evaluations"]))
        comparisons = tuple(map(Comparison.from_json, raw["comparisons"]))
        provenance = tuple(map(Provenance.from_json, raw["provenance"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _foreign(f"{error!r}") from error
    return Results(evaluations, comparisons, provenance, raw)


def _foreign(why: str) -> DataError:
    return DataError(
        f"not a results file of a site report: {why}",
        cause="another file, another version of this software, or a file changed by hand",
        next_step="write the report again: site-agent evaluate",
    )
