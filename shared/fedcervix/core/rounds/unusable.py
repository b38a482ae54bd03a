"""A model that gives no finite loss, and the update of a revoked site: which updates of the round count then.

The rules stand in the docstring of the package.
"""

from __future__ import annotations

from dataclasses import replace

from fedcervix.core.events import ModelUnusable, UpdateStored
from fedcervix.core.rounds.holders import holders, may_close
from fedcervix.core.rounds.participants import first_few, trainers, untrained, updates_needed
from fedcervix.core.rounds.state import Missing, Phase, Run, in_roster_order, with_round
from fedcervix.core.rounds.transitions import abort, begin_closing, make_candidate, next_round_or_end

TRIES_MAX = 5
"""updates that are left out, one after the other, of a model that cannot be used"""
VOID_ROUNDS_MAX = 3
"""rounds in a row in which nobody counts, before the run is aborted"""

REVOKED = "revoked by the operator"
NOT_AGAIN = "with secure sums no single update can be left out, and no model is the base of two rounds"
NOBODY = "no update counts in this round"


def half_say_so(unusable: tuple[ModelUnusable, ...], others: int) -> bool:
    """Say whether at least half of those that answered say so."""
    return bool(unusable) and len(unusable) >= others


def said_by(unusable: tuple[ModelUnusable, ...]) -> str:
    """Return who says so."""
    return f"so {first_few(list(dict.fromkeys(said.site for said in unusable)))}"


def base_is_unusable(run: Run) -> bool:
    """Say whether the model that the round began with is to be given up. In a ring one update shows that it is not."""
    round_ = run.current
    if run.plan.mode_rules.in_turns:
        made = (*round_.contributions, *round_.dropped)
        return bool(round_.unusable) and all(update.task.base != round_.base for update in made)
    return half_say_so(round_.unusable, len(round_.contributions))


def fall_back(run: Run, at: float) -> Run:
    """Go back to the model before the one that the round began with."""
    model = fallback(run)
    first = "" if len({round_.base for round_ in run.rounds}) > 1 else _first_model(run)
    said = said_by(run.current.unusable)
    note = f"the model that the round began with{first} gives no finite loss in training ({said})"
    if not model:
        return abort(run, f"{note}, and there is no earlier model to go back to", at)
    return end_void(run, at, note, model)


def _first_model(run: Run) -> str:
    return f" (the first one, {f'made by {run.seeded_by}' if run.seeded_by else 'given by the operator'})"


def fallback(run: Run) -> str:
    """Return the model that the run goes back to if nobody can train from the present round's; empty: there is none.

    It is the base of the last round that began with another one, if an update of that round counted. With secure sums
    there is none: a second sum over one base could show a single site.
    """
    if run.plan.terms.secure_sum:
        return ""
    for round_ in reversed(run.rounds[:-1]):
        if round_.base != run.current.base:
            return round_.base if round_.contributions else ""
    return ""


def end_void(run: Run, at: float, note: str, model: str = "") -> Run:
    """End a round in which nobody counts; the run goes on from `model`, or else from where the round began.

    Where the round before had begun there as well, and was void, the run goes on from the model before that one.
    """
    if run.plan.terms.secure_sum:
        return abort(run, f"{note}; {NOT_AGAIN}", at)
    round_ = run.current
    stuck = len(run.rounds) > 1 and run.rounds[-2].void and run.rounds[-2].base == round_.base
    model = model or (fallback(run) if stuck else "") or round_.base
    run = _forget_best(run, good=model)
    others = tuple(Missing(update.site, NOBODY, answered=True) for update in round_.contributions)
    dropped = in_roster_order(run.plan, (*round_.dropped, *round_.contributions))
    run = replace(_recount(run, (), dropped, (*round_.missing, *others)), model=model)
    residual = run.rounds[-2].residual if len(run.rounds) > 1 else ""
    run = with_round(run, candidate=model, residual=residual, notes=(*round_.notes, note), ended_at=at)
    if len(run.rounds) >= VOID_ROUNDS_MAX and all(earlier.void for earlier in run.rounds[-VOID_ROUNDS_MAX:]):
        return abort(run, f"no update has counted in {VOID_ROUNDS_MAX} rounds in a row. In the last one: {note}", at)
    return next_round_or_end(run, at)


