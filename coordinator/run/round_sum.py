"""The coordinator's own work where the plan has secure sums: the sum is opened, and the average derived from it.

It follows from the run and its files alone. Made again after a kill, it gives the same files.
"""

from __future__ import annotations

from dataclasses import replace

from coordinator.run.round_average import momentum
from fedcervix.core.events import AggregateStored
from fedcervix.core.rounds.coordinator_work import AverageWork
from fedcervix.core.rounds.state import Run
from fedcervix.models.blobs import BlobStore
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import open_sum
from fedcervix.models.weights import Layout
from fedcervix.trust.fixed_point import Share


def sum_round(run: Run, blobs: BlobStore, layout: Layout, work: AverageWork, at: float) -> AggregateStored:
    """Store the round's sum and its average. Raises RemoteError where there is none, ModelError, StorageError."""
    total, average = (blobs.scratch(f"{name}-{work.round}") for name in ("sum", "aggregate"))
    masked = [blobs.path(digest) for digest, _ in work.updates]
    releases = [blobs.path(release.masks) for release in run.current.releases]
    opened = open_sum(masked, releases, total, layout)
    blobs.adopt(total, opened)
    carried = momentum(run.plan, blobs, work)
    base, rule = blobs.path(work.base), run.plan.terms.batch_norm
    derived = derive(blobs.path(opened), base, average, summed(run), rule, carried, round_=work.round)
    blobs.adopt(average, derived.digest)
    of_sum = AggregateStored(work.round, derived.digest, at, attempt=work.attempt, total=opened)
    return replace(of_sum, summed_norm=derived.norm)


def summed(run: Run) -> Summed:
    """Return whose sum it is, and their share of the weights of all sites."""
    by_images = run.plan.terms.average == "by-images"
    weights = {opening.site: opening.images if by_images else 1 for opening in run.openings}
    here = [update.site for update in run.current.contributions]
    return Summed(Share(sum(weights[site] for site in here), sum(weights.values())), len(here))
