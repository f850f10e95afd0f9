"""CUDA products of matrices in the emulator: layouts, odd sizes, batches, cuts along k, epilogues.

Accuracy against float64 is printed per kernel (``-rP`` shows it) and compared with what the
arithmetic promises: a rounding of the result, and of each factor where they are rounded to tf32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import philox
from pyframe.backend import nvrtc
from pyframe.backend.capture import OnDevice
from pyframe.errors import ArgumentError
from pyframe.expr import philox_bits, tanh, trace
from pyframe.expr.cuda_epilogue import epilogue
from pyframe.ops import _cuda_conv_gemm as conv
from pyframe.ops import _cuda_gemm as gemm
from pyframe.ops import _cuda_gemm_hopper as hopper
from pyframe.ops._after_product import of_convolution, of_residual, slope
from pyframe.ops._cuda_gemm_fused import Dropout, fused, fused_hopper
from pyframe.testing.accuracy import epsilon
from tests import sweeps

rng = np.random.default_rng(0)
KERNELS = [
    ("mma", pf.float16),
    ("mma", pf.bfloat16),
    ("mma", pf.float32),
    ("simt", pf.float32),
    ("simt", pf.float64),
]
LAYOUTS = [(a, b) for a in "CF" for b in "CF"]
IDS = [f"{family}-{dtype.name}" for family, dtype in KERNELS]


def x(*shape: int, dtype: Any = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(pf.dtypes.as_dtype(dtype))


def wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def in_order(array: np.ndarray, order: str) -> np.ndarray:
    return np.asfortranarray(array) if order == "F" else array


def offset(array: np.ndarray) -> np.ndarray:
    """A copy whose first element is not at a multiple of 16 bytes."""
    room = np.zeros(array.size + 1, array.dtype)
    room[1:] = array.ravel()
    return room[1:].reshape(array.shape)


def cut_of(family: str, a: Any, n: int, **changes: Any) -> gemm.Plan:
    """The plan of a @ [k, n] in a family, with changes."""
    members, (m, k) = int(np.prod(a.shape[:-2])), a.shape[-2:]
    made = gemm.plan(a.dtype, m, n, k, members, family)
    name = changes.pop("name", made.name)
    size = gemm.SIZES[family][a.dtype][name]
    tiles = members * gemm.ceil_div(m, size.m) * gemm.ceil_div(n, size.n)
    steps = max(gemm.ceil_div(k * a.dtype.itemsize, size.depth), 1)
    made = gemm.Plan(family, name, size, tiles, steps, steps)
    return made._replace(**changes)


def worst(found: Any, a: Any, b: Any, family: str, more: Any = 0.0) -> float:
    """The largest error in units of what the arithmetic promises.

    Σ |a| |b| takes a rounding of float32 (float64) per addition, in the mean its square root of k,
    and for tf32 two of 2⁻¹¹ on average; the result is rounded once.
    """
    exact, size = wide(a) @ wide(b) + more, np.abs(wide(a)) @ np.abs(wide(b)) + np.abs(more)
    computed = epsilon(pf.float64 if a.dtype == pf.float64 else pf.float32)
    factors = 2 * 2.0**-11 if family == "mma" and a.dtype == pf.float32 else 0.0
    allowed = (np.sqrt(a.shape[-1]) * computed + factors) * size + epsilon(found.dtype) * np.abs(
        exact
    )
    return float((np.abs(wide(found) - exact) / np.maximum(allowed, 1e-300)).max(initial=0))


@pytest.mark.parametrize(("family", "dtype"), KERNELS, ids=IDS)
def test_accuracy_against_float64(family: str, dtype: Any) -> None:
    """Every layout of the factors, at a size with edges in all three directions."""
    found: dict[str, float] = {}
    a, b = x(70, 90, dtype=dtype), x(90, 75, dtype=dtype)
    exact = wide(a) @ wide(b)
    for first, second in LAYOUTS:
        y = gemm.multiply(in_order(a, first), in_order(b, second), cut=cut_of(family, a, 75))
        assert y.dtype == dtype and y.shape == (70, 75)
        assert worst(y, a, b, family) <= 1
        error = np.abs(wide(y) - exact)
        found[first + second] = float(np.sqrt((error**2).mean() / (exact**2).mean()))
    tf32 = family == "mma" and dtype == pf.float32
    # Rounding errors, of the factors or of the result, are independent; sums add theirs up.
    assert max(found.values()) <= (2.0**-11 if tf32 else 4 * epsilon(dtype))
    assert min(found.values()) >= (2.0**-14 if tf32 else epsilon(dtype) / 8)
    text = ", ".join(f"{k} {v:.2e}" for k, v in found.items())
    print(f"gemm_{family}<{dtype}> relative error against float64: {text}")


@pytest.mark.parametrize(("family", "dtype"), [KERNELS[0], *KERNELS[2:]], ids=[IDS[0], *IDS[2:]])
def test_large_tiles(family: str, dtype: Any) -> None:
    a, b = x(130, 40, dtype=dtype), x(40, 136, dtype=dtype)
    for first, second in LAYOUTS if family == "mma" else LAYOUTS[1:2]:
        cut = cut_of(family, a, 136, name="large")
        y = gemm.multiply(in_order(a, first), in_order(b, second), cut=cut)
        assert worst(y, a, b, family) <= 1


@pytest.mark.parametrize(("family", "dtype"), KERNELS, ids=IDS)
@pytest.mark.parametrize("per_unit", [1, 5, 7, 50])
def test_work_is_cut_along_k(family: str, dtype: Any, per_unit: int) -> None:
    """Units that begin and end within tiles, and units of several tiles, always the same bits."""
    k = 12 * gemm.SIZES[family][dtype]["small"].depth // dtype.itemsize - 3
    a, b, c = x(66, k, dtype=dtype), x(k, 70, dtype=dtype), x(70, dtype=dtype)
    cut = cut_of(family, a, 70)
    assert (cut.tiles, cut.steps) == (4, 12)
    y = gemm.multiply(a, b, c, 1, 2, cut=cut._replace(per_unit=per_unit))
    assert worst(y, a, b, family, 2 * wide(c)) <= 1
    again = gemm.multiply(a, b, c, 1, 2, cut=cut._replace(per_unit=per_unit))
    assert np.array_equal(y, again)


@pytest.mark.parametrize(("family", "dtype"), KERNELS[1:4], ids=IDS[1:4])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (1, 9, 17), (9, 1, 33), (65, 3, 2)])
def test_small_and_odd_sizes(family: str, dtype: Any, m: int, n: int, k: int) -> None:
    a, b = x(m, k, dtype=dtype), x(k, n, dtype=dtype)
    for first, second in (("C", "C"), ("F", "F")):
        y = gemm.multiply(in_order(a, first), in_order(b, second), cut=cut_of(family, a, n))
        assert worst(y, a, b, family) <= 1


@pytest.mark.parametrize(("family", "dtype"), KERNELS, ids=IDS)
def test_unaligned_and_strided_factors(family: str, dtype: Any) -> None:
    a, b = x(20, 64, dtype=dtype), x(64, 24, dtype=dtype)
    cut = cut_of(family, a, 24)
    expected = gemm.multiply(a, b, cut=cut)
    for left in (offset(a), np.repeat(a, 2, 1)[:, ::2], a[::-1][::-1]):
        assert np.array_equal(gemm.multiply(left, b, cut=cut), expected)
    for right in (offset(b), np.repeat(b, 2, 0)[::2], offset(b.T.copy()).T):
        assert np.array_equal(gemm.multiply(a, right, cut=cut), expected)
    rows = np.broadcast_to(a[:1], (20, 64))
    assert np.array_equal(gemm.multiply(rows, b, cut=cut), np.repeat(expected[:1], 20, 0))
    flipped = gemm.multiply(a[::-1], b, cut=cut)
    assert np.array_equal(flipped, expected[::-1])


@pytest.mark.parametrize(
    ("left", "right", "added"),
    [
        ((3, 5, 8), (8, 6), (6,)),
        ((3, 5, 8), (8, 6), (5, 1)),
        ((2, 3, 5, 8), (3, 8, 6), (2, 1, 5, 6)),
        ((2, 1, 5, 8), (3, 8, 6), ()),
        ((2, 1, 2, 5, 8), (1, 3, 1, 8, 6), (3, 1, 5, 1)),
        ((5, 8), (4, 8, 6), (4, 1, 1)),
        ((0, 5, 8), (8, 6), (6,)),
        ((2, 5, 0), (0, 6), (6,)),
    ],
)
def test_batches(left: tuple, right: tuple, added: tuple) -> None:
    for dtype in (pf.float32, pf.bfloat16):
        a, b, c = x(*left, dtype=dtype), x(*right, dtype=dtype), x(*added, dtype=dtype)
        y = gemm.multiply(a, b, c, 2, -0.5)
        exact = 2 * (wide(a) @ wide(b)) - 0.5 * wide(c)
        assert y.shape == exact.shape and y.dtype == dtype
        np.testing.assert_allclose(wide(y), exact, rtol=2 * epsilon(dtype), atol=4e-5)


def test_nan_and_infinity_go_through() -> None:
    for dtype in (pf.float16, pf.float32):
        a, b = x(6, 40, dtype=dtype), x(40, 5, dtype=dtype)
        a[2, 39], a[4, 0] = np.nan, np.inf
        y = wide(gemm.multiply(a, b))
        with np.errstate(invalid="ignore"):
            exact = wide(a) @ wide(b)
        assert np.array_equal(np.isnan(y), np.isnan(exact))
        assert np.array_equal(y[4], exact[4])
    c = np.full((6, 5), np.nan, pf.float32)
    with pf.kernels("cuda"):
        assert not np.isnan(pf.addmm(c, x(6, 4), x(4, 5), beta=0)).any()


# ---------------------------------------------------------------- how the work is cut


@pytest.mark.parametrize("m", [1, 64, 200, 1024, 5000])
@pytest.mark.parametrize("n", [1, 100, 4096])
@pytest.mark.parametrize("k", [0, 3, 700, 20_000])
def test_plans_cover_everything(m: int, n: int, k: int) -> None:
    for _, dtype in KERNELS:
        made = gemm.plan(dtype, m, n, k)
        assert made.per_unit >= 1 and made.units * made.per_unit >= made.tiles * made.steps
        assert made.steps * made.size.depth >= k * dtype.itemsize
        assert made.size.shared <= 100 << 10  # twice in the 228 KB of a multiprocessor of 9.0


def test_few_tiles_are_cut_along_k_and_many_are_not() -> None:
    few, many = gemm.plan(pf.bfloat16, 128, 128, 65536), gemm.plan(pf.bfloat16, 4096, 4096, 4096)
    assert few.split and few.units > 200
    assert not many.split and many.name == "large" and many.units == many.tiles == 1024


# ---------------------------------------------------------------- precision


@pytest.fixture
def precision() -> Iterator[None]:
    yield
    pf.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("precision")
def test_float32_is_float32_unless_tf32_is_allowed() -> None:
    a, b = x(16, 64), x(64, 8)
    exact = wide(a) @ wide(b)

    def error() -> float:
        with pf.kernels("cuda"):
            return float(np.abs(wide(pf.matmul(a, b)) - exact).max())

    assert pf.get_float32_matmul_precision() == "highest"
    assert error() < 1e-5
    for word in ("high", "medium"):
        pf.set_float32_matmul_precision(word)
        assert pf.get_float32_matmul_precision() == word
        assert 1e-4 < error() < 2e-2
    with pf.kernels("cuda"):
        double = pf.matmul(a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(double, exact, rtol=1e-12)
    with pytest.raises(ArgumentError, match="no precision"):
        pf.set_float32_matmul_precision("fast")


# ---------------------------------------------------------------- epilogues

LAYER = trace(lambda s, bias, residual, scale: tanh(s + bias) * scale + residual, "layer")
SAVED = trace(lambda s, bias: (tanh(s + bias), s + bias), "saved")
GRADIENT = trace(lambda s, y, *, factor=1.0: s * (1 - y * y) * factor, "tanh_gradient")


@pytest.mark.parametrize(("family", "dtype"), KERNELS, ids=IDS)
@pytest.mark.parametrize("split", [False, True])
def test_bias_activation_scale_and_residual(family: str, dtype: Any, split: bool) -> None:
    k = 5 * gemm.SIZES[family][dtype]["small"].depth // dtype.itemsize
    a, b = x(10, k, dtype=dtype) / 8, x(k, 24, dtype=dtype)
    a = a.astype(dtype)
    bias, residual, scale = x(24, dtype=dtype), x(10, 24, dtype=dtype), x(10, 1, dtype=dtype)
    cut = cut_of(family, a, 24)
    cut = cut._replace(per_unit=2 if split else cut.steps)
    y = fused(a, b, LAYER, (bias, residual, scale), cut=cut)
    exact = np.tanh(wide(a) @ wide(b) + wide(bias)) * wide(scale) + wide(residual)
    assert y.dtype == dtype
    rounding = 2.0**-9 if family == "mma" and dtype == pf.float32 else 4 * epsilon(dtype)
    np.testing.assert_allclose(wide(y), exact, rtol=rounding, atol=4 * max(rounding, 1e-6))


def test_several_outputs_mixed_dtypes_and_runtime_scalars() -> None:
    a, b, bias = x(9, 16, dtype="bfloat16"), x(16, 20, dtype="bfloat16"), x(20)
    y, z = fused(a, b, SAVED, (bias,))
    exact = wide(a) @ wide(b) + wide(bias)
    assert y.dtype == z.dtype == pf.float32  # bfloat16 and float32 make float32
    np.testing.assert_allclose(z, exact, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(y, np.tanh(exact), rtol=1e-5, atol=1e-5)
    g = fused(x(9, 16), x(16, 20), GRADIENT, (y,), (0.5,))
    assert g.shape == y.shape and g.dtype == pf.float32


def test_the_activation_gradient_of_a_product_and_a_batch() -> None:
    g, w, y = x(2, 6, 12), x(5, 12), np.tanh(x(2, 6, 5))
    found = fused(g, w.T, GRADIENT, (y,), (2.0,))
    exact = (wide(g) @ wide(w.T)) * (1 - wide(y) ** 2) * 2
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


FACTOR = trace(lambda s, factor: s * factor, "times_factor")


@pytest.mark.parametrize(("family", "dtype"), KERNELS, ids=IDS)
@pytest.mark.parametrize("per_unit", [0, 1, 5])
def test_sums_along_the_columns(family: str, dtype: Any, per_unit: int) -> None:
    """Of integers, so exactly: whole tiles, tiles of several units, edges in both directions."""
    k = 3 * gemm.SIZES[family][dtype]["small"].depth // dtype.itemsize
    a, b = (rng.integers(-2, 3, shape).astype(dtype) for shape in ((150, k), (k, 75)))
    factor = rng.integers(-1, 2, (150, 75)).astype(dtype)
    cut = cut_of(family, a, 75)
    assert (cut.tiles, cut.steps) == (6, 3)
    y, sums = fused(a, b, FACTOR, (factor,), cut=cut._replace(per_unit=per_unit or 3), sums=True)
    exact = wide(a) @ wide(b) * wide(factor)
    np.testing.assert_array_equal(y, exact.astype(dtype))
    np.testing.assert_array_equal(sums, exact.sum(0).astype(dtype))
    assert sums.dtype == dtype


def test_sums_along_columns_of_large_tiles_and_of_nothing() -> None:
    a, b = (rng.integers(-2, 3, shape).astype(pf.bfloat16) for shape in ((130, 64), (64, 136)))
    factor = rng.integers(-1, 2, (130, 136)).astype(pf.bfloat16)
    cut = cut_of("mma", a, 136, name="large")
    sums = fused(a, b, FACTOR, (factor,), cut=cut, sums=True)[1]
    exact = (wide(a) @ wide(b) * wide(factor)).sum(0)
    np.testing.assert_array_equal(sums, exact.astype(pf.bfloat16))
    y, sums = fused(a[:0], b, FACTOR, (factor[:0],), sums=True)
    assert y.shape == (0, 136) and not sums.any() and sums.shape == (136,)


# The largest tiles, whose main loops leave the fewest registers.
_TIGHT = [
    (
        "mma",
        pf.bfloat16,
        gemm.instance("mma", pf.bfloat16, gemm.SIZES["mma"][pf.bfloat16]["large"]),
    ),
    ("mma", pf.float32, gemm.instance("mma", pf.float32, gemm.SIZES["mma"][pf.float32]["large"])),
    ("hopper", pf.bfloat16, hopper.instance(pf.bfloat16, 256, (True, True))),
    ("conv_mma", pf.bfloat16, conv._LARGE[pf.bfloat16].instance("gather", pf.bfloat16)),
]


@pytest.mark.parametrize(
    ("family", "dtype", "instance"), [_TIGHT[0], *sweeps.in_ci(_TIGHT[1:], "epilogues by NVRTC")]
)
def test_epilogues_leave_no_registers_in_memory(family: str, dtype: Any, instance: str) -> None:
    """Of a hidden layer's backward, with its sums, and of ends of residual blocks."""
    if why := nvrtc.why_not():
        pytest.skip(why)
    if family == "conv_mma":
        function = of_convolution("gelu", ("scale", "shift", "residual"))
        all_made = [epilogue(function, (dtype,) * 4, (), family)]
    else:
        dropped = of_residual(bias=True, residual=True, dropout=True)
        dtypes = (dtype, dtype, np.dtype(np.float32), dtype)
        all_made = [
            epilogue(slope("gelu"), (dtype,) * 2, (), family, sums=True),
            epilogue(dropped, dtypes, (), family, dropout=True),
        ]
    for arch in ["sm_90a"] if family == "hopper" else ["sm_80", "sm_100"]:
        for made in all_made:
            entry = f"{made.name}::{instance}"
            found = nvrtc.compile_verbosely(made.text, "epilogue.cu", entry, arch)
            assert "0 bytes spill stores, 0 bytes spill loads" in found.log


