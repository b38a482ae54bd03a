"""What is said where the GPU's memory is too small for a mini-batch, and which smaller one would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fedcervix.core.plan import Recipe
from fedcervix.errors import TrainingError
from site_agent.network.devices import autocast, free_tensors, lacks_memory
from site_agent.network.encoder import Encoder
from site_agent.network.loss import LOSSES
from site_agent.network.views import views


@contextmanager
def memory_explained(explanation: Callable[[], TrainingError]) -> Iterator[None]:
    """Raise what `explanation` returns where the memory is too small for the block; other errors pass."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        free_tensors(error)
        raise explanation() from error


def out_of_memory(
    images: int, recipe: Recipe, setting: str, *, fits: Callable[[int], bool] | None = None, then: str = ""
) -> TrainingError:
    """Return what to tell the operator when a batch of `images` does not fit: also which value of `setting` would.

    `fits` tries one; None where nothing can be tried (in a team the others do not take part). `then` is said last.
    """
    smaller = images // 2
    while fits and smaller >= 2 and not fits(smaller):
        smaller //= 2
    advice = f"{setting} = {smaller} {'fits' if fits else 'may fit'}"
    if smaller < 2:
        advice = "not even two images fit: free the GPU (nvidia-smi)"
    halved = "; precision = bfloat16 halves what a batch needs" if recipe.precision == "float32" else ""
    return TrainingError(
        f"the GPU's memory is too small for {images} images of {recipe.image_px} px in a batch",
        cause="another process uses the GPU, or the recipe is too large for it",
        next_step=f"{advice}{halved}{then}",
    )


def fits(
    encoder: Encoder, recipe: Recipe, device: torch.device, inputs: Callable[[int], tuple[Tensor, ...]]
) -> Callable[[int], bool]:
    """Return a function that tries whether a batch of so many images fits; it changes no weight.

    `inputs` returns what a step takes, of a batch of that many (`steps.Step`).
    """

    def try_it(images: int) -> bool:
        torch.cuda.empty_cache()
        try:
            with autocast(device, recipe.precision):
                pixels, packed, *pairs = inputs(images)
                f = encoder(views(pixels, packed, *pairs[:1]))
            LOSSES[recipe.loss](f, recipe.temperature, *pairs[1:]).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            free_tensors(error)
            return False
        finally:
            encoder.zero_grad(set_to_none=True)
        return True

    return try_it
