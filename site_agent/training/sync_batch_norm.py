"""Batch norm over the joint batch of several processes: what one process would have computed on all of it.

On a GPU this is torch's SyncBatchNorm, which has no code for the CPU; there it is `JointBatchNorm1d` and `2d`. All
have the names, shapes and parameters of the layer they replace, so a state goes from one to the other as it is.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from site_agent.training.ddp import Team


def join_batch_norm(encoder: nn.Module, team: Team) -> None:
    """Let every batch-norm layer below `encoder` see the team's joint batch, in place; alone, nothing changes.

    Parameters and buffers stay the very same tensors (an optimiser made before goes on to work). Asking twice is
    asking once. An ordinary encoder that loads the state undoes it.
    """
    if team.alone:
        return
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d):
                setattr(parent, name, _joined(child, team))


def _joined(layer: nn.Module, team: Team) -> nn.Module:
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    if layer.weight.device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(layer)  # type: ignore[no-untyped-call]
        return synchronised
    kind = JointBatchNorm1d if isinstance(layer, nn.BatchNorm1d) else JointBatchNorm2d
    joint = kind(layer.num_features, layer.eps, layer.momentum)
    joint.size = team.size
    joint.weight, joint.bias = layer.weight, layer.bias
    joint.running_mean, joint.running_var = layer.running_mean, layer.running_var
    joint.num_batches_tracked = layer.num_batches_tracked
    return joint.train(layer.training)


class _JointBatchNorm(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001  (torch has no public name for it)
    size: int

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """Normalise; in training by the joint batch's statistics."""
        return _forward(self, input) if self.training else super().forward(input)


class JointBatchNorm1d(_JointBatchNorm, nn.BatchNorm1d):
    """Batch norm of (B, C) over the batches of all ranks."""


class JointBatchNorm2d(_JointBatchNorm, nn.BatchNorm2d):
    """Batch norm of (B, C, H, W) over the batches of all ranks."""


def _forward(layer: _JointBatchNorm, x: Tensor) -> Tensor:
    count = x.numel() // x.shape[1] * layer.size  # values per channel; every rank has as many
    y, mean, variance = _Normalise.apply(x, layer.weight, layer.bias, layer.eps, count, layer.size)
    _remember(layer, mean, variance * (count / max(1, count - 1)))
    joined: Tensor = y
    return joined


def _remember(layer: _JointBatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update the running statistics as torch does: the variance kept is the unbiased one."""
    assert layer.num_batches_tracked is not None
    assert layer.running_mean is not None
    assert layer.running_var is not None
    with torch.no_grad():
        layer.num_batches_tracked += 1
        factor = 1 / int(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
        layer.running_mean.mul_(1 - factor).add_(mean, alpha=factor)
        layer.running_var.mul_(1 - factor).add_(variance, alpha=factor)


class _Normalise(torch.autograd.Function):
    """x to (y, joint mean, joint variance); two small messages per layer and step, one each way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, count: int, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = _joint_moments(x.to(weight.dtype), size)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.count = count
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        around = _around(x)
        shape = [1, -1, *[1] * (x.ndim - 2)]
        dy = gradients[0].to(weight.dtype)
        unit = (x.to(weight.dtype) - mean.view(shape)) * scale.view(shape)  # what weight and bias are applied to
        own = torch.stack([dy.sum(around), (dy * unit).sum(around)])  # (2, C): gradients of bias and weight
        joint = own.clone()
        dist.all_reduce(joint)  # the joint mean and variance depend on every rank's x
        joint /= ctx.count
        dx = (weight * scale).view(shape) * (dy - joint[0].view(shape) - unit * joint[1].view(shape))
        return dx.to(x.dtype), own[1], own[0], None, None, None


def _joint_moments(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel over all ranks, which hold equally many values.

    The variance is that within ranks plus that between them: E[x^2] - E[x]^2 would cancel its digits.
    """
    variance, mean = torch.var_mean(x, _around(x), correction=0)
    every = [torch.empty(2, len(mean), dtype=mean.dtype) for _ in range(size)]
    dist.all_gather(every, torch.stack([mean, variance]))
    means, variances = torch.stack(every).unbind(1)  # (size, C) each
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def _around(x: Tensor) -> list[int]:
    """Return the dimensions that a channel's statistics run over: all but the second."""
    return [d for d in range(x.ndim) if d != 1]
