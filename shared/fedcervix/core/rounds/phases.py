"""How a run advances: through as many phases as their conditions allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from fedcervix.core.quorum import Quorum
from fedcervix.core.rounds.participants import open_sites, rewrap, updates_needed
from fedcervix.core.rounds.scores import improves
from fedcervix.core.rounds.state import Missing, Phase, Presence, Run, Site, with_round
from fedcervix.core.rounds.transitions import (
    abort,
    begin_closing,
    enter,
    make_candidate,
    next_attempt,
    next_round,
    next_round_or_end,
)
from fedcervix.core.rounds.unreadable import abort_if_hopeless, go_back
from fedcervix.core.rounds.unusable import (
    base_is_unusable,
    clear_suspicion,
    end_void,
    fall_back,
    half_say_so,
    leave_one_out,
    left_out_words,
    said_by,
)
from fedcervix.core.rounds.waits import OnTimeout, quorum_state, waits


def advance(run: Run, at: float) -> Run:
    """Go through as many phases and hops as the state allows. It ends: every move closes a site, a hop or a phase."""
    while not run.ended:
        moved = _ADVANCE[run.phase](run, at)
        if moved is run:
            return run
        run = moved
    return run


def _end_phase(run: Run, at: float, go_on: Callable[[Run, float, tuple[Site, ...]], Run]) -> Run:
    """End the phase when no site is waited for, or when all waits have run out."""
    open_ = open_sites(run)
    if quorum_state(run, open_) is Quorum.IMPOSSIBLE:
        return abort(run, f"too few sites are left for a quorum while {run.phase}: {_away(run)}", at)
    if any(site.presence is Presence.PRESENT for site in open_):  # it works: `_wait` has no end for it
        return run
    pending = waits(run)
    if any(wait.until is None or wait.until > at for wait in pending):
        return run
    if any(wait.then is OnTimeout.ABORT for wait in pending):
        return abort(run, f"no quorum while {run.phase}: waited for {_away(run)}", at)
    return go_on(run, at, open_)


def _away(run: Run) -> str:
    return "; ".join(f"{site.name} ({site.standing})" for site in open_sites(run))


def _after_gathering(run: Run, at: float, _missing: tuple[Site, ...]) -> Run:
    return next_round(run, at) if run.layout else enter(run, Phase.SEEDING, at)


def _advance_seeding(run: Run, at: float) -> Run:
    if run.layout:
        return next_round(run, at)
    return _end_phase(run, at, lambda run, _at, _open: run)


def _advance_training(run: Run, at: float) -> Run:
    back = go_back(run, at)
    return back if back is not run else _end_phase(run, at, _after_training)


def _advance_publishing(run: Run, at: float) -> Run:
    hopeless = abort_if_hopeless(run, at) if rewrap(run) is not None else run
    return hopeless if hopeless is not run else _end_phase(run, at, _after_publishing)


def _after_training(run: Run, at: float, missing: tuple[Site, ...]) -> Run:
    """Close the round to the sites that are away (in a ring: the holder), or go on to the model of the round."""
    if missing:
        away = tuple(Missing(site.name, site.standing) for site in missing)
        return with_round(run, missing=(*run.current.missing, *away))
    if base_is_unusable(run):
        return fall_back(run, at)
    if len(run.current.contributions) < updates_needed(run):
        return end_void(clear_suspicion(run), at, f"too few updates are left to count{left_out_words(run)}")
    return make_candidate(run, at)


def _after_releasing(run: Run, at: float, lost: tuple[Site, ...]) -> Run:
    """Open the sum; or do the round again without a holder that is lost."""
    return begin_closing(run, at) if lost else enter(run, Phase.AGGREGATING, at)


def _after_closing(run: Run, at: float, _missing: tuple[Site, ...]) -> Run:
    return next_attempt(run, at)


def _advance_aggregating(run: Run, at: float) -> Run:
    return enter(run, Phase.SCORING, at) if run.current.candidate else run


def _after_scoring(run: Run, at: float, _missing: tuple[Site, ...]) -> Run:
    if half_say_so(run.current.unusable, len(run.current.scores)):
        return leave_one_out(run, at, said_by(run.current.unusable))
    run = with_round(run, ended_at=at)
    if improves(run):
        run = replace(run, best_round=run.current.number)
    return next_round_or_end(run, at)


def _after_publishing(run: Run, at: float, _missing: tuple[Site, ...]) -> Run:
    return enter(run, Phase.FINISHED, at)


def _ends_with(go_on: Callable[[Run, float, tuple[Site, ...]], Run]) -> Callable[[Run, float], Run]:
    return lambda run, at: _end_phase(run, at, go_on)


_ADVANCE: Mapping[Phase, Callable[[Run, float], Run]] = {
    Phase.GATHERING: _ends_with(_after_gathering),
    Phase.SEEDING: _advance_seeding,
    Phase.TRAINING: _advance_training,
    Phase.RELEASING: _ends_with(_after_releasing),
    Phase.CLOSING: _ends_with(_after_closing),
    Phase.AGGREGATING: _advance_aggregating,
    Phase.SCORING: _ends_with(_after_scoring),
    Phase.PUBLISHING: _advance_publishing,
}
