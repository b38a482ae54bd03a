"""Why a report that a site was asked for does not count, although it is well formed."""

from __future__ import annotations

from fedcervix.core.events import Event, ScoreReported, TaskKind, UpdateStored
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Run

COPIED = "{}. Training always changes some numbers: check the number of steps and the learning rate"

NEGATIVE_LOSS = "a loss of {:.3g} an image, but nt-xent is never negative"

NEGATIVE_LOSS_MAX = 0.1
"""of nt-xent: what rounding may make of a loss that is 0"""


def objection(run: Run, event: Event) -> str:
    """Say in words why a report that was asked for does not count; empty where it does.

    An update that is a model of this run already was not trained. That is seen by the digest: whoever changes one
    number is not found out.
    """
    if not isinstance(event, UpdateStored | ScoreReported) or event.rules < 1:
        return ""
    if event.site not in run.plan.sites or instruction(run, event.site) != event.task:
        return ""
    copied = _copied(run, event) if event.task.kind == TaskKind.TRAIN and isinstance(event, UpdateStored) else ""
    return COPIED.format(copied) if copied else _loss_objection(run, event.loss)


def _copied(run: Run, update: UpdateStored) -> str:
    """Say which model of this run an update is; empty where it is a new one."""
    if update.digest == update.task.base:
        return "this is the model that the site was given"
    if any(update.digest == other.digest for other in run.current.contributions):
        return "this is the model that another site has sent in this round"
    if update.digest == run.layout or any(update.digest in some for some in (*run.earlier_models, run.current.models)):
        return "this is an earlier model of this run"
    return ""


def _loss_objection(run: Run, loss: float) -> str:
    """Nt-xent is minus the logarithm of a share; dcl may be negative (see fedcervix.core.plan)."""
    negative = run.plan.recipe.loss == "nt-xent" and loss < -NEGATIVE_LOSS_MAX
    return NEGATIVE_LOSS.format(loss) if negative else ""
