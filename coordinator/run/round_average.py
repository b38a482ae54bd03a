"""The coordinator's own work: a round's updates are measured and averaged. It follows from the run and its files alone.

Made again after a kill, it gives the same files.
"""

from __future__ import annotations

from dataclasses import replace

from fedcervix.core.events import AggregateStored, UpdateStored
from fedcervix.core.measures import Measures, clip_scales
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.coordinator_work import AverageWork
from fedcervix.core.rounds.state import Run
from fedcervix.models.aggregate import Clip, Momentum, aggregate
from fedcervix.models.blobs import BlobStore
from fedcervix.models.rounding import Rounded, round_model
from fedcervix.models.step_similarity import measure_steps
from fedcervix.models.weights import Layout, read_layout


def average_round(run: Run, blobs: BlobStore, layout: Layout, work: AverageWork, at: float) -> AggregateStored:
    """Store the round's average; return it with what was measured of each site's update.

    Raises RemoteError where the updates have no average, ModelError where the round cannot have one, StorageError.
    """
    measures = _measured(run, blobs, layout, work)
    scales = clip_scales([found.norm for _, found in measures], run.plan.terms.clip)
    made = average(run.plan, blobs, replace(work, scales=tuple(scales)))
    return AggregateStored(work.round, made.digest, at, made.packed, made.residual, work.attempt, measures)


def average(plan: Plan, blobs: BlobStore, work: AverageWork) -> Rounded:
    """Average the round's updates (paper, II-B: "we use weight averaging for model aggregation"). Raises as above."""
    updates = [(blobs.path(digest), weight) for digest, weight in work.updates]
    output = blobs.scratch(f"aggregate-{work.round}")
    layout = read_layout(blobs.path(work.layout))
    rule, carried = plan.terms.batch_norm, momentum(plan, blobs, work)
    clip = Clip(blobs.path(work.base), work.scales) if work.scales else None
    digest = aggregate(updates, layout, output, rule, carried, clip=clip, trimmed=work.trimmed)
    if work.compression == "none":
        blobs.adopt(output, digest)
        return Rounded(digest)
    made = round_model(blobs, output, work.compression, work.base, work.residual, name=f"average-{work.round}")
    output.unlink()
    return made


def momentum(plan: Plan, blobs: BlobStore, work: AverageWork) -> Momentum | None:
    """Return what server momentum adds to a round's average; None where it adds nothing."""
    if work.last_step is None:
        return None
    base, before = work.last_step
    return Momentum(plan.terms.server_momentum, blobs.path(base), blobs.path(before))


def _measured(run: Run, blobs: BlobStore, layout: Layout, work: AverageWork) -> tuple[tuple[str, Measures], ...]:
    """Return the measures of each site's update; the hops of a ring were measured when they came."""
    if run.plan.mode_rules.in_turns:
        return ()
    base = blobs.path(work.base)
    updates = [(blobs.path(digest), base) for digest, _ in work.updates]
    return tuple(zip(work.sites, measure_steps(updates, layout, run.plan.terms.batch_norm), strict=True))


def hop_measured(run: Run, blobs: BlobStore, layout: Layout, update: UpdateStored) -> Measures | None:
    """Measure the step of a ring's hop, beside that of the hop before it in this round. Raises StorageError."""
    if not run.plan.mode_rules.in_turns:
        return None
    hops = [(hop.digest, hop.task.base) for hop in (update, *run.current.contributions[-1:])]
    steps = [(blobs.path(digest), blobs.path(base)) for digest, base in hops]
    return measure_steps(steps, layout, run.plan.terms.batch_norm)[0]
