"""Batch, layer, group, instance, RMS and local response normalisation."""
# ruff: noqa: D101, D102  (forward and extra_repr: see Module; shared docstrings)

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import dtypes
from ..errors import ArgumentError, fail
from ..tensor import Tensor
from ..tensor.tensor import make
from . import functional as F
from . import init
from .module import Module
from .parameter import empty, empty_parameter

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]


class _NormBase(Module):
    """Affine parameters and running statistics per channel."""

    _version = 2
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any
    weight: Any
    bias: Any

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        device: Any,
        dtype: Any,
        bias: bool,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            if wanted:
                setattr(self, name, empty_parameter(num_features, device=device, dtype=dtype))
            else:
                self.register_parameter(name, None)
        if track_running_stats:
            self.register_buffer("running_mean", empty(num_features, device=device, dtype=dtype))
            self.register_buffer("running_var", empty(num_features, device=device, dtype=dtype))
            self.register_buffer("num_batches_tracked", empty(device=device, dtype=dtypes.int64))
        else:
            self.register_buffer("running_mean", None)
            self.register_buffer("running_var", None)
            self.register_buffer("num_batches_tracked", None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Sets the running mean to 0, the running variance to 1 and the count to 0."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Resets statistics and sets weight to 1 and bias to 0."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict, *rest: Any
    ) -> None:
        # Before version 2 there was no count.
        key = f"{prefix}num_batches_tracked"
        old = (local_metadata.get("version") or 1) < 2
        if old and self.track_running_stats and key not in state_dict:
            state_dict[key] = make(np.array(0))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )

    def _count_batch(self) -> float:
        """Counts a batch; returns its share in the running statistics."""
        count = self.num_batches_tracked
        if count is not None:
            count.array += 1
            count._cell[0] += 1
        if self.momentum is not None:
            return self.momentum
        return 0.0 if count is None else 1.0 / float(count)  # the mean over all batches so far

    def _check_dims(self, input: Tensor, *allowed: int) -> None:
        if input.ndim not in allowed:
            expected = " or ".join(f"{n}D" for n in allowed)
            fail(
                ArgumentError,
                type(self).__name__,
                f"expected {expected} input (got {input.ndim}D input)",
                input=input,
            )


class _BatchNorm(_NormBase):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.normalized_by(F.batch_norm, input)

    def normalized_by(self, function: Callable, input: Tensor, *rest: Any) -> Tensor:
        """Calls ``F.batch_norm``, or a function that takes ``rest`` too, as this module is set."""
        self._check_input_dim(input)
        training, tracking = self.training, self.track_running_stats
        factor = self._count_batch() if training and tracking else self.momentum or 0.0
        mean, var = self.running_mean, self.running_var
        if training and not tracking:
            mean = var = None
        batch = self.uses_batch
        return function(input, mean, var, self.weight, self.bias, batch, factor, self.eps, *rest)

    @property
    def uses_batch(self) -> bool:
        """Whether it normalises by the batch's own statistics."""
        return self.training or (self.running_mean is None and self.running_var is None)

    def _check_input_dim(self, input: Tensor) -> None:
        raise NotImplementedError


_BATCH = """

    y = (x - mean) / √(var + eps) · weight + bias, with mean and (biased) variance of the batch in
    training and the running ones otherwise.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of a new batch in the running statistics; ``None``: the mean over all.
        affine: whether there are weight and bias.
        track_running_stats: whether there are running statistics (else the batch's are used).
        device, dtype: of parameters and buffers.
        bias: whether there is a bias.

    Raises:
        ValueError: for an input with another number of dimensions.
    """


