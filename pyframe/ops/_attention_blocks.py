"""What the portable attention works on: operands as matrices, in blocks of heads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import philox
from ._dropped import kept_scale
from ._normalization import wide

# Scores are formed for as many [L, S] blocks at a time as stay in a CPU's cache.
_BLOCK = 1 << 18


def flat(xp: Any, x: Any, lead: tuple) -> Any:
    """``x`` broadcast to the leading dimensions, as [B, rows, columns]."""
    x = wide(x)
    if x.shape[:-2] != lead:
        x = xp.broadcast_to(x, lead + x.shape[-2:])
    return xp.ascontiguousarray(x).reshape((math.prod(lead), *x.shape[-2:]))


def score_bias(xp: Any, mask: Any, causal: bool, length: int, other: int, dtype: Any) -> Any:
    """What is added to the scores: 0 or -inf for booleans; ``None`` for nothing."""
    bias = None
    if mask is not None:
        bias = wide(mask)
        if mask.dtype == bool:
            bias = xp.where(mask, 0.0, -math.inf)
        bias = bias.astype(dtype, copy=False)
    if causal:
        allowed = xp.arange(length)[:, None] >= xp.arange(other)[None, :]
        triangle = xp.where(allowed, 0.0, -math.inf).astype(dtype, copy=False)
        bias = triangle if bias is None else bias + triangle
    return bias


class Blocks:
    """The operands of one call as [B, ., .], and the blocks of B to work on."""

    def __init__(self, xp: Any, query: Any, key: Any, value: Any, mask: Any, causal: bool) -> None:
        self.lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
        self.query = flat(xp, query, self.lead)
        self.key = flat(xp, key, self.lead)
        self.value = flat(xp, value, self.lead)
        self.count, self.length = self.query.shape[:2]
        self.other = self.key.shape[1]
        bias = score_bias(xp, mask, causal, self.length, self.other, self.query.dtype)
        self.shared = bias is None or bias.ndim == 2
        self.bias = (
            bias
            if self.shared
            else xp.broadcast_to(bias, (*self.lead, self.length, self.other)).reshape(
                self.count, self.length, self.other
            )
        )

    def slices(self) -> Iterator[slice]:
        step = max(1, _BLOCK // max(1, self.length * self.other))
        for start in range(0, self.count, step):
            yield slice(start, min(start + step, self.count))

    def scores(self, xp: Any, part: slice, scale: Any) -> Any:
        s = xp.matmul(self.query[part] * scale, self.key[part].swapaxes(1, 2))
        if self.bias is not None:
            s += self.bias if self.shared else self.bias[part]
        return s

    def dropout_factors(self, xp: Any, p: float, seed: Any, offset: Any) -> Any:
        """What each weight is multiplied with, [B, L, S]; the words of one stream in order."""
        shape = (self.count, self.length, self.other)
        kept = philox.bernoulli_mask(xp, seed, offset, shape, 1 - p)
        return kept.astype(self.query.dtype) * kept_scale(p)
