"""Augmentation: one 2x3 matrix per image, one sampling pass, one pointwise pass.

Section II-C: "flip (horizontal and vertical) axis, rotation, random shift, and random zoom, gamma changing, and
brightness changing". No colour jitter, no blur, no crop-and-resize.

Rules
1. Every image of a batch has its own parameters (a library transform on a batch would draw one set for all).
2. Parameters are drawn on the CPU from a given generator, so that a CPU and a GPU see the same views.
3. Drawing (`draw`) and applying (`augment`) are separate; the second is a pure function of images and draws.
4. What the device needs is one small tensor (`pack`), so that a batch's draws reach a GPU in one copy.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcervix.core.plan import Augment

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PACKED = 8
"""numbers of one augmentation, as `pack` arranges them for `apply`: six of the matrix, gamma, brightness"""


@dataclass(frozen=True, slots=True)
class AugmentationDraws:
    """The parameters of `count` augmentations: (count,) CPU tensors. Applied in this order."""

    flip_h: Tensor
    """bool: mirror left and right"""
    flip_v: Tensor
    """bool: mirror top and bottom"""
    angle_rad: Tensor
    """rotation about the centre, clockwise as seen"""
    zoom: Tensor
    """magnification about the centre; above 1 enlarges"""
    shift_x: Tensor
    """to the right, as a fraction of the width"""
    shift_y: Tensor
    """downwards, as a fraction of the height"""
    gamma: Tensor
    """exponent on intensities"""
    brightness: Tensor
    """factor on intensities"""

    def select(self, which: Tensor) -> AugmentationDraws:
        """Return the parameters at the given (m,) indices."""
        return AugmentationDraws(**{field.name: getattr(self, field.name)[which] for field in dataclasses.fields(self)})


def draw(count: int, settings: Augment, generator: torch.Generator) -> AugmentationDraws:
    """Draw the parameters of `count` augmentations, each its own, uniformly from the ranges of `settings`."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    turn = math.radians(settings.rotation_deg)
    safe = settings.colour == "acetic-safe"
    brightest = 1.0 if safe else 1 + settings.brightness
    gammas = (1.0, 1.0) if safe else (settings.gamma_min, settings.gamma_max)
    return AugmentationDraws(
        flip_h=uniform(0, 1) < settings.flip_horizontal,
        flip_v=uniform(0, 1) < settings.flip_vertical,
        angle_rad=uniform(-turn, turn),
        zoom=uniform(settings.zoom_min, settings.zoom_max),
        shift_x=uniform(-settings.shift, settings.shift),
        shift_y=uniform(-settings.shift, settings.shift),
        gamma=uniform(*map(math.log, gammas)).exp(),
        brightness=uniform(1 - settings.brightness, brightest),
    )


def join(parts: Sequence[AugmentationDraws]) -> AugmentationDraws:
    """Put the parameters of several draws behind one another."""
    names = [field.name for field in dataclasses.fields(AugmentationDraws)]
    return AugmentationDraws(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def augment(images: Tensor, draws: AugmentationDraws) -> Tensor:
    """Augment (B, 3, H, W) floats in [0, 1], image i by parameters i; the same shape, again in [0, 1]."""
    return apply(images, pack(draws, images.shape[2], images.shape[3]).to(images))


def pack(draws: AugmentationDraws, height: int, width: int) -> Tensor:
    """Return what `apply` takes, (B, PACKED) on the CPU: the matrix row by row, gamma, brightness."""
    matrices = _matrices(draws, height, width).flatten(1)  # (B, 6)
    return torch.cat([matrices, draws.gamma[:, None], draws.brightness[:, None]], dim=1)


def apply(images: Tensor, packed: Tensor) -> Tensor:
    """Augment (B, 3, H, W) floats in [0, 1] by (B, PACKED) of `pack`, on the images' device; again in [0, 1].

    Bilinear sampling; what lies beyond the border is the reflected image, so that no black corner tells the
    network which view is the augmented one.
    """
    theta = packed[:, :6].view(-1, 2, 3)
    gamma, brightness = packed[:, 6].view(-1, 1, 1, 1), packed[:, 7].view(-1, 1, 1, 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # (B, H, W, 2)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # x^gamma by way of its logarithm takes a quarter of the time of `pow`; zero stays zero.
    return moved.clamp_(0, 1).log_().mul_(gamma).exp_().mul_(brightness).clamp_(0, 1)


def to_input(pixels: Tensor) -> Tensor:
    """Turn (B, H, W, 3) bytes into (B, 3, H, W) float32 in [0, 1], colour by colour.

    What is done to each colour by itself is five times as fast in this order as with the colours side by side.
    """
    planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.div_(255)


def standardise(images: Tensor) -> Tensor:
    """Turn (B, 3, H, W) in [0, 1] into the network's input: less ImageNet's mean colour, over its deviation."""
    mean, std = _colours(images.device, images.dtype)
    return (images - mean).div_(std)


@functools.cache
def _colours(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return mean and deviation, (1, 3, 1, 1) each, on the device: a CUDA graph may copy nothing to it."""
    mean, std = (torch.tensor(c, dtype=dtype, device=device).view(1, 3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def _matrices(draws: AugmentationDraws, height: int, width: int) -> Tensor:
    """Return (B, 2, 3): where each output point is read from, in coordinates from -1 to 1 on either axis.

    An output point p shows the input point  flip . turn(-angle) . (p - shift) / zoom. The turn is made in
    pixels, where a right angle is one: hence the two aspect ratios (an oblong image is turned, not sheared).
    """
    cos, sin = torch.cos(draws.angle_rad) / draws.zoom, torch.sin(draws.angle_rad) / draws.zoom
    turn = torch.stack([cos, sin * (height / width), -sin * (width / height), cos], dim=1).view(-1, 2, 2)
    flip = 1 - 2 * torch.stack([draws.flip_h, draws.flip_v], dim=1).float()  # (B, 2) of +-1
    linear = flip[:, :, None] * turn
    shift = 2 * torch.stack([draws.shift_x, draws.shift_y], dim=1)  # fractions of the side, which is 2 long
    return torch.cat([linear, -linear @ shift[:, :, None]], dim=2)
