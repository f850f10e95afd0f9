"""References, sample inputs and error inputs of the attention ops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import philox
from ..dtypes import compute_dtype
from ..errors import DtypeError, ShapeError
from ..op.record import Failing, Sample
from ..op.samples import Maker
from ..tensor.dispatch import unbroadcast


def _weights_reference(
    query: np.ndarray, key: np.ndarray, attn_mask: Any, is_causal: bool, scale: Any
) -> np.ndarray:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = np.einsum("...le,...se->...ls", query, key) * scale
    if attn_mask is not None:
        if attn_mask.dtype == bool:
            scores = np.where(attn_mask, scores, -np.inf)
        else:
            scores = scores + attn_mask
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    return np.exp(scores)


def _factors_reference(shape: tuple, p: float, seed: int, offset: int) -> np.ndarray:
    words = philox.bits(np, seed, offset, math.prod(shape)).astype(np.float64).reshape(shape)
    return np.where(words / 2.0**32 < 1 - p, 1 / (1 - p) if p < 1 else 0.0, 0.0)


def reference(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: Any = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    offset: int = 0,
) -> tuple:
    p = _weights_reference(query, key, attn_mask, is_causal, scale)
    lead = np.broadcast_shapes(p.shape[:-2], value.shape[:-2])
    p = np.broadcast_to(p, lead + p.shape[-2:])
    mass = np.sum(p, axis=-1)
    full = np.where(mass == 0, 1, mass)
    kept = p / full[..., None] * _factors_reference(p.shape, dropout_p, seed, offset)
    return np.einsum("...ls,...sv->...lv", kept, value), np.log(full)


def backward_reference(
    grad: np.ndarray,
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    output: np.ndarray,
    log_mass: np.ndarray,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: Any = None,
    dropout_p: float = 0.0,
    seed: int = 0,
    offset: int = 0,
) -> tuple:
    p = _weights_reference(query, key, attn_mask, is_causal, scale)
    p = p * np.exp(-log_mass)[..., None]
    factors = _factors_reference(p.shape, dropout_p, seed, offset)
    gp = np.einsum("...lv,...sv->...ls", grad, value) * factors
    gs = p * (gp - np.sum(grad * output, axis=-1, keepdims=True)) * scale
    return tuple(
        unbroadcast(g, x.shape)
        for g, x in (
            (np.einsum("...ls,...se->...le", gs, key), query),
            (np.einsum("...ls,...le->...se", gs, query), key),
            (np.einsum("...ls,...lv->...sv", p * factors, grad), value),
        )
    )


def samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(2, 3, 4, 5), make(2, 3, 6, 5), make(2, 3, 6, 7))
    yield Sample(make(2, 4, 5), make(2, 4, 5), make(2, 4, 5), is_causal=True)
    yield Sample(make(4, 5), make(3, 5), make(3, 5), scale=0.3)
    mask = make.bools(4, 3)
    mask[:, 0], mask[1] = True, False
    yield Sample(make(2, 4, 5), make(2, 3, 5), make(2, 3, 5), mask)
    yield Sample(make(2, 2, 4, 5), make(1, 2, 3, 5), make(2, 1, 3, 5), make(2, 1, 4, 3))


def dropped_samples(make: Maker) -> Iterator[Sample]:
    for k, sample in enumerate(samples(make)):
        yield Sample(*sample.arrays, **sample.params, dropout_p=0.4, seed=3, offset=k)
    yield Sample(make(4, 5), make(3, 5), make(3, 5), dropout_p=1.0, seed=1, offset=0)


def backward_samples(make: Maker) -> Iterator[Sample]:
    for sample in [*samples(make), *dropped_samples(make)]:
        arrays = list(sample.arrays) + [None] * (4 - len(sample.arrays))
        query, key, value, mask = arrays
        wide_arrays = [a if a is None or a.dtype == bool else a.astype(np.float64) for a in arrays]
        params = {"is_causal": False, "scale": 5**-0.5, **sample.params}
        y, log_mass = reference(*wide_arrays, **params)
        log_mass = log_mass.astype(compute_dtype(make.dtype))
        yield Sample(
            make(*y.shape), query, key, value, y.astype(make.dtype), log_mass, mask, **params
        )


def errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "5 features but key has 6", make(4, 5), make(4, 6), make(4, 5))
    yield Failing(ShapeError, "length 4 but value has 3", make(4, 5), make(4, 5), make(3, 5))
    yield Failing(ShapeError, "two dimensions", make(5), make(4, 5), make(4, 5))
    yield Failing(ShapeError, "do not broadcast", make(2, 4, 5), make(3, 4, 5), make(3, 4, 5))
    yield Failing(ShapeError, "attn_mask does not", make(4, 5), make(4, 5), make(4, 5), make(4, 3))
    yield Failing(DtypeError, "one floating point", make(4, 5), make.ints(4, 5), make(4, 5))


def dropped_errors(make: Maker) -> Iterator[Failing]:
    x = make(4, 5)
    yield Failing(ShapeError, "dropout_p must be in", x, x, x, dropout_p=1.5)
    yield Failing(ShapeError, "5 features but key has 6", x, make(4, 6), x, dropout_p=0.5)