DROPPED = [
    ("mma", pf.bfloat16, (150, 96, 76), 5),
    ("mma", pf.float32, (70, 48, 68), 0),
    ("simt", pf.float32, (70, 33, 68), 2),
    ("simt", pf.float64, (66, 17, 12), 0),
    ("hopper", pf.bfloat16, (130, 72, 136), 0),
]


@pytest.mark.parametrize(("family", "dtype", "sizes", "per_unit"), DROPPED)
def test_residual_and_dropout_in_the_epilogue(
    family: str, dtype: Any, sizes: tuple, per_unit: int
) -> None:
    """Of integers, so exactly, with the bits of dropout alone; the residual is wider."""
    m, k, n = sizes
    a, b, bias = (rng.integers(-2, 3, s).astype(dtype) for s in ((m, k), (k, n), (n,)))
    residual = rng.integers(-9, 9, (m, n)).astype(np.float64 if dtype == np.float64 else np.float32)
    words = np.array([7, 1 << 33], np.uint64)  # as a captured graph has them
    function = of_residual(bias=True, residual=True, dropout=True)
    for stream in ((7, (1 << 33) + 5), (None, OnDevice(words, 1, 5))):
        given = (function, (bias, residual))
        dropout = Dropout(0.5, *stream)
        if family == "hopper":
            y = fused_hopper(a, b, *given, dropout=dropout)
        else:
            cut = cut_of(family, a, n)
            cut = cut._replace(per_unit=per_unit or cut.steps)
            y = fused(a, b, *given, cut=cut, dropout=dropout)
        kept = philox.bernoulli_mask(np, 7, (1 << 33) + 5, (m, n), 0.5)
        exact = residual + (wide(a) @ wide(b) + wide(bias)) * kept * 2
        assert y.dtype == residual.dtype
        np.testing.assert_array_equal(y, exact)


def test_dropout_in_the_epilogue_has_the_bits_of_its_stream() -> None:
    drop = trace(
        lambda s, *, key=0, offset=0: s * (philox_bits(key, offset) < 3_000_000_000), "dropped"
    )
    a, b = x(7, 8), x(8, 12)
    found = fused(a, b, drop, (), (5, 9))
    from pyframe.expr import compile_numpy

    mask = compile_numpy(drop)(np, np.ones((7, 12), np.float32), 5, 9)
    assert 0.5 < mask.mean() < 0.9
    assert np.array_equal(found != 0, mask != 0)


# ---------------------------------------------------------------- what the ops choose


def test_ops_run_them_and_say_why_not() -> None:
    for op in (pf.matmul, pf.nn.functional.linear, pf.addmm, pf.baddbmm, pf.addmv):
        assert "cuda" in [k.name for k in op.op.kernels["cuda"]]
    with pytest.raises(pf.errors.KernelError, match="only floating point"), pf.kernels("cuda"):
        pf.matmul(np.ones((2, 2), np.int64), np.ones((2, 2), np.int64))
    with pytest.raises(pf.errors.KernelError, match="no matrix"), pf.kernels("cuda"):
        pf.nn.functional.linear(x(4, 3), x(3))
