"""Which of several combinations of N, width and E validation prefers: one rule, for a site's sweep and for a study."""

from __future__ import annotations


def preference(
    validation_loss: float, *, width: int | None, batch_images: int | None, epochs_per_round: int | None = None
) -> tuple[float, int, int, int]:
    """Return the key by which combinations are sorted; the first one is chosen.

    It is the lowest validation loss of the classifier (nats per image). Of equal ones it is the smallest width, then N,
    then E. None where a start has no such setting.
    """
    return validation_loss, width or 0, batch_images or 0, epochs_per_round or 0
