"""A model under seal that no site can read that is there: from which one a ring goes on.

The site that is to train reads the model of the site before it. Where that site was passed over, whoever can read the
model passes its key on. Where none of these is there either, the ring goes back to the newest model of which one is: it
may be that of the site itself. If there is no such model, the run waits for one of them, as long as for a quorum.
"""

from __future__ import annotations

from dataclasses import replace

from fedcervix.core.rounds.participants import first_few, open_sites, rewrap
from fedcervix.core.rounds.readers import earlier_models, giver, reading_sites
from fedcervix.core.rounds.state import Missing, Run, in_roster_order, with_round
from fedcervix.core.rounds.transitions import abort

UNREAD = "nobody that was there could read its model"


def go_back(run: Run, at: float) -> Run:
    """Return the run, gone back to a model that can be read where the newest one cannot; the same run where it can."""
    task = rewrap(run)
    if task is None or giver(run, task.base) is not None:
        return run
    model = next((model for model in earlier_models(run) if giver(run, model) is not None), "")
    return _back_to(run, model) if model else abort_if_hopeless(run, at)


def _back_to(run: Run, model: str) -> Run:
    round_ = run.current
    made = [update.digest for update in round_.contributions]
    counted = round_.contributions[: made.index(model) + 1] if model in made else ()
    lost = round_.contributions[len(counted) :]
    dropped = in_roster_order(run.plan, (*round_.dropped, *lost))
    missing = (*round_.missing, *(Missing(update.site, UNREAD, answered=True) for update in lost))
    can = first_few([site.name for site in reading_sites(run, model)])
    note = f"the ring went back to the model {model[:12]}, which {can} can read: nobody that was there could read on"
    run = with_round(run, contributions=counted, dropped=dropped, missing=missing, attempt=round_.attempt + 1)
    return with_round(replace(run, model=model), notes=(*run.current.notes, note))


def abort_if_hopeless(run: Run, at: float) -> Run:
    """End a run that waits for a key that nobody has any more; the same run where somebody has."""
    if open_sites(run):
        return run
    return abort(run, "every site that could read the model was revoked", at)
