"""From what was read of a site's home to measured values. Pure: no clock, disk or network.

What a site knows besides (women, images, labels, paths, the text of an error) is no metric: here is nothing that
`SeenSite` has in words, but names of its run and its GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedcervix.core.collapse import collapse_loss
from fedcervix.core.rounds.state import Outcome
from fedcervix.monitoring.declared import Sample
from fedcervix.monitoring.home_metrics import HomeFacts, Validity, of_home
from site_agent.federation.activity import STATES, Doing
from site_agent.monitoring import names
from site_agent.page.gpus import Gpu
from site_agent.page.seen import SeenRun, SeenSite

ROLE = "agent"


def fixed(seen: SeenSite) -> dict[str, str]:
    """Return the labels that all samples have."""
    return {"federation": seen.federation, "site": seen.name}


def measured(seen: SeenSite) -> Iterator[Sample]:
    """Yield all values."""
    yield from of_home(ROLE, _home(seen))
    yield names.UP.of(seen.alive)
    yield names.INCIDENT.of(seen.incident_at or None)
    yield names.UNREADABLE.of(len(seen.faults))
    if seen.doing is not None and seen.alive:
        yield from _of_agent(seen.doing)
    if seen.run is not None:
        yield from _of_run(seen.run)
    yield names.ROUND.of(_round(seen))
    if seen.egress is not None:
        yield names.SENT_BYTES.of(seen.egress.all.bytes)
        yield names.SENT_MODELS.of(seen.egress.all.models)
        yield names.SENT_REPORTS.of(seen.egress.all.reports)
    for gpu in () if seen.gpus_silent_s else seen.gpus:
        yield from _of_gpu(gpu)


def _home(seen: SeenSite) -> HomeFacts:
    owners = {"this site": ("site", seen.name)}
    return HomeFacts(
        now=seen.at,
        certificates=tuple(
            Validity(*owners.get(one.title, ("authority", seen.name)), one.not_before, one.not_after)
            for one in seen.certificates
        ),
        disk_free_bytes=seen.disk.free_bytes if seen.disk else None,
        disk_size_bytes=seen.disk.total_bytes if seen.disk else None,
    )


def _of_agent(doing: Doing) -> Iterator[Sample]:
    yield names.CONNECTED.of(doing.connected)
    yield names.LINE_SINCE.of(doing.line_since or None)
    yield names.TROUBLE.of(doing.in_trouble)
    yield from names.STATE.among(STATES, doing.state)
    yield names.STATE_SINCE.of(doing.since or None)
    yield names.PROGRESS.of(min(1.0, doing.done / doing.of) if doing.of else None)
    yield names.SPEED.of(doing.images_per_s or None)
    yield names.HEARD.of(doing.heard_at or None)


def _round(seen: SeenSite) -> int | None:
    """Return the round in work, or the last one of which something is known."""
    if seen.alive and seen.doing is not None and seen.doing.round:
        return seen.doing.round
    history = seen.run.history if seen.run else None
    return max((*history.train, *history.score), default=None) if history else None


def _of_run(run: SeenRun) -> Iterator[Sample]:
    plan, history = run.plan, run.history
    yield names.RUN.of(1, run.name, plan.mode, plan.profile, plan.digest)
    if run.outcome in set(Outcome):
        yield from names.OUTCOME.among(Outcome, run.outcome)
    if plan.recipe.batch_images > 1:
        yield names.COLLAPSE_LOSS.of(collapse_loss(plan.recipe.batch_images, plan.recipe.loss))
    if history.train:
        trained = history.train[max(history.train)]
        yield names.TRAINING_LOSS.of(trained.loss)
        yield names.TRAINING_TIME.of(trained.seconds)
        yield names.IMAGES.of(trained.images)
    if history.score:
        scored = history.score[max(history.score)]
        yield names.VALIDATION_LOSS.of(scored.loss)
        for gauge, metric in names.GAUGES.items():
            yield metric.of(scored.gauges.get(gauge))


def _of_gpu(gpu: Gpu) -> Iterator[Sample]:
    """What a GPU, or a part of a divided one, does not tell is left out."""
    yield names.GPU_BUSY.of(gpu.busy, gpu.name)
    yield names.GPU_MEMORY_USED.of(gpu.memory_used_bytes, gpu.name)
    yield names.GPU_MEMORY.of(gpu.memory_bytes, gpu.name)
    yield names.GPU_TEMPERATURE.of(gpu.degrees, gpu.name)
