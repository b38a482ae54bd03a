"""The moves from phase to phase. When they are made: `phases`, `unusable` and `recording`."""

from __future__ import annotations

from dataclasses import replace

from fedcervix.core.rounds.state import Outcome, Phase, Round, Run, with_round


def enter(run: Run, phase: Phase, at: float) -> Run:
    """Begin a phase."""
    return replace(run, phase=phase, since=at)


def abort(run: Run, reason: str, at: float) -> Run:
    """End the run without a result."""
    return replace(enter(run, Phase.ABORTED, at), outcome=Outcome.ABORTED, reason=reason)


def next_round(run: Run, at: float) -> Run:
    """Begin a round from the model that training goes on from."""
    round_ = Round(number=len(run.rounds) + 1, base=run.model, begun_at=at)
    earlier = add_models(run.earlier_models, run.current.models) if run.rounds else ()
    return enter(replace(run, rounds=(*run.rounds, round_), earlier_models=earlier), Phase.TRAINING, at)


def add_models(sets: tuple[frozenset[str], ...], more: frozenset[str]) -> tuple[frozenset[str], ...]:
    """Add models to sets of models. Each set is larger than the next: of a thousand rounds there are ten."""
    while sets and len(sets[-1]) <= len(more):
        sets, more = sets[:-1], sets[-1] | more
    return (*sets, more)


def make_candidate(run: Run, at: float) -> Run:
    """Go on to the model that follows from the updates of the round: to be averaged, or to be scored as it is."""
    run = with_round(run, unusable=())
    if run.plan.averages:
        return enter(run, Phase.AGGREGATING, at)
    return enter(with_round(run, candidate=run.model), Phase.SCORING, at)


def next_round_or_end(run: Run, at: float) -> Run:
    """Begin the next round, or end the run."""
    if run.current.number >= run.plan.rounds_max:
        return _publish(run, at, f"all {run.plan.rounds_max} rounds done")
    idle = run.current.number - run.best_round
    if run.best_round and idle >= run.plan.terms.patience_rounds:
        return _publish(run, at, f"no lower validation loss in {idle} rounds")
    return next_round(run, at)


def _publish(run: Run, at: float, reason: str) -> Run:
    if not run.best_round:
        return abort(run, f"{reason}, and none gave a model that can be used", at)
    outcome = Outcome.DEGRADED if any(round_.missing for round_ in run.rounds) else Outcome.OK
    return replace(enter(run, Phase.PUBLISHING, at), outcome=outcome, reason=reason)
