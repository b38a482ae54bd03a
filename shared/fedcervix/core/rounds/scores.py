"""Which round has the best model: by the mean validation loss over the sites."""

from __future__ import annotations

from collections.abc import Iterable

from fedcervix.core.rounds.coordinator_work import capped
from fedcervix.core.rounds.state import Round, Run

MEASURE_MAX = 1e280
"""of a loss in a mean: old journals hold some that were not bounded on receipt, and a sum of these is no number"""


def mean_loss(run: Run, round_: Round, sites: Iterable[str]) -> float:
    """Return the mean validation loss of a round's model over `sites`, with the same weights as the average."""
    wanted = set(sites)
    scores = [score for score in round_.scores if score.site in wanted]
    weights = [1.0 for _ in scores]
    if run.plan.terms.average == "by-images":
        weights = capped([float(score.images) for score in scores], run.plan.terms.share_max)
    losses = [max(-MEASURE_MAX, min(score.loss, MEASURE_MAX)) for score in scores]
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)


def improves(run: Run) -> bool:
    """Say whether the current round's model is better than the best so far, on the sites that scored both."""
    if run.best_round == 0:
        return True
    both = {score.site for score in run.current.scores} & {score.site for score in run.best.scores}
    return not both or mean_loss(run, run.current, both) < mean_loss(run, run.best, both)
