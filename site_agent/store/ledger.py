"""A run's record, which the coordinator sends when a site leaves: read strictly.

A record is written by a machine that this site does not trust. Each value has a type and a range; run and plan are this
site's, sites are those of the plan, and rounds are in order. A key that this version does not know is ignored, also
where the text is saved: a later coordinator may write more. What it says must be what the signed ledger of the run says
(`differences`).
"""

from __future__ import annotations

from fedcervix.core.plan import Plan, canonical_json, check
from fedcervix.core.rounds.state import Round, Run
from fedcervix.runtime.record import LedgerLine, RecordedRun
from fedcervix.runtime.typed_json import from_text
from fedcervix.transport.codec import RECORD_CHARS_MAX
from fedcervix.trust.ledger_run import result_of

Facts = tuple[object, ...]
"""of a round: models, contributions, scores, missing sites"""


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


def differences(record: RecordedRun, run: Run, *, ended: bool) -> list[str]:
    """Return in what a record says something else than the events of the signed ledger, which lead to `run`.

    `ended`: these events reach to the end of the run. Else the round in progress is not compared, nor the result.
    """
    rounds = run.rounds if ended else run.rounds[:-1]
    found = [
        f"round {round_.number}"
        for round_, line in zip(rounds, record.ledger, strict=False)
        if _of_events(round_) != _of_line(line)
    ]
    if len(record.ledger) < len(rounds):
        found.append(f"round {len(record.ledger) + 1}, which is missing")
    said = (record.outcome and record.outcome.value, record.best_round, record.model or "")
    happened = (run.outcome and run.outcome.value, run.best_round, result_of(run))
    return [*found, *(["the result"] if ended and record.outcome is not None and said != happened else [])]


def _of_events(round_: Round) -> Facts:
    """Return what a round came to."""
    return (
        (round_.base, round_.candidate),
        frozenset((one.site, one.digest, one.images, one.steps) for one in round_.contributions),
        frozenset((one.site, one.count) for one in round_.scores),
        frozenset(one.site for one in round_.missing),
    )


def _of_line(line: LedgerLine) -> Facts:
    """Return the same of a record."""
    return (
        (line.base, line.model),
        frozenset((one.site, one.digest, one.images, one.steps) for one in line.contributions),
        frozenset((one.site, one.count) for one in line.scores),
        frozenset(one.site for one in line.missing),
    )
