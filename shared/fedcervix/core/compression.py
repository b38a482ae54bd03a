"""Wire economy as decisions: which packed form a site may be sent, and what a site carries on from round to round.

A model's packed form (see `quantization`) has a digest of its own and travels as any blob does. The ledger says which
model it stands for, so both sides and a replay find it again.

Rules
1. In int8 a packed form says how a model differs from its base. It goes only to a site that the ledger shows to have
   held that base: to such a site it tells nothing that the model itself would not.
2. What a site rounded away from an update is carried on when that update counted, and only then. An update that came
   too late leaves things as they were; a task that is done again begins from what it began with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fedcervix.core.events import Answer, Task, UpdateStored, event_from_json, event_to_json
from fedcervix.core.formats import contents
from fedcervix.core.plan import canonical_json
from fedcervix.core.rounds.readers import readers, seals
from fedcervix.core.rounds.state import Round, Run
from fedcervix.json_text import parsed

ROUNDS_LOOKED_AT = 3
"""A site that has missed more than this fetches whole models until it is back."""
ROUNDS_CARRIED = 2
"""of those in which the site's update counted: the last round may be done again"""


# --- the coordinator's side ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed form and the model to which it is the difference, by their digests; the base is empty for bfloat16."""

    digest: str
    base: str


def packed_form(run: Run, site: str, model: str) -> Packed | None:
    """Return the packed form in which this site may be sent a model; None: the model itself travels.

    A model under seal has the sealed file in place of one, for those that can read it.
    """
    if run.plan.terms.sealed:
        return Packed(seals(run, model)[0][1].file, "") if site in readers(run, model) else None
    found = kept_form(run, model)
    return found if found and (not found.base or _has_held(run, site, found.base)) else None


def kept_form(run: Run, model: str) -> Packed | None:
    """Return the packed form of a model that the run still needs; None where it has none. Not of one under seal."""
    int8 = run.plan.terms.compression == "int8"
    for digest, packed, base in _forms(run):
        if digest == model and packed:
            return Packed(packed, base if int8 else "")
    return None


def _forms(run: Run) -> Iterator[tuple[str, str, str]]:
    """Yield (model, its packed form, the model it was made from), the newest first."""
    best = [run.best] if run.best_round else []
    for round_ in [*reversed(run.rounds[-2:]), *best]:
        yield round_.candidate, round_.packed, round_.base
        for update in round_.contributions:
            yield update.digest, update.packed, update.task.base
    yield run.layout, run.packed, ""


def _has_held(run: Run, site: str, model: str) -> bool:
    return any(model in _held_in(round_, site) for round_ in run.rounds[-ROUNDS_LOOKED_AT:])


def _held_in(round_: Round, site: str) -> set[str]:
    """Return the models that a site is known to have held in a round: what it trained, made or scored."""
    made = {
        digest for u in (*round_.contributions, *round_.dropped) if u.site == site for digest in (u.task.base, u.digest)
    }
    return made | ({round_.candidate} if round_.scored(site) else set())


# --- the site's side ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ErrorFeedback:
    """What a site's rounding left over, to be added to its next update (error feedback: Seide et al. 2014).

    Digests name files in the blob store of the site.
    """

    counted: tuple[tuple[int, str], ...] = ()
    """(round, residual) of the last rounds in which this site's update counted, in order"""
    made: UpdateStored | None = None
    """the newest update; whether it counts is not known yet"""
    left: str = ""
    """what was rounded away from it"""

    @property
    def residuals(self) -> set[str]:
        """The files that are still needed."""
        return {residual for _, residual in self.counted} | {self.left} - {""}


def residual_for(carried: ErrorFeedback, round_: int) -> str:
    """Return what is added to a round's update before it is rounded; empty where there is nothing."""
    return next((residual for number, residual in reversed(carried.counted) if number < round_), "")


def undecided(carried: ErrorFeedback, task: Task) -> UpdateStored | None:
    """Return the update that must be known to count, or not, before this task is trained.

    Its answer was lost, and the run went on. Asking again gives the same answer.
    """
    return carried.made if carried.made is not None and carried.made.task != task else None


def made(carried: ErrorFeedback, update: UpdateStored, residual: str) -> ErrorFeedback:
    """Return what is carried once an update was rounded and before it is delivered."""
    return replace(carried, made=update, left=residual)


def answered(carried: ErrorFeedback, update: UpdateStored, answer: Answer) -> ErrorFeedback:
    """Return what is carried once the coordinator has answered an update."""
    if carried.made is None or (carried.made.task, carried.made.digest) != (update.task, update.digest):
        return carried
    if answer not in (Answer.ACCEPTED, Answer.DUPLICATE):
        return ErrorFeedback(carried.counted)
    before = [(round_, residual) for round_, residual in carried.counted if round_ < update.task.round]
    return ErrorFeedback((*before, (update.task.round, carried.left))[-ROUNDS_CARRIED:])


def error_feedback_to_json(carried: ErrorFeedback) -> str:
    """Return the one text of this value."""
    made_ = event_to_json(carried.made) if carried.made else None
    return canonical_json({**dataclasses.asdict(carried), "made": made_})


def error_feedback_from_json(text: str) -> ErrorFeedback:
    """Rebuild the value. Raises ValueError on anything else."""
    try:
        raw = contents("what a site carries on", parsed(text))
        event = event_from_json(str(raw["made"])) if raw["made"] else None
        counted = raw["counted"]
        if not isinstance(counted, list):
            raise TypeError("what counted is no list")  # noqa: TRY301 (of a text that is not ours)
        if event is not None and not isinstance(event, UpdateStored):
            raise ValueError("not an update")
        return ErrorFeedback(
            tuple((int(round_), str(residual)) for round_, residual in counted), event, str(raw["left"])
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not what a site carries on: {error}") from error