def _forget_best(run: Run, *, good: str) -> Run:
    """Where the model that is given up was the best one, return to the best round of the model that is kept."""
    if good == run.current.base or not run.best_round or run.best.candidate != run.current.base:
        return run
    scored = [round_.number for round_ in run.rounds[:-1] if round_.scores and round_.candidate == good]
    return replace(run, best_round=max(scored, default=0))


def _recount(
    run: Run, counted: tuple[UpdateStored, ...], dropped: tuple[UpdateStored, ...], missing: tuple[Missing, ...]
) -> Run:
    """Count these updates and no others. The model of the round follows from them; it must be made and scored anew."""
    hops = run.plan.mode_rules.in_turns and counted
    run = replace(run, model=counted[-1].digest if hops else run.current.base)
    attempt = run.current.attempt + 1
    run = with_round(run, contributions=counted, dropped=dropped, missing=missing, attempt=attempt)
    return with_round(run, candidate="", packed="", residual="", scores=())


def _drop(run: Run, update: UpdateStored, missing: Missing) -> Run:
    """Take one update out of those that count."""
    counted = tuple(other for other in run.current.contributions if other != update)
    dropped = in_roster_order(run.plan, (*run.current.dropped, update))
    return _recount(run, counted, dropped, (*run.current.missing, missing))


def _take_back(run: Run) -> Run:
    """Count the update again that was left out for a trial."""
    round_ = run.current
    if not round_.suspect:
        return run
    back = [update for update in round_.dropped if update.site == round_.suspect]
    counted = in_roster_order(run.plan, (*round_.contributions, *back))
    dropped = tuple(update for update in round_.dropped if update not in back)
    missing = tuple(missing for missing in round_.missing if missing.site != round_.suspect)
    return with_round(_recount(run, counted, dropped, missing), suspect="")


def _suspected(site: str, why: str) -> Missing:
    return Missing(site, f"with its update the model could not be used ({why})", answered=True, suspected=True)


def leave_one_out(run: Run, at: float, why: str) -> Run:
    """The round's model cannot be used: try it without one of its updates."""
    if run.plan.terms.secure_sum:
        return end_void(run, at, f"the model could not be used ({why})")
    leave_out = _leave_out_newest_hop if run.plan.mode_rules.in_turns else _leave_out_longest_step
    return leave_out(run, at, why)


def _leave_out_longest_step(run: Run, at: float, why: str) -> Run:
    tried = run.current.tried + ((run.current.suspect,) if run.current.suspect else ())
    run = with_round(_take_back(run), tried=tried)
    counted = run.current.contributions
    left = [update for update in counted if update.site not in tried]
    if not left or len(counted) < 2 or len(tried) >= TRIES_MAX:
        whichever = ", whichever update was left out" if tried else ""
        return end_void(run, at, f"the model could not be used ({why}){whichever}")
    suspect = max(left, key=lambda update: update.step)  # of equals the first in the roster
    run = _drop(run, suspect, _suspected(suspect.site, why))
    return make_candidate(with_round(run, suspect=suspect.site), at)


def _leave_out_newest_hop(run: Run, at: float, why: str) -> Run:
    if len(run.current.tried) >= TRIES_MAX:
        return end_void(clear_suspicion(run), at, f"the model could not be used ({why})")
    newest = run.current.contributions[-1]
    run = with_round(drop_newest_hop(run, why), tried=(*run.current.tried, newest.site))
    if not run.current.contributions:
        return end_void(run, at, f"the model of no hop could be used ({why})")
    return make_candidate(run, at)


