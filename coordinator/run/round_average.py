"""The coordinator's own work: a round's updates are measured and averaged. It follows from the run and its files alone.

Made again after a kill, it gives the same files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedcervix.core.events import AggregateStored, UpdateStored
from fedcervix.core.measures import Measures, clip_scales
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.coordinator_work import AverageWork
from fedcervix.core.rounds.state import Run
from fedcervix.models.aggregate import Clip, Momentum, aggregate
from fedcervix.models.blobs import BlobStore
from fedcervix.models.rounding import Rounded, round_model
from fedcervix.models.step_similarity import Steps, measure_steps, steps_from
from fedcervix.models.weights import Layout, read_layout


def average_round(run: Run, blobs: BlobStore, layout: Layout, work: AverageWork, at: float) -> AggregateStored:
    """Store the round's average; return it with what was measured of each site's update.

    Raises RemoteError where the updates have no average, ModelError where the round cannot have one, StorageError.
    """
    if run.plan.mode_rules.in_turns:  # the hops of a ring were measured when they came
        return _stored(work, average(run.plan, blobs, work), (), at)
    base, terms = blobs.path(work.base), run.plan.terms
    if terms.clip or work.trimmed:
        found = measure_steps([(blobs.path(digest), base) for digest, _ in work.updates], layout, terms.batch_norm)
        scales = clip_scales([measures.norm for measures in found], terms.clip)
        made = average(run.plan, blobs, replace(work, scales=tuple(scales)))
    else:
        with steps_from(base, layout, len(work.updates)) as steps:
            made, found = average(run.plan, blobs, work, steps), steps.measures()
    return _stored(work, made, found, at)


def _stored(work: AverageWork, made: Rounded, found: Sequence[Measures], at: float) -> AggregateStored:
    measures = tuple(zip(work.sites, found, strict=True)) if found else ()
    return AggregateStored(work.round, made.digest, at, made.packed, made.residual, work.attempt, measures)


def average(plan: Plan, blobs: BlobStore, work: AverageWork, steps: Steps | None = None) -> Rounded:
    """Average the round's updates (paper, II-B: "we use weight averaging for model aggregation"). Raises as above.

    `steps` measures them meanwhile.
    """
    updates = [(blobs.path(digest), weight) for digest, weight in work.updates]
    output = blobs.scratch(f"aggregate-{work.round}")
    layout = read_layout(blobs.path(work.layout))
    rule, carried = plan.terms.batch_norm, momentum(plan, blobs, work)
    clip = Clip(blobs.path(work.base), work.scales) if work.scales else None
    digest = aggregate(updates, layout, output, rule, carried, clip=clip, trimmed=work.trimmed, steps=steps)
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


def hop_measured(run: Run, blobs: BlobStore, layout: Layout, update: UpdateStored) -> Measures | None:
    """Measure the step of a ring's hop, beside that of the hop before it in this round. Raises StorageError."""
    if not run.plan.mode_rules.in_turns:
        return None
    hops = [(hop.digest, hop.task.base) for hop in (update, *run.current.contributions[-1:])]
    steps = [(blobs.path(digest), blobs.path(base)) for digest, base in hops]
    return measure_steps(steps, layout, run.plan.terms.batch_norm)[0]
