"""What a run must come to, computed without the machines: ten lines of arithmetic against which they are held.

"Training" is a hash: a model's digest says which base, site and round it came from, so a wrong average, a wrong base
or a wrong order anywhere in a run changes the last digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fedcervix.core.events import Task, TaskKind, UpdateStored
from fedcervix.core.plan import Compression, Plan
from fedcervix.core.rounds.state import Outcome, Phase, Round, Run


def digest_of(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


def drawn(sides: int, *parts: object) -> int:
    """Return a number from 0 to below `sides` that is fixed by the rest."""
    return int(digest_of(*parts)[:8], 16) % sides


def seeded(plan: Plan) -> str:
    exact = digest_of("seed", plan.terms.seed)
    return exact if plan.terms.compression == "int8" else rounded(plan.terms.compression, exact, "")


def rounded(compression: Compression, exact: str, residual: str) -> str:
    """Return the model that a model is rounded to; `residual`: what int8 had rounded away the last time."""
    if compression == "none":
        return exact
    return digest_of("rounded", exact, residual if compression == "int8" else "")


def packed_of(compression: Compression, model: str) -> str:
    return "" if compression == "none" else digest_of("packed", model)


def left_of(compression: Compression, model: str) -> str:
    """Return what int8 rounded away when it made this model."""
    return digest_of("left", model) if compression == "int8" else ""


def trained(base: str, site: str, round_: int) -> str:
    return digest_of("train", base, site, round_)


def averaged(updates: Iterable[tuple[str, float]], step: Sequence[str] = ()) -> str:
    """`step`: with server momentum, the models that this round and the one before began with."""
    return digest_of("average", *updates, *step)


def step_of(plan: Plan, bases: Sequence[str], *, after_nobody: bool = False) -> Sequence[str]:
    """Return the last step that server momentum carries on, the newer end first. `bases`: of all rounds so far.

    `after_nobody`: nobody counted in the round before, so its model moved by no step, or back.
    """
    carries = plan.terms.server_momentum > 0 and len(bases) > 1 and not after_nobody
    return (bases[-1], bases[-2]) if carries else ()


def images_of(site: str) -> int:
    return 10 + sum(map(ord, site)) % 90


def loss_of(model: str, site: str) -> float:
    """A validation loss from .5 to 1.5, fixed by model and site; multiples of 1/64, so that sums are exact."""
    return 0.5 + int(digest_of("score", model, site)[:8], 16) % 65 / 64


def weight_of(plan: Plan, site: str) -> float:
    return float(images_of(site)) if plan.terms.average == "by-images" else 1.0


def mean_loss(plan: Plan, model: str) -> float:
    judges = scorers(plan)
    weights = [weight_of(plan, site) for site in judges]
    return sum(w * loss_of(model, site) for w, site in zip(weights, judges, strict=True)) / sum(weights)


def scorers(plan: Plan) -> tuple[str, ...]:
    """Return who scores the model of an undisturbed round: all; of a ring under seal who made it, and who is next."""
    if not plan.terms.sealed:
        return plan.sites
    return tuple(dict.fromkeys((plan.sites[0], plan.sites[-1])))


def averages_as(plan: Plan) -> Compression:
    """Return how the coordinator rounds: in a ring there is no model at all sites to which int8 could be relative."""
    return "none" if plan.mode_rules.in_turns and plan.terms.compression == "int8" else plan.terms.compression


@dataclass(slots=True)
class Left:
    """What each maker had rounded away when its model last counted."""

    plan: Plan
    of: dict[str, str] = field(default_factory=dict)

    def update(self, base: str, site: str, round_: int) -> str:
        """Return what a site makes of a model."""
        return rounded(self.plan.terms.compression, trained(base, site, round_), self.of.get(site, ""))

    def average(self, exact: str) -> str:
        """Return what the coordinator makes of an average."""
        return rounded(averages_as(self.plan), exact, self.of.get("", ""))

    def counted(self, maker: str, model: str) -> None:
        """A model counts; the coordinator's name is empty."""
        self.of[maker] = left_of(self.plan.terms.compression if maker else averages_as(self.plan), model)


def undisturbed(plan: Plan, base: str) -> tuple[str, int, int]:
    """Return (final model, best round, number of rounds) of a run in which nothing goes wrong."""
    model, best, bases, candidates, left = base or seeded(plan), 0, [], [], Left(plan)
    for number in range(1, plan.rounds_max + 1):
        bases.append(model)
        hops = []
        for site in plan.sites:
            hops.append((left.update(model, site, number), weight_of(plan, site)))
            left.counted(site, hops[-1][0])
            if plan.mode_rules.in_turns:
                model = hops[-1][0]
        last = plan.mode_rules.in_turns and plan.terms.ring_result == "last"
        candidates.append(model if last else left.average(averaged(hops, step_of(plan, bases))))
        left.counted("", candidates[-1])
        if plan.mode_rules.goes_on_from_average:
            model = candidates[-1]
        if not best or mean_loss(plan, candidates[-1]) < mean_loss(plan, candidates[best - 1]):
            best = number
        if number - best >= plan.terms.patience_rounds:
            break
    return candidates[best - 1], best, len(candidates)