def clear_suspicion(run: Run) -> Run:
    """Suspect none of the sites whose hops were left out: the hop that spoils the model was not found."""
    missing = (Missing(m.site, NOBODY, answered=True) if m.suspected else m for m in run.current.missing)
    return with_round(run, missing=tuple(missing))


def left_out_words(run: Run) -> str:
    """Return whose hops were left out of a round that is not scored, so that nobody knows which of them spoils it."""
    names = [missing.site for missing in run.current.missing if missing.suspected]
    return f": it was tried without those of {first_few(names)}" if names else ""


def drop_newest_hop(run: Run, why: str) -> Run:
    """Take the newest hop out of a ring; whoever trained after it was handed a model that could not be used."""
    newest = run.current.contributions[-1]
    place = run.plan.sites.index
    handed = f"it had trained from the model of {newest.site}, which could not be used"
    missing = (
        Missing(m.site, handed, answered=True) if m.suspected and place(m.site) > place(newest.site) else m
        for m in run.current.missing
    )
    run = with_round(run, missing=tuple(missing))
    if any((said.site, said.task.base) == (newest.site, newest.digest) for said in run.current.unusable):
        own = "it could not use the model that it had trained itself"
        return _drop(run, newest, Missing(newest.site, own, answered=True))
    return _drop(run, newest, _suspected(newest.site, why))


def withdraw(run: Run, site: str, at: float) -> Run:
    """Take a site out of the round in progress: it was revoked."""
    run = _forget_reports(run, site)
    if run.plan.terms.secure_sum:
        return _withdraw_masked(run, site, at)
    theirs = next((update for update in run.current.contributions if update.site == site), None)
    if theirs is None:
        return run
    if run.plan.mode_rules.in_turns and theirs != run.current.contributions[-1]:
        note = f"the hop of {site}, which was revoked since, stays: others had trained from it"
        return with_round(run, notes=(*run.current.notes, note))
    run = _drop(_take_back(run), theirs, Missing(site, REVOKED))
    if run.phase is Phase.TRAINING:
        return _pass_over_holder(run, site)
    if not run.current.contributions or len(trainers(run.current)) < updates_needed(run):
        return end_void(clear_suspicion(run), at, f"too few updates are left without {site}, which was revoked")
    return make_candidate(run, at)


def _withdraw_masked(run: Run, site: str, at: float) -> Run:
    """Take a site out of a round with a secure sum: of its training. A list that holders know is not changed."""
    theirs = next((update for update in run.current.contributions if update.site == site), None)
    if run.phase is not Phase.TRAINING:
        note = f"the update of {site}, which was revoked since, stays in the sum"
        return with_round(run, notes=(*run.current.notes, note)) if theirs else run
    run = _drop(run, theirs, Missing(site, REVOKED)) if theirs else run
    return begin_closing(run, at) if site in holders(run) and may_close(run) else run


def _forget_reports(run: Run, site: str) -> Run:
    """Forget what a revoked site has said of the round's model. The one that was left out for a trial stays out."""
    round_ = run.current
    on_trial = round_.suspect == site
    missing = (
        Missing(site, REVOKED) if m.site == site and m.answered and (on_trial or not m.suspected) else m
        for m in round_.missing
    )
    return with_round(
        run,
        scores=tuple(score for score in round_.scores if score.site != site),
        unusable=tuple(said for said in round_.unusable if said.site != site),
        missing=tuple(missing),
        suspect="" if on_trial else round_.suspect,
    )


def _pass_over_holder(run: Run, revoked: str) -> Run:
    """In a ring, pass over the holder of a revoked site's model.

    It may have trained already, and a site trains from one model in a round: it is not asked again before the next.
    """
    holder = [site.name for site in untrained(run)][:1] if run.plan.mode_rules.in_turns else []
    why = f"it held the model of {revoked}, which was revoked"
    passed = (Missing(name, why, answered=True) for name in holder)
    return with_round(run, missing=(*run.current.missing, *passed))
