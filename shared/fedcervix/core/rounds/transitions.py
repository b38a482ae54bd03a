"""The moves from phase to phase. When they are made: `phases`, `unusable` and `recording`."""

from __future__ import annotations

from dataclasses import replace

from fedcervix.core.rounds.holders import attempt, can_free, holders, may_close, present_holders
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
    run = enter(replace(run, rounds=(*run.rounds, round_), earlier_models=earlier), Phase.TRAINING, at)
    return begin_closing(run, at) if run.plan.terms.secure_sum and may_close(run) else run


def begin_closing(run: Run, at: float) -> Run:
    """Ask the holders that are here to close the attempt, so that the round can be done again without the others."""
    here = present_holders(run)
    lost = "; ".join(f"{name} ({run.site(name).standing})" for name in holders(run) if name not in here)
    note = f"attempt {attempt(run)} was closed, and the round done again without the holder {lost}"
    return enter(with_round(run, remaining=here, notes=(*run.current.notes, note)), Phase.CLOSING, at)


def next_attempt(run: Run, at: float) -> Run:
    """Begin the next attempt at the round, with the holders that have closed this one; or end the run."""
    closed = (*run.current.closed, run.current.closes)
    run = with_round(run, closed=closed, closes=(), remaining=())
    if run.ending:
        return abort(run, run.ending, at)
    return enter(with_round(run, contributions=(), dropped=(), missing=()), Phase.TRAINING, at)


def close_before_end(run: Run, at: float) -> Run:
    """Let the holders close the attempt in progress before a run is aborted: then its base may be used in another run.

    Once: what ends the run meanwhile ends it for good.
    """
    if run.phase is not Phase.ABORTED or run.ending or not can_free(run):
        return run
    reopened = replace(run, outcome=None, reason="", ending=run.reason)
    return enter(with_round(reopened, remaining=run.current.remaining or present_holders(run)), Phase.CLOSING, at)


def add_models(sets: tuple[frozenset[str], ...], more: frozenset[str]) -> tuple[frozenset[str], ...]:
    """Add models to sets of models. Each set is larger than the next: of a thousand rounds there are ten."""
    while sets and len(sets[-1]) <= len(more):
        sets, more = sets[:-1], sets[-1] | more
    return (*sets, more)


def make_candidate(run: Run, at: float) -> Run:
    """Go on to the model that follows from the updates of the round: to be averaged, or to be scored as it is."""
    run = with_round(run, unusable=())
    if run.plan.terms.secure_sum:
        return enter(run, Phase.RELEASING, at)
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
