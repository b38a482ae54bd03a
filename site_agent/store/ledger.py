"""A run's record, which the coordinator sends when a site leaves: read strictly.

A record is written by a machine that this site does not trust. Each value has a type and a range; run and plan are this
site's, sites are those of the plan, and rounds are in order. A key that this version does not know is ignored, also
where the text is saved: a later coordinator may write more.
"""

from __future__ import annotations

from fedcervix.core.plan import Plan, canonical_json, check
from fedcervix.runtime.record import LedgerLine, RecordedRun
from fedcervix.runtime.typed_json import from_text
from fedcervix.transport.codec import RECORD_CHARS_MAX


def read(text: str | bytes, plan: Plan, run: str) -> RecordedRun:
    """Return the record. Raises ValueError where it is none of this run; what the coordinator wrote is not quoted."""
    if len(text) > 4 * RECORD_CHARS_MAX:
        raise ValueError(f"it is longer than {RECORD_CHARS_MAX} characters")
    record = from_text(RecordedRun, text)
    _check_result(record, plan, run)
    for number, line in enumerate(record.ledger, 1):
        _check(line, number, plan)
    return record


def _check_result(record: RecordedRun, plan: Plan, run: str) -> None:
    check(record.run in ("", run), "it is the record of another run")
    same = record.plan is None or canonical_json(record.plan) == plan.canonical()
    check(same and record.plan_digest in ("", plan.digest), "it is the record of another plan")
    check(len(set(record.adopted)) == len(record.adopted), "adopted names a site twice")
    check(set(record.adopted) <= set(plan.sites), "adopted names a site that is not in the plan")
    check({one.site for one in record.sites} <= set(plan.sites), "sites names one that is not in the plan")
    check(record.best_round <= len(record.ledger), "best_round is none of the rounds")
    best = record.ledger[record.best_round - 1].model if record.best_round else ""
    check((record.model or "") == best, "model is not the one of best_round")


def _check(line: LedgerLine, number: int, plan: Plan) -> None:
    if line.round != number or number > plan.rounds_max:
        raise ValueError(f"round {line.round} stands in line {number}; the plan has at most {plan.rounds_max} rounds")
    named = [part.site for part in line.contributions] + [part.site for part in line.missing]
    if len(set(named)) != len(named):
        raise ValueError(f"round {number} names a site twice")
    others = [
        *(one.site for one in line.alarms),
        *(one.site for one in line.dropped),
        *(one.site for one in line.scores),
    ]
    if not {*named, *others, *line.unusable} <= set(plan.sites):
        raise ValueError(f"round {number} names a site that is not in the plan")
