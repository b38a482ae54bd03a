"""The ledger in a run's record, which the coordinator sends when a site leaves: read strictly.

A record is written by a machine that this site does not trust. Each value has a type and a range; sites are those of
the plan, and rounds are in order. Anything else is refused.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fedcervix.core.alarms import WHAT_CHARS_MAX, WORDS_CHARS_MAX
from fedcervix.core.events import REASON_CHARS_MAX, ROUND_MAX
from fedcervix.core.plan import SITES_MAX, Plan
from fedcervix.transport.codec import RECORD_CHARS_MAX

COUNT_MAX = 2**40
REASONS_MOST = REASON_CHARS_MAX + 100
"""characters: a reason with the word for how the site was away before it"""

Site = Annotated[str, StringConstraints(max_length=63)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
ALARMS_MAX = 16 * SITES_MAX
Length = Annotated[float, Field(ge=0)]
Measure = Annotated[float, Field(ge=-1e30, le=1e30)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")


class _Contribution(_Strict):
    site: Site
    images: Count
    steps: Count
    norm: Length | None = None
    cosine: Annotated[float, Field(ge=-1, le=1)] | None = None
    distance: Length | None = None
    clipped: Annotated[float, Field(ge=0, le=1)] | None = None


class _Alarm(_Strict):
    site: Site
    what: Annotated[str, StringConstraints(max_length=WHAT_CHARS_MAX)]
    words: Annotated[str, StringConstraints(max_length=WORDS_CHARS_MAX)]


class _Missing(_Strict):
    site: Site
    reason: Annotated[str, StringConstraints(max_length=REASONS_MOST)]


class _Line(_Strict):
    round: Annotated[int, Field(ge=1, le=ROUND_MAX)]
    loss: Measure | None
    contributions: Annotated[list[_Contribution], Field(max_length=SITES_MAX)]
    missing: Annotated[list[_Missing], Field(max_length=SITES_MAX)]
    alarms: Annotated[list[_Alarm], Field(max_length=ALARMS_MAX)] = []


class _Record(_Strict):
    ledger: Annotated[list[_Line], Field(max_length=ROUND_MAX)]


def read(text: str | bytes, plan: Plan) -> list[dict[str, Any]]:
    """Return the ledger's lines: round, loss, contributions and missing; measures and alarms where they stand there.

    Raises ValueError where it is no ledger.
    """
    if len(text) > 4 * RECORD_CHARS_MAX:
        raise ValueError(f"it is longer than {RECORD_CHARS_MAX} characters")
    try:
        lines = _Record.model_validate_json(text).ledger
    except ValidationError as error:
        raise ValueError(_first(error)) from error
    for number, line in enumerate(lines, 1):
        _check(line, number, plan)
    return [line.model_dump(exclude_unset=True) for line in lines]


def _check(line: _Line, number: int, plan: Plan) -> None:
    if line.round != number or number > plan.rounds_max:
        raise ValueError(f"round {line.round} stands in line {number}; the plan has at most {plan.rounds_max} rounds")
    named = [part.site for part in line.contributions] + [part.site for part in line.missing]
    if len(set(named)) != len(named):
        raise ValueError(f"round {number} names a site twice")
    if not {*named, *(alarm.site for alarm in line.alarms)} <= set(plan.sites):
        raise ValueError(f"round {number} names a site that is not in the plan")


def _first(error: ValidationError) -> str:
    """Return the first thing that is wrong; what the coordinator wrote is not quoted."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, found["loc"][:4]))
    return f"{place or 'the text'}: {found['type']}"
