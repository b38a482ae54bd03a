"""A run's record, which the coordinator sends when a site leaves, and the ledger in it: read strictly.

A record is written by a machine that this site does not trust. Each value has a type and a range; run and plan are this
site's, sites are those of the plan, and rounds are in order. Anything else is refused. A record of an earlier version
may lack keys. What a later one has added is passed over: no reader ever sees it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fedcervix.core.alarms import WHAT_CHARS_MAX, WORDS_CHARS_MAX
from fedcervix.core.events import DIGEST, GAUGES_MAX, REASON_CHARS_MAX, ROUND_MAX
from fedcervix.core.plan import SITES_MAX, Plan, canonical_json, check
from fedcervix.core.rounds.recording import SOFTWARE_MAX
from fedcervix.transport.codec import GAUGE_CHARS_MAX, RECORD_CHARS_MAX
from fedcervix.transport.versions import SOFTWARE

COUNT_MAX = 2**40
REASONS_MOST = REASON_CHARS_MAX + 100
"""characters: a reason with the word for how the site was away before it"""

Site = Annotated[str, StringConstraints(max_length=63)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
ALARMS_MAX = 16 * SITES_MAX
NOTES_MAX = 16 * SITES_MAX
Length = Annotated[float, Field(ge=0)]
Measure = Annotated[float, Field(ge=-1e30, le=1e30)]
Moment = Annotated[float, Field(ge=0, le=1e11)]
"""Unix seconds"""
Digest = Annotated[str, StringConstraints(pattern=rf"^{DIGEST.pattern}$")]
Words = Annotated[str, StringConstraints(max_length=100 * SITES_MAX)]
"""of the coordinator; they may name every site"""
Sites = Annotated[list[Site], Field(max_length=SITES_MAX)]
LEDGER = {"round", "loss", "contributions", "missing", "alarms"}
"""what is read of a line"""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")


class _Measured(_Strict):
    site: Site
    digest: Digest | None = None
    norm: Length | None = None
    relative: Length | None = None
    cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    distance: Length | None = None


class _Contribution(_Measured):
    images: Count
    steps: Count
    weight: Annotated[float, Field(ge=0, le=COUNT_MAX)] | None = None
    loss: Measure | None = None
    seconds: Length | None = None
    clipped: Annotated[float, Field(ge=0, le=1)] | None = None


class _Score(_Strict):
    site: Site
    loss: Measure
    count: Count
    gauges: Annotated[
        dict[Annotated[str, StringConstraints(max_length=GAUGE_CHARS_MAX)], Measure], Field(max_length=GAUGES_MAX)
    ]


class _Alarm(_Strict):
    site: Site
    what: Annotated[str, StringConstraints(max_length=WHAT_CHARS_MAX)]
    words: Annotated[str, StringConstraints(max_length=WORDS_CHARS_MAX)]


class _Missing(_Strict):
    site: Site
    reason: Annotated[str, StringConstraints(max_length=REASONS_MOST)]


class _Software(_Strict):
    site: Site
    software: Annotated[
        list[Annotated[str, StringConstraints(pattern=rf"^{SOFTWARE.pattern}$")]], Field(max_length=SOFTWARE_MAX)
    ]


class _Line(_Strict):
    round: Annotated[int, Field(ge=1, le=ROUND_MAX)]
    loss: Measure | None
    contributions: Annotated[list[_Contribution], Field(max_length=SITES_MAX)]
    missing: Annotated[list[_Missing], Field(max_length=SITES_MAX)]
    alarms: Annotated[list[_Alarm], Field(max_length=ALARMS_MAX)] = []
    base: Digest | None = None
    model: Digest | Literal[""] | None = None
    trimmed: Count = 0
    begun_at: Moment | None = None
    ended_at: Moment | None = None
    dropped: Annotated[list[_Measured], Field(max_length=SITES_MAX)] = []
    unusable: Sites = []
    notes: Annotated[list[Words], Field(max_length=NOTES_MAX)] = []
    scores: Annotated[list[_Score], Field(max_length=SITES_MAX)] = []


class _Record(_Strict):
    ledger: Annotated[list[_Line], Field(max_length=ROUND_MAX)]
    run: str | None = None
    sites: Annotated[list[_Software], Field(max_length=SITES_MAX)] = []
    software: Annotated[str, StringConstraints(pattern=r"^fedcervix [0-9A-Za-z.+-]{1,40}$")] | None = None
    plan_digest: str | None = None
    plan: dict[str, Any] | None = None
    outcome: Literal["OK", "DEGRADED", "ABORTED"] | None = None
    reason: Words = ""
    best_round: Annotated[int, Field(ge=0, le=ROUND_MAX)] = 0
    model: Digest | None = None
    adopted: Sites = []


KEYS = frozenset(
    key for model in (_Record, _Software, _Line, _Contribution, _Alarm, _Missing, _Score) for key in model.model_fields
)


def read(text: str | bytes, plan: Plan, run: str) -> list[dict[str, Any]]:
    """Return the ledger's lines: round, loss, contributions and missing; measures and alarms where they stand there.

    Raises ValueError where it is no record of this run.
    """
    if len(text) > 4 * RECORD_CHARS_MAX:
        raise ValueError(f"it is longer than {RECORD_CHARS_MAX} characters")
    try:
        record = _Record.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(_first(error)) from error
    _check_result(record, plan, run)
    for number, line in enumerate(record.ledger, 1):
        _check(line, number, plan)
    return [line.model_dump(exclude_unset=True, include=LEDGER) for line in record.ledger]


def _check_result(record: _Record, plan: Plan, run: str) -> None:
    check(record.run in (None, run), "it is the record of another run")
    same = record.plan is None or canonical_json(record.plan) == plan.canonical()
    check(same and record.plan_digest in (None, plan.digest), "it is the record of another plan")
    check(len(set(record.adopted)) == len(record.adopted), "adopted names a site twice")
    check(set(record.adopted) <= set(plan.sites), "adopted names a site that is not in the plan")
    check({one.site for one in record.sites} <= set(plan.sites), "sites names one that is not in the plan")
    check(record.best_round <= len(record.ledger), "best_round is none of the rounds")
    best = record.ledger[record.best_round - 1].model if record.best_round else None
    check(record.model == best, "model is not the one of best_round")


def _check(line: _Line, number: int, plan: Plan) -> None:
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


def _first(error: ValidationError) -> str:
    """Return the first thing that is wrong; what the coordinator wrote is not quoted."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(
        str(part) if isinstance(part, int) or part in KEYS else "(an unknown key)" for part in found["loc"][:4]
    )
    return f"{place or 'the text'}: {found['type']}"
