"""Names and shapes of the tensors of a plan's network, without torch, as `site_agent.network.encoder` builds it."""

from __future__ import annotations

from collections.abc import Callable

from fedcervix.core import efficientnet_lite0
from fedcervix.core.plan import Architecture, Recipe

Shapes = dict[str, tuple[int, ...]]


def network(recipe: Recipe) -> Shapes:
    """Return names and shapes of the tensors of a recipe's network."""
    shapes, features = BACKBONES[recipe.architecture]()
    head = _linear("head.0", features, recipe.width)
    if recipe.head == "mlp":
        head = {
            **_linear("head.0", features, features),
            **_norm("head.1", features),
            **_linear("head.3", features, recipe.width),
        }
    return {f"backbone.{name}": shape for name, shape in shapes.items()} | head


def _resnet(blocks: tuple[int, ...], kernels: tuple[int, ...], expansion: int) -> tuple[Shapes, int]:
    """Return the tensors of a ResNet and its number of features.

    `kernels`: of the convolutions of one block; `expansion`: channels of its last one over those of its others.
    """
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    channels = 64
    for layer, count in enumerate(blocks):
        width = 64 * 2**layer
        for block in range(count):
            name = f"layer{layer + 1}.{block}"
            shapes |= _block(name, (channels, width, width * expansion), kernels, first=block == 0)
            channels = width * expansion
    return shapes, channels


def _block(name: str, channels: tuple[int, int, int], kernels: tuple[int, ...], *, first: bool) -> Shapes:
    """Return the tensors of a residual block; the first of a layer adapts its shortcut where the channels change.

    `channels`: entering, inside, leaving.
    """
    entering, width, leaving = channels
    shapes: Shapes = {}
    inside = entering
    for number, side in enumerate(kernels, 1):
        after = leaving if number == len(kernels) else width
        shapes |= {f"{name}.conv{number}.weight": (after, inside, side, side), **_norm(f"{name}.bn{number}", after)}
        inside = after
    if first and entering != leaving:
        shapes |= {f"{name}.downsample.0.weight": (leaving, entering, 1, 1), **_norm(f"{name}.downsample.1", leaving)}
    return shapes


def _efficientnet_lite0() -> tuple[Shapes, int]:
    stem, features = efficientnet_lite0.STEM_CHANNELS, efficientnet_lite0.FEATURES
    blocks = [*efficientnet_lite0.blocks()]
    shapes: Shapes = {"_conv_stem.weight": (stem, 3, 3, 3), **_norm("_bn0", stem)}
    for number, block in enumerate(blocks):
        name = f"_blocks.{number}."
        if block.widens:
            shapes |= {f"{name}_expand_conv.weight": (block.inner, block.entering, 1, 1)}
            shapes |= _norm(f"{name}_bn0", block.inner)
        shapes |= {f"{name}_depthwise_conv.weight": (block.inner, 1, block.kernel, block.kernel)}
        shapes |= _norm(f"{name}_bn1", block.inner)
        shapes |= {f"{name}_project_conv.weight": (block.leaving, block.inner, 1, 1)}
        shapes |= _norm(f"{name}_bn2", block.leaving)
    return {**shapes, "_conv_head.weight": (features, blocks[-1].leaving, 1, 1), **_norm("_bn1", features)}, features


BACKBONES: dict[Architecture, Callable[[], tuple[Shapes, int]]] = {
    "resnet18": lambda: _resnet((2, 2, 2, 2), (3, 3), 1),
    "resnet50": lambda: _resnet((3, 4, 6, 3), (1, 3, 1), 4),
    "efficientnet_lite0": _efficientnet_lite0,
}
"""tensors and number of features of what stands below the dense layer"""


def _norm(name: str, channels: int) -> Shapes:
    values = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
    return {f"{name}.{value}": shape for value, shape in values.items()} | {f"{name}.num_batches_tracked": ()}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
