"""Batch normalisation with the statistics of all ranks' samples together (L6)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Function
from ..errors import ArgumentError, fail
from ..nn import Module
from ..nn.normalization import _BatchNorm
from ..ops.batch_norm import (
    batch_norm_backward,
    native_batch_norm,
    update_running,
)
from ..ops.batch_norm_inference import batch_norm_inference
from ..tensor import Tensor
from ..tensor.tensor import make
from .collectives import all_gather_into_tensor
from .group import is_initialized, resolve


class _Normalise(Function):
    """y = (x - mean) · rstd · weight + bias with mean and variance over all ranks."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Any, bias: Any, eps: float, group: Any, seen: list
    ) -> Tensor:
        device, xp = input.device, input.device.xp
        x = input.array
        w: Any = None if weight is None else weight.array
        b: Any = None if bias is None else bias.array
        count, mean, moment = _local(xp, x, eps)
        # Each rank's count, mean and sum of squared deviations, combined in the order of the ranks
        # (Chan, Golub and LeVeque, 1979): sums of squares would cancel.
        rows = _gathered(xp, xp.concatenate([xp.full(1, float(count)), mean, moment]), group)
        counts, c = rows[:, :1], mean.shape[0]
        means, moments = rows[:, 1 : 1 + c], rows[:, 1 + c :]
        total = float(counts.sum())
        if total <= 1:
            what = "expected more than 1 value per channel over all ranks when training"
            fail(
                ArgumentError, "SyncBatchNorm", what, "Use a larger batch, or eval().", input=input
            )
        average = (counts * means).sum(axis=0) / total
        spread = (moments + counts * (means - average) ** 2).sum(axis=0) / total
        seen[:] = [average, spread, total]
        dtype = np.float32 if x.dtype.itemsize < 4 else x.dtype
        rstd = (1 / xp.sqrt(spread + eps)).astype(dtype)
        average = average.astype(dtype)
        ctx.save_for_backward(input, weight)
        ctx.average, ctx.rstd, ctx.total, ctx.group = average, rstd, total, group
        ctx.count, ctx.bias_dtype = count, None if bias is None else b.dtype
        return make(batch_norm_inference(x, average, spread.astype(dtype), w, b, eps), device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        input, weight = ctx.saved_tensors
        device, xp = input.device, input.device.xp
        x, g = input.array, grad.array
        w: Any = None if weight is None else weight.array
        average, rstd, n = ctx.average, ctx.rstd, max(ctx.count, 1)
        gx, gw, gb = batch_norm_backward(g, x, average, rstd, w)
        own = xp.concatenate([gw, gb]).astype(np.float64)
        everyone = _gathered(xp, own, ctx.group).sum(axis=0)
        if ctx.needs_input_grad[0]:
            # gx has this rank's means of g and of g·x̂; put those of all ranks in their place:
            # gx + scale · (gb/n - GB/N) + scale · (gw/n - GW/N) · x̂.
            c = gb.shape[0]
            fix = own / n - everyone / ctx.total
            scale = rstd if w is None else rstd * w.astype(rstd.dtype, copy=False)
            slope = (fix[:c] * scale * rstd).astype(rstd.dtype)
            shift = (fix[c:] * scale - slope * average).astype(rstd.dtype)
            across = (1, -1) + (1,) * (x.ndim - 2)
            gx = gx + (x * slope.reshape(across) + shift.reshape(across)).astype(gx.dtype)
        needs = ctx.needs_input_grad
        gw = make(gw.astype(w.dtype, copy=False), device) if needs[1] else None
        gb = make(gb.astype(ctx.bias_dtype, copy=False), device) if needs[2] else None
        return (make(gx, device) if needs[0] else None, gw, gb, None, None, None)


def _local(xp: Any, x: Any, eps: float) -> tuple[int, Any, Any]:
    """(number of values, their mean, the sum of squared deviations) per channel, in float64."""
    count = x.shape[0] * math.prod(x.shape[2:])
    if count < 2:  # the kernel refuses one value, whose variance is 0
        mean = xp.zeros(x.shape[1], np.float64)
        if count:
            mean += x.reshape(-1)
        return count, mean, xp.zeros(x.shape[1], np.float64)
    _, mean, var, _ = native_batch_norm(x, None, None, eps)
    return count, mean.astype(np.float64), var.astype(np.float64) * count


def _gathered(xp: Any, row: Any, group: Any) -> Any:
    """A row per rank."""
    rows = xp.empty((group.size, row.shape[0]), row.dtype)
    all_gather_into_tensor(rows, row, group=group)
    return rows


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of (N, C, ...) over the samples of all ranks, whatever their numbers.

    y = (x - mean) / √(var + eps) · weight + bias, with mean and (biased) variance over all ranks'
    values in training, the running ones in evaluation. Forward and backward exchange 2·C numbers
    per rank. Without a process group, and with one rank, it is ``BatchNorm``.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of a new batch in the running statistics; ``None``: the mean over all.
        affine: whether there are weight and bias.
        track_running_stats: whether there are running statistics (else the batch's are used).
        process_group: the ranks; the default group by default.
        device, dtype: of parameters and buffers.

    Gradients are those of one process if the ranks' losses are parts of one loss, as
    ``DistributedDataParallel`` makes them. They have no derivative themselves.

    Raises:
        ArgumentError: with fewer than two dimensions, or one value per channel on all ranks.

    >>> import pyframe
    >>> net = pyframe.nn.Sequential(pyframe.nn.Conv2d(3, 4, 1), pyframe.nn.BatchNorm2d(4))
    >>> SyncBatchNorm.convert_sync_batchnorm(net)[1]
    SyncBatchNorm(4, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            what = f"expected at least 2D input (got {input.ndim}D input)"
            fail(ArgumentError, "SyncBatchNorm", what, input=input)

    def forward(self, input: Tensor) -> Tensor:
        """The normalised input."""
        use_batch = self.training or self.running_mean is None
        if not use_batch or not is_initialized():
            return super().forward(input)
        group = resolve(self.process_group, "SyncBatchNorm")
        if group.size == 1:
            return super().forward(input)
        self._check_input_dim(input)
        seen: list[Any] = []
        y = _Normalise.apply(input, self.weight, self.bias, self.eps, group, seen)
        if self.training and self.track_running_stats:
            mean, var, total = seen
            share = self._count_batch()
            update_running(self.running_mean, mean, share)
            update_running(self.running_var, var, share, total / (total - 1))
        return y

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """``module`` with every BatchNorm layer replaced, its parameters and buffers kept.

        Args:
            module: a module, or a BatchNorm layer itself.
            process_group: the ranks; the default group by default.

        Returns:
            The module, or the layer that replaces it.
        """
        out = module
        if isinstance(module, _BatchNorm) and not isinstance(module, cls):
            out = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
            )
            for kind in ("_parameters", "_buffers"):
                getattr(out, kind).update(getattr(module, kind))
            out.training = module.training
        for name, child in module.named_children():
            out.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return out
