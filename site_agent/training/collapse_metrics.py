"""Collapse gauges: six numbers that say whether representations still tell images apart.

A contrastive loss can stand still for good reasons and for bad ones: rows that are all zero (dead ReLU), all alike,
or all on one line cost log(2N - 1) at worst and look like slow learning. The gauges name the case, and `alarms` says
in plain sentences what to try. They are computed on the representations as the loss sees them, rows i and i + n being
the two views of image i, and hold no more about the images than a mean does: they may leave a hospital.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcervix.core.collapse import collapse_loss
from fedcervix.core.plan import Loss
from site_agent.network.encoder import unit_rows

TINY = 1e-6
IMAGES_MAX = 1024
"""All pairs of rows are compared: more images would cost time and memory without moving the numbers."""

ZERO_ROWS_ALARM = 0.5
DEAD_UNITS_ALARM = 0.9
UNIT_STD_ALARM = 0.05
EFFECTIVE_RANK_ALARM = 1.5
LOSS_ALARM = 0.99


@dataclass(frozen=True, slots=True)
class Gauges:
    """What `gauges` measures."""

    zero_rows: float
    """share of representations that are all zero; 0 is healthy"""
    dead_units: float
    """share of units that are zero for every image; some is normal after a ReLU"""
    unit_std: float
    """root of the total variance of the rows scaled to unit length: 1 spread out evenly, 0 all alike"""
    effective_rank: float
    """exponential of the entropy of the singular values (Roy and Vetterli 2007): 1 all on one line, 0 all zero"""
    alignment: float
    """mean squared distance of the two views of an image on the unit sphere (Wang and Isola 2020); small is good"""
    uniformity: float
    """log of the mean of exp(-2 d^2) over all pairs of images (ibid.): 0 all alike, about -4 at the very best"""


def gauges(f: Tensor) -> Gauges:
    """Measure (2n, D) representations, rows i and i + n being two views of one image; at most the last 1024 images."""
    rows = _last_images(f.detach()).double()
    units = unit_rows(rows)
    one, two = units.chunk(2)
    return Gauges(
        zero_rows=_share(rows.norm(dim=1) <= TINY),
        dead_units=_share(rows.abs().amax(dim=0) <= TINY),
        unit_std=float(units.var(dim=0, correction=0).sum().sqrt()),
        effective_rank=_effective_rank(rows),
        alignment=float((one - two).square().sum(dim=1).mean()),
        uniformity=(_uniformity(one) + _uniformity(two)) / 2,
    )


def alarms(found: Gauges, loss: float, n: int, kind: Loss = "nt-xent") -> list[str]:
    """Return what is wrong and what to try, one sentence each; nothing if nothing is. `n` images made a batch.

    On few images the gauges of the first validations lag behind those of training: batch norm's running statistics
    take some fifty steps to settle.
    """
    guessing = collapse_loss(n, kind) if n > 1 else math.inf
    checks = (
        (
            found.zero_rows > ZERO_ROWS_ALARM,
            f"{found.zero_rows:.0%} of the representations are all zero (dead ReLU): they receive no gradient",
            "try a lower learning rate, head = linear, or another seed",
        ),
        (
            found.dead_units > DEAD_UNITS_ALARM,
            f"{found.dead_units:.0%} of the units are zero for every image",
            "try a lower learning rate, a wider head, or head = linear",
        ),
        (
            found.unit_std < UNIT_STD_ALARM,
            f"all images have nearly the same representation (spread {found.unit_std:.3f} of 1)",
            "try a lower learning rate, stronger augmentation, or check that the images differ",
        ),
        (
            0 < found.effective_rank < EFFECTIVE_RANK_ALARM,
            f"the representations lie on one line (effective rank {found.effective_rank:.1f})",
            "try a lower learning rate, more images in a batch, or head = mlp",
        ),
        (
            loss >= LOSS_ALARM * guessing > 0,
            f"the loss {loss:.3f} is not better than guessing ({guessing:.3f}) at {n} images in a batch",
            "if this continues, try another learning rate or weaker augmentation",
        ),
    )
    return [f"{what}: {advice}." for wrong, what, advice in checks if wrong]


def _last_images(f: Tensor) -> Tensor:
    one, two = f.chunk(2)
    return torch.cat([one[-IMAGES_MAX:], two[-IMAGES_MAX:]])


def _share(marks: Tensor) -> float:
    return float(marks.double().mean())


def _effective_rank(rows: Tensor) -> float:
    squares = torch.linalg.eigvalsh(rows.T @ rows).clamp_min(0)  # (D,) squared singular values
    singular = squares.sqrt()
    singular = singular[singular > TINY * singular.amax()]
    if len(singular) == 0:
        return 0.0
    shares = singular / singular.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def _uniformity(units: Tensor) -> float:
    """Return it for one view of every image: an image's own other view would come near it, however the images lie."""
    lengths, n = units.square().sum(dim=1), len(units)
    if n < 2:
        return 0.0  # one image is all in one place
    squares = (lengths[:, None] + lengths - 2 * units @ units.T).clamp_min(0)  # (n, n); 0 to itself
    nearness = squares.mul(-2).exp().sum() - n
    return float((nearness / (n * (n - 1))).log())