class BatchNorm1d(_BatchNorm):
    __doc__ = "Batch normalisation of (N, C) or (N, C, L)." + _BATCH

    def _check_input_dim(self, input: Tensor) -> None:
        self._check_dims(input, 2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = "Batch normalisation of (N, C, H, W)." + _BATCH

    def _check_input_dim(self, input: Tensor) -> None:
        self._check_dims(input, 4)


class BatchNorm3d(_BatchNorm):
    __doc__ = "Batch normalisation of (N, C, D, H, W)." + _BATCH

    def _check_input_dim(self, input: Tensor) -> None:
        self._check_dims(input, 5)


class _InstanceNorm(_NormBase):
    n: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        )

    def forward(self, input: Tensor) -> Tensor:
        batched = self.n + 2
        self._check_dims(input, batched - 1, batched)
        channels = input.array.shape[-self.n - 1]
        if channels != self.num_features:
            what = f"expected {self.num_features} channels but input has {channels}"
            if self.affine:
                fail(ArgumentError, type(self).__name__, what, input=input)
            warnings.warn(f"{type(self).__name__}: {what}; it does not matter here", stacklevel=2)
        if input.ndim == batched - 1:
            return self._normalised(input.unsqueeze(0)).squeeze(0)
        return self._normalised(input)

    def _normalised(self, input: Tensor) -> Tensor:
        return F.instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
        )


_INSTANCE = """

    As batch normalisation, with statistics of every sample and channel by itself.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: share of a new batch in the running statistics.
        affine: whether there are weight and bias.
        track_running_stats: whether there are running statistics, used in evaluation.
        device, dtype: of parameters and buffers.
        bias: whether there is a bias, if affine.
    """


class InstanceNorm1d(_InstanceNorm):
    __doc__ = "Instance normalisation of (N, C, L) or (C, L)." + _INSTANCE
    n = 1


class InstanceNorm2d(_InstanceNorm):
    __doc__ = "Instance normalisation of (N, C, H, W) or (C, H, W)." + _INSTANCE
    n = 2


class InstanceNorm3d(_InstanceNorm):
    __doc__ = "Instance normalisation of (N, C, D, H, W) or (C, D, H, W)." + _INSTANCE
    n = 3


class LayerNorm(Module):
    """(x - mean) / √(var + eps) · weight + bias over the last dimensions.

    Args:
        normalized_shape: shape of those dimensions.
        eps: added to the variance.
        elementwise_affine: whether there are weight and bias.
        bias: whether there is a bias.
        device, dtype: of the parameters.
    """

    weight: Any
    bias: Any

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if isinstance(normalized_shape, (int, np.integer)):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        for name, wanted in (
            ("weight", elementwise_affine),
            ("bias", elementwise_affine and bias),
        ):
            if wanted:
                parameter = empty_parameter(*self.normalized_shape, device=device, dtype=dtype)
                setattr(self, name, parameter)
            else:
                self.register_parameter(name, None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weight to 1 and bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """x / √(mean(x²) + eps) · weight over the last dimensions (https://arxiv.org/abs/1910.07467).

    Args:
        normalized_shape: shape of those dimensions.
        eps: default: the machine epsilon of the input's dtype.
        elementwise_affine: whether there is a weight.
        device, dtype: of the parameter.
    """

    weight: Any

    def __init__(
        self,
        normalized_shape: Any,
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if isinstance(normalized_shape, (int, np.integer)):
            normalized_shape = (normalized_shape,)
        self.normalized_shape = tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        if elementwise_affine:
            self.weight = empty_parameter(*self.normalized_shape, device=device, dtype=dtype)
        else:
            self.register_parameter("weight", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the weight to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Module):
    """Normalises groups of channels of every sample (https://arxiv.org/abs/1803.08494).

    Args:
        num_groups: number of groups.
        num_channels: channels C.
        eps: added to the variance.
        affine: whether there are weight and bias per channel.
        device, dtype: of the parameters.
        bias: whether there is a bias, if affine.

    Raises:
        ValueError: if the groups do not divide the channels.
    """

    weight: Any
    bias: Any

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups:
            fail(
                ArgumentError,
                "GroupNorm",
                f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})",
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            if wanted:
                setattr(self, name, empty_parameter(num_channels, device=device, dtype=dtype))
            else:
                self.register_parameter(name, None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets weight to 1 and bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    """x divided by (k + alpha/size·Σ x² over ``size`` neighbouring channels)^beta."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
