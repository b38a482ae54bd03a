"""How much room a run takes on a site's disk: the most that lies there at once, and what stays when it is over.

It follows from which files a site keeps and when it lets go of them:

    after a score      the model that was scored                          (`JobRunner._retire`)
    before a training  in a ring, the model of the site before it, too
    in a training      two checkpoints, for the moment in which the newer one replaces the older one
    after a training   the model that was made, what is packed, masked or sealed of it, and the last checkpoint
    before a score     what the training began with, what came of it, and the new model as it came
    at the end         the run's model in the blob store and its copy below models/
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.core.compression import ROUNDS_CARRIED
from fedcervix.core.plan import Plan

OWN_KEPT = 2
"""files of what does not travel: of the last rounds in which the site took part (`site_agent.worker.tasks`)"""
CHECKPOINTS_MOST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBytes:
    """Lengths of the files of a run, in bytes; 0 for what the plan does not make."""

    model: int
    packed: int = 0
    """of a model's packed form"""
    residual: int = 0
    """of what int8 rounds away"""
    vector: int = 0
    """of a secure sum: what a site uploads, a holder's masks, a sum"""
    own: int = 0
    """of what does not travel: batch-norm values, momentum"""
    checkpoint: int = 0

    @property
    def travels(self) -> int:
        """Length of what comes or leaves in place of a model."""
        return self.packed or self.vector or self.model


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """What a run adds to a home folder, in bytes."""

    most: int
    """at once"""
    left: int
    """when the run is over"""


def disk_need(plan: Plan, site: str, size: FileBytes, checkpoints: int) -> DiskNeed:
    """Return the room that models and checkpoints of a run take. `checkpoints`: that one training makes."""
    before = _before(plan, site, size)
    lasting = OWN_KEPT * size.own + ROUNDS_CARRIED * size.residual
    last_checkpoint = min(checkpoints, 1) * size.checkpoint
    arrives = _arrives(plan, size)
    to_score = 0 if _has_the_result(plan, site) else arrives + size.model
    moments = (
        before + min(checkpoints, CHECKPOINTS_MOST) * size.checkpoint,
        before + last_checkpoint + size.model + max(size.own, _made(plan, size)),
        _delivered(plan, size) + last_checkpoint + to_score,
        _past(plan, size) + size.model + arrives + 2 * size.model,
    )
    left = _past(plan, size) + 2 * size.model
    return DiskNeed(max(moments) + lasting, left + lasting)


def _past(plan: Plan, size: FileBytes) -> int:
    """Return what secure sums keep of the round before: its update, its first model, with momentum one more."""
    return (2 + bool(plan.terms.server_momentum)) * size.model if plan.terms.secure_sum else 0


def _before(plan: Plan, site: str, size: FileBytes) -> int:
    """Return what is there when a training begins: the model that was scored; in a ring what came from another site."""
    follows = plan.mode_rules.in_turns and site != plan.sites[0]
    return size.model + _past(plan, size) + (_arrives(plan, size) + size.model if follows else 0)


def _arrives(plan: Plan, size: FileBytes) -> int:
    """Return what comes beside a model that is fetched: what it is made from."""
    sealed = (size.packed or size.model) if plan.terms.sealed else 0
    return size.packed + size.vector + sealed


def _made(plan: Plan, size: FileBytes) -> int:
    """Return what is made of a trained model, beside it, at most at once."""
    rounded = size.packed + size.model + size.residual if size.packed else 0
    sealed = (size.packed or size.model) if plan.terms.sealed else 0
    return rounded + sealed + 2 * size.vector  # the vector without its masks, and with them


def _delivered(plan: Plan, size: FileBytes) -> int:
    """Return what is there when an update was delivered: what training began with, the update, and what travelled."""
    travelled = size.travels if plan.terms.sealed or size.travels != size.model else 0
    momentum = size.model if plan.terms.secure_sum and plan.terms.server_momentum else 0
    return 2 * size.model + travelled + momentum


def _has_the_result(plan: Plan, site: str) -> bool:
    """Say whether a site made the model that all score: the last one in a ring without an average."""
    return plan.mode_rules.in_turns and not plan.averages and site == plan.sites[-1]
