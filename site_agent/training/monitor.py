"""What is said of an epoch: whether it learns, whether it is healthy, how long the rest takes.

Pure functions from what was measured to lines of text; whoever trains decides where they go. The loss stands beside
the line log(2N - 1), which representations that tell nothing apart would cost: a loss means nothing without it.
"""

from __future__ import annotations

import math

from fedcervix.core.collapse import collapse_loss
from fedcervix.core.plan import Recipe
from site_agent.store.audit_sheets import verdict
from site_agent.store.task_results import ScoreResult, TrainResult
from site_agent.training.collapse_metrics import Gauges, alarms
from site_agent.training.loop import Epoch


def epoch_line(epoch: Epoch, recipe: Recipe, *, seconds: float, timed_epochs: int | None = None) -> list[str]:
    """Return one line about the epoch, then one line per alarm of its gauges on the validation images.

    `seconds` is what the epochs took so far, validation included; `timed_epochs` is how many these were, where a
    resumed training did not time them all.
    """
    train = epoch.train
    said = [
        f"loss {train.loss:.4f} (collapsed: {collapse_loss(recipe.batch_images, recipe.loss):.4f})",
        f"validation {epoch.valid.loss:.4f}",
        *_spread(epoch.valid.gauges),
        *([] if epoch.knn_auc is None else [f"k-NN AUC {epoch.knn_auc:.3f}"]),
        f"{images_per_s(epoch):.0f} images/s",
        *_left(recipe.epochs_max - train.epoch, seconds / (timed_epochs or train.epoch)),
    ]
    line = f"epoch {train.epoch} of {recipe.epochs_max}: {', '.join(said)}"
    return [line, *alarms(epoch.valid.gauges, epoch.valid.loss, recipe.batch_images, recipe.loss)]


def round_lines(result: TrainResult | ScoreResult, recipe: Recipe) -> tuple[str, ...]:
    """Return what a federation's task gave at this site, as one line, then one line per alarm of its gauges."""
    gauges, loss = Gauges(**result.gauges), result.loss
    if isinstance(result, TrainResult):
        name, more, audit = "loss", [result.precision], result.audit
    else:
        name, more, audit = "validation", [] if result.knn_auc is None else [f"k-NN AUC {result.knn_auc:.3f}"], None
    collapse = collapse_loss(recipe.batch_images, recipe.loss)
    said = [f"{name} {loss:.4f} (collapsed: {collapse:.4f})", *_spread(gauges), *more]
    audited = [f"audit: {verdict(audit)}"] if audit else []
    return (", ".join(said), *alarms(gauges, loss, recipe.batch_images, recipe.loss), *audited)


def _spread(gauges: Gauges) -> list[str]:
    return [
        f"alignment {gauges.alignment:.3f}",
        f"uniformity {gauges.uniformity:.3f}",
        f"effective rank {gauges.effective_rank:.1f}",
    ]


def images_per_s(epoch: Epoch) -> float:
    """Return how many images a second the epoch trained on; 0 where the clock saw no time pass."""
    return epoch.train.images / epoch.train.seconds if epoch.train.seconds > 0 else 0.0


def clock_time(seconds: float) -> str:
    """Return a duration as h:mm:ss, begun seconds counting whole: 0:01:05, 31:00:00."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _left(epochs: int, epoch_s: float) -> list[str]:
    """Say how long the rest takes at the mean pace; at most, because patience may end the training earlier."""
    return [f"at most {clock_time(epochs * epoch_s)} left"] if epochs > 0 else []
