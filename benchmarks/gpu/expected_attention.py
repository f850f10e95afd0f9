"""Attention for the table of expected times: see :mod:`benchmarks.gpu.expected`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import pyframe as pf
from benchmarks.gpu.expected import Launch, noted
from pyframe.dtypes import bfloat16, float32
from pyframe.ops import _cuda_attention as attention

_TOKENS, _WIDTH = 16384, 2048  # of a batch; all heads together, as in bench_attention
# Products of T × d and d × T, or T × T and T × d, that a kernel computes.
_PRODUCTS = {"attention_forward": 2, "attention_queries": 3, "attention_keys": 4}


def launches() -> Iterator[Launch]:
    """Causal attention in bfloat16, forward and the two kernels of the backward."""
    for length in (1024, 2048, 4096, 8192):
        for features in (64, 128):
            yield from _launches(length, features)


def _launches(length: int, features: int) -> Iterator[Launch]:
    shape = (_TOKENS // length, _WIDTH // features, length, features)
    q, k, v, y, g = (np.empty(shape, bfloat16) for _ in range(5))
    mass = np.empty(shape[:-1], float32)
    with noted() as found, pf.kernels("cuda"):
        attention.attention(q, k, v, is_causal=True, scale=1.0)
        attention.attention_backward(g, q, k, v, y, mass, is_causal=True, scale=1.0)
    for one in found:
        name = one.instance.partition("<")[0]
        products = _PRODUCTS[name]
        # Half of the scores; the diagonal's blocks, which are computed whole, are not counted.
        flops = 2.0 * products * shape[0] * shape[1] * length**2 * features / 2
        # Both gradients' kernels read q, k, v and g; the first also y, and writes one, not two.
        arrays = 4 if name == "attention_forward" else 6
        title = f"T {length} d {features} {name.removeprefix('attention_')}"
        yield one.launch(title, "mma f16", flops, float(arrays * q.nbytes + mass.nbytes))
