"""Dropout in its forms."""
# ruff: noqa: D102  (forward and extra_repr are documented at Module)

from __future__ import annotations

from typing import Any

from ..ops.dropout import check_probability
from ..tensor import Tensor
from . import functional as F
from .module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d"]


class _Dropout(Module):
    p: float
    inplace: bool

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        check_probability(type(self).__name__, p)
        self.p = p
        self.inplace = inplace

    def _run(self, function: Any, input: Tensor) -> Tensor:
        return function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, zeroes every element with probability ``p`` and scales the others by 1/(1-p).

    Args:
        p: probability.
        inplace: overwrite the input.

    Raises:
        ValueError: if ``p`` is not in [0, 1].
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_Dropout):
    """As :class:`Dropout`, for whole channels of (N, C, L) or (C, L)."""

    def forward(self, input: Tensor) -> Tensor:
        return self._run(F.dropout1d, input)


class Dropout2d(_Dropout):
    """As :class:`Dropout`, for whole channels of (N, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        return self._run(F.dropout2d, input)


class Dropout3d(_Dropout):
    """As :class:`Dropout`, for whole channels of (N, C, D, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        return self._run(F.dropout3d, input)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance for SELU (https://arxiv.org/abs/1706.02515)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training)
