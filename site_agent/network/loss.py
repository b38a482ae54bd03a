"""The contrastive loss: Eq. 1 of the paper (NT-Xent), and its decoupled variant.

Both take f, (2N, D): rows 0..N-1 are the first views of N images, rows N..2N-1 the second views in the same order.
Rows are used as they are; `encoder.unit_rows` scales them to unit length where the recipe says so. Half precision is
widened first: exp(f.f / 0.1) needs the digits.

`women`, (N,) numbers, says whose image each is. Where it is given, no view of a woman is a negative of another one of
hers: such terms are left out of the sum. So a sum may have fewer terms; a row without negatives costs 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fedcervix.core.plan import Loss
from fedcervix.errors import TrainingError


def nt_xent(f: Tensor, temperature: float, women: Tensor | None = None) -> Tensor:
    """Return Eq. 1 averaged over all 2N ordered pairs (section II-A), a scalar."""
    return nt_xent_rows(f, temperature, women).mean()


def nt_xent_rows(f: Tensor, temperature: float, women: Tensor | None = None) -> Tensor:
    """Return Eq. 1 of each of the 2N ordered pairs: (2N,).

    L_ij = -log( exp(f_i.f_j / tau) / sum_{k != i} exp(f_i.f_k / tau) ). The printed sum runs over `i`, a misprint
    for `k`. N = 1 gives exactly 0: the positive is the only term of the sum.
    """
    logits = _similarities(f, temperature)  # (2N, 2N)
    own = _self(logits)
    left_out = own if women is None else own | (_hers(women) & ~_pair(own))
    others = logits.masked_fill(left_out, -math.inf)
    return torch.logsumexp(others, dim=1) - _positives(logits)


def dcl(f: Tensor, temperature: float, women: Tensor | None = None) -> Tensor:
    """Return the decoupled contrastive loss averaged over all 2N ordered pairs, a scalar. Raises TrainingError."""
    return dcl_rows(f, temperature, women).mean()


def dcl_rows(f: Tensor, temperature: float, women: Tensor | None = None) -> Tensor:
    """Return the decoupled contrastive loss, Eq. 1 without the positive in its sum, of each ordered pair: (2N,).

    Source: Yeh et al., Decoupled Contrastive Learning, 2021; helpful at small N. Raises TrainingError for N = 1.
    """
    if len(f) < 4:
        raise TrainingError(
            "the decoupled loss needs at least two images in a batch",
            cause="a batch of one image has no negatives",
            next_step="set batch_images to 2 or more",
        )
    logits = _similarities(f, temperature)
    own = _self(logits)
    left_out = own | _pair(own)
    if women is None:
        return torch.logsumexp(logits.masked_fill(left_out, -math.inf), dim=1) - _positives(logits)
    left_out = left_out | _hers(women)
    alone = left_out.all(dim=1)
    negatives = logits.masked_fill(left_out & ~alone[:, None], -math.inf)
    return (torch.logsumexp(negatives, dim=1) - _positives(logits)).masked_fill(alone, 0)


LOSSES: dict[Loss, Callable[..., Tensor]] = {"nt-xent": nt_xent, "dcl": dcl}
ROW_LOSSES: dict[Loss, Callable[..., Tensor]] = {"nt-xent": nt_xent_rows, "dcl": dcl_rows}


def _similarities(f: Tensor, temperature: float) -> Tensor:
    """Return f_i.f_k / tau for all pairs of the (2N, D) rows: (2N, 2N), float32 or better, in one matmul."""
    if len(f) < 2 or len(f) % 2:
        raise ValueError(f"rows come in pairs, two views of every image; found {len(f)} rows")
    with torch.autocast(f.device.type, enabled=False):
        rows = f.to(torch.promote_types(f.dtype, torch.float32))
        return rows @ rows.T / temperature


def _self(logits: Tensor) -> Tensor:
    """Return the mask of k = i."""
    return torch.eye(len(logits), dtype=torch.bool, device=logits.device)


def _pair(own: Tensor) -> Tensor:
    """Return the mask of the positives, from that of k = i."""
    return own.roll(len(own) // 2, dims=1)


def _hers(women: Tensor) -> Tensor:
    """Return the mask of all views of row i's own woman: (2N, 2N)."""
    whose = women.repeat(2)
    return whose[:, None] == whose


def _positives(logits: Tensor) -> Tensor:
    """Return the similarity of every row to the other view of its image: (2N,)."""
    n = len(logits) // 2
    return torch.cat([logits.diagonal(n), logits.diagonal(-n)])