# --- invariants ---------------------------------------------------------------------------------------------------


def faults_of_ledger(run: Run, first: str) -> Iterator[str]:
    """Yield every sentence of the design that a run's ledger breaks. `first`: digest of the first model."""
    model, bases, left = first, [], Left(run.plan)
    for round_ in run.rounds:
        bases.append(model)
        yield from _faults_of_round(run, round_, bases, left, after_nobody=_nobody_counts(run, round_.number - 1))
        if _nobody_counts(run, round_.number):
            model = round_.candidate
            if model not in bases or len(round_.missing) < len(run.plan.sites) or not round_.notes:
                yield f"round {round_.number}: nobody counts, but it is not said why, or the run goes on from nowhere"
        elif run.plan.mode_rules.in_turns and round_.contributions:
            model = round_.contributions[-1].digest
        elif run.plan.mode_rules.goes_on_from_average:
            model = round_.candidate or model
    if model != run.model and not (run.rounds and went_back(run.current)):
        yield f"the model is {run.model[:8]}; the accepted updates give {model[:8]}"


def went_back(round_: Round) -> bool:
    """Say whether a ring under seal went back to an earlier model in this round."""
    return any("went back" in note for note in round_.notes)


def _nobody_counts(run: Run, number: int) -> bool:
    return number > 0 and bool(run.rounds[number - 1].candidate) and not run.rounds[number - 1].contributions


def _hops(round_: Round) -> tuple[UpdateStored, ...]:
    return (*round_.contributions, *round_.dropped)


def _faults_of_round(run: Run, round_: Round, bases: Sequence[str], left: Left, *, after_nobody: bool) -> Iterator[str]:
    model = bases[-1]
    counted = [update.site for update in round_.contributions]
    missing = [missing.site for missing in round_.missing]
    name = f"round {round_.number}"
    if len({*counted, *missing}) != len(counted) + len(missing):
        yield f"{name}: a site counts twice: {counted}, missing {missing}"
    if round_.base != model:
        yield f"{name}: begins from {round_.base[:8]}, not from {model[:8]}"
    if round_.candidate and {*counted, *missing} != {*run.plan.sites}:
        yield f"{name}: a declared site is neither counted nor missing: {counted}, missing {missing}"
    earlier = {hop.digest for one in run.rounds for hop in _hops(one)} if went_back(round_) else {}
    for update in round_.contributions:
        model = update.task.base if update.task.base in earlier else model
        if update.task != Task(run.run, TaskKind.TRAIN, round_.number, model):
            yield f"{name}: {update.site} trained {update.task} from {update.task.base[:8]}, not {model[:8]}"
        elif update.digest != left.update(model, update.site, round_.number):
            yield f"{name}: the update of {update.site} does not follow from its base and its last one that counted"
        left.counted(update.site, update.digest)
        if run.plan.mode_rules.in_turns:
            model = update.digest
    yield from _faults_of_dropped(round_, left)
    if not round_.contributions:
        return
    step = step_of(run.plan, bases, after_nobody=after_nobody)
    if round_.candidate and round_.candidate != _candidate(run.plan, round_, step, left):
        yield f"{name}: the candidate does not follow from the accepted updates"
    left.counted("", round_.candidate)


def _faults_of_dropped(round_: Round, left: Left) -> Iterator[str]:
    """An update that was accepted and does not count after all: to its site, it was one that counted."""
    missing = {missing.site for missing in round_.missing}
    for update in round_.dropped:
        if update in round_.contributions or update.site not in missing:
            yield f"round {round_.number}: the update of {update.site} was dropped, and the ledger does not say so"
        if update.digest != left.update(update.task.base, update.site, round_.number):
            yield f"round {round_.number}: the dropped update of {update.site} does not follow from its base"
        left.counted(update.site, update.digest)


def _candidate(plan: Plan, round_: Round, step: Sequence[str], left: Left) -> str:
    if plan.mode_rules.in_turns and plan.terms.ring_result == "last":
        return round_.contributions[-1].digest
    updates = [(update.digest, weight_of(plan, update.site)) for update in round_.contributions]
    return left.average(averaged(updates, step))


def faults_of_outcome(run: Run) -> Iterator[str]:
    """Yield what is wrong with how a run ended."""
    missing = any(round_.missing for round_ in run.rounds)
    if run.phase is Phase.FINISHED and run.outcome is not (Outcome.DEGRADED if missing else Outcome.OK):
        yield f"outcome {run.outcome}, but a site is {'' if missing else 'not '}missing from a round"
    if (run.outcome is Outcome.ABORTED) != (run.phase is Phase.ABORTED):
        yield f"outcome {run.outcome} in phase {run.phase}"
