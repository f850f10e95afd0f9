"""Native attention: lengths, widths, layouts and masks that the samples do not reach."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import pyframe as pf
import pyframe.nn.functional as F
from pyframe.backend import native
from pyframe.op.choice import candidates
from pyframe.ops.attention import attention_backward, dropped_attention, native_attention
from pyframe.testing.op_checks import Case, Sample, check_kernel

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

DTYPES = ("float32", "float64")

# batch, heads, queries, keys, width, width of values: one and many blocks, tails of every kind.
SHAPES = (
    (2, 2, 128, 128, 32, 32),
    (1, 2, 129, 131, 16, 16),
    (1, 1, 300, 77, 17, 40),
    (2, 1, 9, 300, 8, 256),
    (3, 2, 1, 200, 37, 19),
    (1, 2, 7, 130, 64, 64),
    (1, 1, 33, 1, 5, 3),
    (1, 1, 600, 140, 9, 16),
)


def _array(*shape: int, dtype: str, seed: int = 0) -> np.ndarray:
    """Numbers whose memory starts one element after an aligned address."""
    values = np.random.default_rng([seed, *shape]).standard_normal(int(np.prod(shape)) + 1)
    return values.astype(dtype)[1:].reshape(shape)


def _operands(shape: tuple, dtype: str) -> list[np.ndarray]:
    n, heads, queries, keys, width, other = shape
    return [
        _array(n, heads, queries, width, dtype=dtype, seed=1),
        _array(n, heads, keys, width, dtype=dtype, seed=2),
        _array(n, heads, keys, other, dtype=dtype, seed=3),
    ]


def _masks(shape: tuple, dtype: str) -> dict[str, Any]:
    n, heads, queries, keys = shape[:4]
    rng = np.random.default_rng(7)
    allowed = rng.random((queries, keys)) > 0.4
    allowed[0] = False  # a query without any key
    numbers = rng.standard_normal((n, 1, queries, keys)).astype(dtype)
    numbers[..., rng.random(keys) > 0.7] = -np.inf
    return {
        "none": None,
        "bool": allowed,
        "padding": rng.random((n, 1, 1, keys)) > 0.3,
        "numbers": numbers,
        "columns": np.asfortranarray(numbers[0, 0]),
        "rows": rng.standard_normal((heads, queries, 1)).astype(dtype),
    }


def _cases(shape: tuple, dtype: str) -> list[tuple]:
    """Ops with arrays and parameters."""
    found = []
    q, k, v = _operands(shape, dtype)
    for name, mask in _masks(shape, dtype).items():
        for causal in (False, True):
            params = {"is_causal": causal, "scale": 0.3}
            found.append((native_attention, (q, k, v, mask), params))
            if causal and shape[2] == 1:
                continue  # one key: gradients of 0, where the reference has rounding errors
            rates = (0.0, 0.3) if name in ("none", "bool") else (0.0,)
            for p in rates:
                options = {**params, "dropout_p": p, "seed": 5, "offset": 1 << 40}
                if p:
                    found.append((dropped_attention, (q, k, v, mask), options))
                wide = [None if a is None else a if a.dtype == bool else a.astype("f8")
                        for a in (q, k, v, mask)]  # fmt: skip
                y, mass = native_attention.op.reference(*wide, **options)
                g = _array(*y.shape, dtype=dtype, seed=4)
                arrays = (g, q, k, v, y.astype(dtype), mass.astype(dtype), mask)
                found.append((attention_backward, arrays, options))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s)))
def test_kernels_against_float64(shape: tuple, dtype: str) -> None:
    for op, arrays, params in _cases(shape, dtype):
        case = Case(op.op, 0, Sample(*arrays, **params), np.dtype(dtype))
        assert check_kernel(case, "native")


def _outputs(shape: tuple, dtype: str) -> list[np.ndarray]:
    with pf.kernels("native"):
        return [o for op, a, p in _cases(shape, dtype) for o in op(*a, **p)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES[:3], ids=lambda s: "-".join(map(str, s)))
def test_results_do_not_depend_on_the_number_of_threads(shape: tuple, dtype: str) -> None:
    before = native.num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 2):
            native.set_num_threads(threads)
            results.append(_outputs(shape, dtype))
    finally:
        native.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)


def _heads(x: Any, heads: int) -> tuple:
    """[N, T, 3 · heads · width] as query, key and value [N, heads, T, width]: views."""
    n, length, channels = x.shape
    parts = x.reshape((n, length, 3, heads, channels // 3 // heads)).transpose(2, 0, 3, 1, 4)
    return parts[0], parts[1], parts[2]


def test_views_give_the_bits_of_copies_and_are_not_copied() -> None:
    x = _array(2, 200, 3 * 2 * 20, dtype="float32")
    views = _heads(x, 2)
    with pf.kernels("native"):
        y, mass = native_attention(*views, is_causal=True, scale=None)
        again, other = native_attention(*(np.ascontiguousarray(v) for v in views), is_causal=True)
    assert np.array_equal(y, again) and np.array_equal(mass, other)
    # The heads of the output are merged by a view, as those of the query were split.
    merged = y.transpose(0, 2, 1, 3).reshape(2, 200, 40)
    assert np.shares_memory(merged, y)
    with pf.kernels("native"):
        grads = attention_backward(y, *views, y, mass, is_causal=True, scale=1.0)
    for g in grads:
        assert np.shares_memory(g.transpose(0, 2, 1, 3).reshape(2, 200, 40), g)


@pytest.mark.parametrize("heads", [1, 12])
def test_the_scores_are_never_in_memory(heads: int) -> None:
    length, width = 2048, 16
    x = pf.tensor(_array(1, length, 3 * heads * width, dtype="float32"))
    q, k, v = (t.requires_grad_() for t in (pf.tensor(a) for a in _heads(x.array, heads)))
    native.reset_allocator_stats()
    before = native.allocator_stats().in_use
    with pf.kernels("native"):
        y = F.scaled_dot_product_attention(q, k, v)
        pf.autograd.grad(y, (q, k, v), y.detach())
    used = native.allocator_stats().peak - before
    assert 0 < used < length * length * 4  # of all heads together less than one matrix of scores


def test_grouped_queries_share_keys_and_values() -> None:
    q = _array(2, 8, 300, 16, dtype="float32")
    k, v = (_array(2, 2, 300, 16, dtype="float32", seed=s) for s in (1, 2))
    tensors = [pf.tensor(a, requires_grad=True) for a in (q, k, v)]
    repeated = [pf.tensor(a, requires_grad=True) for a in (q, k.repeat(4, 1), v.repeat(4, 1))]
    y = F.scaled_dot_product_attention(*tensors, is_causal=True, enable_gqa=True)
    expected = F.scaled_dot_product_attention(*repeated, is_causal=True)
    assert np.array_equal(y.array, expected.array)
    g = pf.tensor(_array(*y.shape, dtype="float32", seed=3))
    grads = pf.autograd.grad(y, tensors, g)
    others = pf.autograd.grad(expected, repeated, g)
    assert np.array_equal(grads[0].numpy(), others[0].numpy())
    for mine, other in zip(grads[1:], others[1:], strict=True):
        total = other.numpy().reshape(2, 2, 4, 300, 16).astype("f8").sum(2)
        assert np.abs(mine.numpy() - total).max() <= 1e-6 * np.abs(total).max() * 8


def test_dropout_draws_the_same_words_as_the_portable_forward() -> None:
    q, k, v = (pf.tensor(a) for a in _operands((2, 3, 150, 141, 8, 8), "float32"))
    results = []
    for name in ("portable", "native"):
        pf.manual_seed(4)
        with pf.kernels(name):
            results.append(F.scaled_dot_product_attention(q, k, v, dropout_p=0.5).numpy())
    assert np.abs(results[0] - results[1]).max() < 1e-5 * np.abs(results[0]).max()


def test_half_types_take_the_kernel() -> None:
    q, k, v = (a.astype(pf.bfloat16) for a in _operands((1, 2, 40, 40, 16, 16), "float32"))
    rows = dict(candidates(native_attention.op, (q, k, v, None), {"is_causal": False}))
    assert rows["native"] == "chosen"


def test_not_a_number_stays_in_its_row() -> None:
    q, k, v = _operands((1, 1, 40, 40, 8, 8), "float32")
    q[0, 0, 3, 1] = np.nan
    with pf.kernels("native"):
        y, mass = native_attention(q, k, v)
    bad = np.isnan(y).any(-1)[0, 0]
    assert bad[3] and bad.sum() == 1 and np.isnan(mass).sum() == 1


OTHER_LEVELS = [isa for isa in native.module.supported_isas() if isa != native.isa()]


@pytest.mark.parametrize("isa", OTHER_LEVELS)
def test_every_other_instruction_set_level(isa: str) -> None:
    """The tests against float64 and the float32 generic ones, in a process of that level."""
    if os.environ.get("PYFRAME_ISA"):
        return  # the process of a level itself
    names = "against_float64 and (1-2-129 or 3-2-1-200 or 1-2-7-130 or 1-1-33-1)"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            __file__,
            "-k",
            names,
        ],
        env=os.environ | {"PYFRAME_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
