"""The work of the coordinator itself: which updates are averaged, in which order, with which weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedcervix.core.measures import trimmed_per_side
from fedcervix.core.plan import Compression, Plan
from fedcervix.core.rounds.state import Phase, Round, Run


@dataclass(frozen=True, slots=True)
class AverageWork:
    """The coordinator's own work: average these updates, in this order, with these weights."""

    round: int
    layout: str
    updates: tuple[tuple[str, float], ...]
    last_step: tuple[str, str] | None
    """what server momentum carries on: see the function of this name"""
    compression: Compression = "none"
    """how the average is rounded"""
    base: str = ""
    """the model that the round began with, which the sites hold"""
    residual: str = ""
    """what was rounded away from the average before; empty where there is nothing"""
    attempt: int = 0
    """which average of the round this is"""
    sites: tuple[str, ...] = ()
    """whose updates they are"""
    trimmed: int = 0
    """how many values of each number are left out at either end"""
    scales: tuple[float, ...] = ()
    """by which factor each update's step is shortened; empty where none is. It follows from what is measured first"""


def coordinator_work(run: Run) -> AverageWork | None:
    """Return what the coordinator itself should be doing now."""
    if run.phase is not Phase.AGGREGATING or run.current.candidate:
        return None
    updates = tuple(zip((u.digest for u in run.current.contributions), weights(run.plan, run.current), strict=True))
    residual = run.rounds[-2].residual if len(run.rounds) > 1 else ""
    work = AverageWork(run.current.number, run.layout, updates, last_step(run))
    work = replace(work, compression=average_compression(run.plan), base=run.current.base, residual=residual)
    sites = tuple(update.site for update in run.current.contributions)
    return replace(work, attempt=run.current.attempt, sites=sites, trimmed=trimmed_per_side(run.plan.terms, len(sites)))


def average_compression(plan: Plan) -> Compression:
    """Return how an average is rounded. In a ring no model is at all sites, to which int8 could be the difference."""
    differs = plan.mode_rules.in_turns and plan.terms.compression == "int8"
    return "none" if differs else plan.terms.compression


def last_step(run: Run) -> tuple[str, str] | None:
    """Return the models that this round and the one before it began with, w_{t-1} and w_{t-2} of server momentum.

    None in the first round, after a round in which nobody counts, and where the plan has no momentum. It is what was
    published that counts, not which round was the best, nor who took part: training goes on from the last model,
    whatever its score.
    """
    if run.plan.terms.server_momentum == 0 or len(run.rounds) < 2 or run.rounds[-2].void:
        return None
    return run.current.base, run.rounds[-2].base


def weights(plan: Plan, round_: Round) -> list[float]:
    """Return the weight of each contribution in the average of a round; 1 where no average is made."""
    if not plan.averages or plan.terms.average == "equal":
        return [1.0 for _ in round_.contributions]
    return capped([float(update.images) for update in round_.contributions], plan.terms.share_max)


CAPPED_MIN = 3
"""Of two updates, nothing tells whether one is too large a share or the other too small."""


def capped(counts: list[float], share_max: float) -> list[float]:
    """Return counts of which none is more than `share_max` of their sum; fewer than three stay as they are.

    Only what is too large is made smaller: the others keep their counts, and so their proportions. Where even equal
    counts would be too large a share (`share_max` below 1 / K), all are equal.
    """
    if len(counts) < CAPPED_MIN or max(counts) <= share_max * sum(counts):
        return counts
    largest_first = sorted(counts, reverse=True)
    for large in range(1, len(counts)):
        left = 1 - large * share_max
        if left <= 0:
            break
        most = share_max * sum(largest_first[large:]) / left
        if largest_first[large] <= most:
            return [min(count, most) for count in counts]
    return [1.0 for _ in counts]
