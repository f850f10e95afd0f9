"""CUDA convolutions in the emulator: every kernel and tile, layouts, odd sizes, epilogues.

Each against float64, within what the arithmetic promises: a rounding per addition, of the result,
and of each factor where they are rounded to tf32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import emulator, native
from pyframe.expr import tanh, trace
from pyframe.op import shifted
from pyframe.op.windows import product, spatial
from pyframe.ops import _cuda_conv as cuda
from pyframe.ops import _cuda_conv_direct as direct
from pyframe.ops import _cuda_conv_gemm as gemm
from pyframe.testing.accuracy import epsilon

rng = np.random.default_rng(0)
DTYPES = ("float32", "float64", "float16", "bfloat16")
BOTH = pytest.mark.parametrize("last", [False, True], ids=["channels_first", "channels_last"])


@pytest.fixture(autouse=True)
def emulated() -> Iterator[None]:
    """Also where a convolution is a product of matrices, which is an op of its own."""
    with pf.kernels("cuda"):
        yield


def random(*shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(pf.dtypes.as_dtype(dtype))


def wide(array: Any) -> np.ndarray:
    return array.astype(np.float64)


def in_layout(array: np.ndarray, last: bool) -> np.ndarray:
    if not last:
        return np.ascontiguousarray(array)
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def offset(array: np.ndarray) -> np.ndarray:
    """A copy whose first element is not at a multiple of 16 bytes, in the same layout."""
    room = np.zeros(array.size + 1, array.dtype)
    last = direct.is_channels_last(array)
    source = np.moveaxis(array, 1, -1) if last else array
    room[1:] = source.ravel()
    found = room[1:].reshape(source.shape)
    return np.moveaxis(found, -1, 1) if last else found


def geometry(n: int, **params: Any) -> dict:
    given = {"stride": 1, "padding": 0, "dilation": 1, **params}
    found: dict = {k: spatial("", "", given[k], n, 0) for k in ("stride", "padding", "dilation")}
    return {**found, "groups": params.get("groups", 1)}


def check(found: Any, exact: Any, size: Any, terms: int, factors: float = 0.0) -> None:
    """``size``: the same sum over absolute values, of so many terms."""
    computed = epsilon(pf.float64 if found.dtype == np.float64 else pf.float32)
    allowed = (np.sqrt(terms) * computed + factors) * size
    allowed = allowed + epsilon(found.dtype) * np.abs(exact)
    error = np.abs(wide(found) - exact) / np.maximum(allowed, 1e-300)
    assert found.shape == exact.shape
    assert error.max(initial=0) <= 1, f"{error.max():.3g} times what is allowed"


def check_all(x: Any, w: Any, bias: Any, params: dict, factors: float = 0.0) -> None:
    """Forward and both gradients."""
    values = tuple(params.values())
    a, b = wide(x), wide(w)
    y = cuda.forward(x, w, bias, **params)
    assert y.dtype == x.dtype
    more = 0 if bias is None else wide(bias).reshape((-1,) + (1,) * (w.ndim - 2))
    taps, n = product(w.shape[2:]), params["groups"]
    exact = shifted.convolve(np, a, b, None, *values) + more
    size = shifted.convolve(np, abs(a), abs(b), None, *values) + abs(more)
    check(y, exact, size, taps * w.shape[1] + 1, factors)
    g = in_layout(random(*y.shape, dtype=y.dtype.name), direct.is_channels_last(x))
    c = wide(g)
    found = cuda.grad_input(g, w, input_size=x.shape, **params)
    exact, size = (
        shifted.input_gradient(np, f(c), f(b), x.shape[2:], *values) for f in (np.asarray, np.abs)
    )
    assert found.dtype == x.dtype
    check(found, exact, size, taps * w.shape[0] // n, factors)
    found = cuda.grad_weight(g, x, weight_size=w.shape, **params)
    exact, size = (
        shifted.weight_gradient(np, f(c), f(a), w.shape[2:], *values) for f in (np.asarray, np.abs)
    )
    assert found.dtype == x.dtype
    check(found, exact, size, c.size // c.shape[1], factors)


# Input, weight, parameters. With few channels per group: the direct kernels.
DIRECT = [
    ((2, 3, 7), (3, 1, 3), {"padding": 1, "groups": 3}),
    ((2, 4, 6, 5), (4, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 4}),
    ((1, 4, 6, 9), (8, 2, 3, 3), {"padding": 1, "groups": 2}),
    ((2, 4, 9, 9), (4, 1, 3, 3), {"padding": 2, "stride": (2, 3), "dilation": 2, "groups": 4}),
    ((2, 2, 9, 10), (2, 2, 5, 5), {"padding": 2}),
    ((1, 2, 9, 10), (2, 1, 7, 7), {"padding": 3, "groups": 2}),
    ((1, 2, 5, 6, 7), (2, 1, 3, 2, 3), {"padding": (1, 1, 0), "stride": (1, 2, 1), "groups": 2}),
    ((2, 16, 6, 9), (16, 1, 3, 3), {"padding": 1, "groups": 16}),
    ((2, 16, 6, 9), (16, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 16}),
    ((1, 6, 6, 9), (6, 1, 3, 2), {"padding": 1, "stride": 2, "dilation": (1, 2), "groups": 6}),
]
# With more: products of matrices.
PRODUCTS = [
    ((2, 3, 9), (16, 3, 3), {}),
    ((2, 8, 7, 9), (16, 8, 3, 3), {"padding": 1}),
    ((2, 8, 7, 8), (12, 8, 3, 3), {"padding": 1, "stride": 2}),
    (
        (1, 12, 7, 9),
        (14, 6, 3, 2),
        {"padding": (2, 1), "stride": (2, 3), "dilation": (2, 2), "groups": 2},
    ),
    ((1, 5, 7, 9), (9, 5, 3, 3), {"stride": 2, "dilation": (1, 2)}),
    ((1, 16, 4, 4), (72, 16, 1, 1), {"stride": 2}),
    ((1, 5, 4, 5, 6), (10, 5, 2, 3, 2), {"padding": (1, 1, 0), "stride": (1, 2, 1)}),
]
# With one tap: products of the arrays as they lie, where 16 bytes can be read at a time.
ONE_TAP = [
    ((3, 16, 4, 4), (24, 16, 1, 1), {}),
    ((2, 8, 16), (16, 8, 1), {}),
    ((2, 10, 5), (9, 10, 1), {"dilation": 3}),
    ((1, 8, 2, 4), (16, 4, 1, 1), {"groups": 2}),
]


@pytest.mark.parametrize(
    ("dtype", "last"),
    [(d, False) for d in DTYPES] + [("float32", True), ("bfloat16", True)],
    ids=lambda v: {True: "channels_last", False: "channels_first"}.get(v, v),
)
@pytest.mark.parametrize("case", DIRECT + PRODUCTS + ONE_TAP, ids=lambda c: f"{c[0]}-{c[1]}")
def test_all_three_agree_with_float64(case: tuple, dtype: str, last: bool) -> None:
    x, w, params = case
    bias = random(w[0], dtype=dtype) if sum(x) % 2 else None
    x, w = in_layout(random(*x, dtype=dtype), last), random(*w, dtype=dtype)
    check_all(x, w, bias, geometry(w.ndim - 2, **params))


@pytest.fixture
def tf32() -> Iterator[None]:
    pf.set_float32_matmul_precision("high")
    yield
    pf.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("case", PRODUCTS + ONE_TAP[:1], ids=lambda c: f"{c[0]}-{c[1]}")
@BOTH
def test_float32_on_tensor_cores_where_that_is_allowed(case: tuple, last: bool) -> None:
    x, w, params = case
    x, w = in_layout(random(*x), last), random(*w)
    params = geometry(w.ndim - 2, **params)
    check_all(x, w, random(len(w)), params, factors=2 * 2.0**-11)
    exact = shifted.convolve(np, wide(x), wide(w), None, *params.values())
    error = np.abs(wide(cuda.forward(x, w, **params)) - exact).max() / np.abs(exact).max()
    assert error > 1e-6, "float32 was not rounded to tf32"


def _run_large(x: Any, w: Any, params: dict, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    before = set(emulator.executed)
    emulator.executed.clear()
    monkeypatch.setattr(gemm, "BLOCKS", 1)
    with emulator.seeds(0):
        check_all(x, w, None, params, 2.0**-10 if cuda._tf32() and x.dtype == np.float32 else 0.0)
    found = {instance for _, instance in emulator.executed}
    emulator.executed |= before
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@BOTH
def test_large_tiles(dtype: str, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = in_layout(random(1, 72, 3, 15, dtype=dtype), last)
    w = random(136, 72, 1, 3, dtype=dtype)
    params = geometry(2, padding=(0, 1), stride=(1, 2))
    found = _run_large(x, w, params, monkeypatch)
    assert {i for i in found if "128, 128" in i and "gather" in i}
    assert {i for i in found if "128, 128" in i and "weight" in i}


@pytest.mark.usefixtures("tf32")
def test_large_tiles_of_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = in_layout(random(1, 72, 2, 15), True), random(136, 72, 1, 3)
    found = _run_large(x, w, geometry(2, padding=(0, 1)), monkeypatch)
    assert {i for i in found if "mma<float, 128, 128" in i}


@pytest.mark.parametrize("channels", [32, 34])
def test_tall_tiles(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 34 channels only 4 bytes can be copied at once."""
    x, w = random(1, channels, 3, 15, dtype="float16"), random(40, channels, 1, 3, dtype="float16")
    found = _run_large(x, w, geometry(2, padding=(0, 1)), monkeypatch)
    assert {i for i in found if "128, 64" in i and i.endswith(f"{16 if channels == 32 else 4}>")}


@pytest.mark.parametrize("dtype", DTYPES)
@BOTH
def test_unaligned_arrays(dtype: str, last: bool) -> None:
    for x, w, params in (DIRECT[7], PRODUCTS[1]):
        data, weight = in_layout(random(*x, dtype=dtype), last), random(*w, dtype=dtype)
        check_all(offset(data), offset(weight), None, geometry(2, **params))


def test_strided_arrays() -> None:
    for x, w, params in (DIRECT[1], PRODUCTS[2]):
        data = random(*x[:-1], 2 * x[-1])[..., ::2]
        check_all(data, random(*w[::-1]).transpose(), None, geometry(2, **params))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_weight_gradient_over_many_positions(dtype: str) -> None:
    """Several splits of the positions, and chunks of the direct kernels."""
    for channels, last in ((8, False), (1, False), (1, True)):
        x = in_layout(random(2, 8, 24, 24, dtype=dtype), last)
        groups = 8 // channels
        w = (16 // groups if groups == 1 else 8, channels, 3, 3)
        params = geometry(2, padding=1, groups=groups)
        g = in_layout(random(2, w[0], 24, 24, dtype=dtype), last)
        with emulator.seeds(0):
            found = cuda.grad_weight(g, x, weight_size=w, **params)
        values = tuple(params.values())
        exact = shifted.weight_gradient(np, wide(g), wide(x), (3, 3), *values)
        size = shifted.weight_gradient(np, abs(wide(g)), abs(wide(x)), (3, 3), *values)
        check(found, exact, size, 2 * 24 * 24)


@pytest.mark.parametrize("dtype", DTYPES)
@BOTH
def test_epilogues(dtype: str, last: bool) -> None:
    x = in_layout(random(2, 8, 5, 6, dtype=dtype), last)
    w = random(12, 8, 3, 3, dtype=dtype)
    params = geometry(2, padding=1)
    scale, shift = random(12), random(12)
    residual = in_layout(random(2, 12, 5, 6, dtype=dtype), last)
    rest = {k: params[k] for k in ("stride", "padding", "dilation")}
    y = gemm.gather(x, w, residual.shape, 1, rest, False, False, shift, scale, residual, (0.0, 6.0))
    column = (-1, 1, 1)
    values = tuple(params.values())
    plain = shifted.convolve(np, wide(x), wide(w), None, *values)
    size = shifted.convolve(np, abs(wide(x)), abs(wide(w)), None, *values)
    exact = plain * wide(scale).reshape(column) + wide(shift).reshape(column) + wide(residual)
    size = size * abs(wide(scale)).reshape(column) + abs(wide(shift)).reshape(column)
    check(y, np.clip(exact, 0, 6), size + abs(wide(residual)) + abs(exact), 8 * 9 + 3)
    assert (y == 0).any() and (wide(y) > 0).any()
    residual[0, 0, 0, 0] = np.nan
    y = gemm.gather(x, w, residual.shape, 1, rest, False, False, None, None, residual, (0.0, 6.0))
    assert np.isnan(wide(y)).sum() == 1 and np.isnan(wide(y[0, 0, 0, 0]))


@BOTH
def test_outputs_lie_as_inputs_do(last: bool) -> None:
    for x, w, params in (DIRECT[7], PRODUCTS[1]):
        data, weight = in_layout(random(*x), last), random(*w)
        params = geometry(2, **params)
        y = cuda.forward(data, weight, **params)
        gx = cuda.grad_input(in_layout(random(*y.shape), last), weight, input_size=x, **params)
        for array in (y, gx):
            assert direct.is_channels_last(array) == last and array.flags.c_contiguous != last


@BOTH
def test_no_matrix_of_patches_is_allocated(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = in_layout(random(1, 8, 9, 9), last), random(12, 8, 5, 5)
    params = geometry(2, padding=2)
    original, total = native.empty, [0]

    def counted(shape: Any, dtype: Any) -> Any:
        found = original(shape, dtype)
        total[0] += found.nbytes
        return found

    monkeypatch.setattr(native, "empty", counted)
    g = in_layout(random(1, 12, 9, 9), last)
    with emulator.seeds(0):
        for run in (
            lambda: cuda.forward(x, w, **params),
            lambda: cuda.grad_input(g, w, input_size=x.shape, **params),
            lambda: cuda.grad_weight(g, x, weight_size=w.shape, **params),
        ):
            total[0] = 0
            run()
            # Output, channels-last copies, weight; a matrix of patches has 25 times the input.
            assert 0 < total[0] < 6 * x.nbytes + 4 * w.nbytes


@pytest.mark.parametrize("shape", [(0, 8, 5, 5), (0, 2, 5, 5)])
def test_empty_batches(shape: tuple) -> None:
    w, params = random(16, shape[1], 3, 3), geometry(2)
    if shape[1] == 2:
        w = random(4, 1, 3, 3)
        params["groups"] = 2
    x = random(*shape)
    assert cuda.forward(x, w, **params).shape == (0, len(w), 3, 3)
    g = random(0, len(w), 3, 3)
    assert cuda.grad_input(g, w, input_size=shape, **params).shape == shape
    found = cuda.grad_weight(g, x, weight_size=w.shape, **params)
    assert found.shape == w.shape and not found.any()


@pytest.mark.parametrize("channels", [2, 12])
def test_transposed_convolutions(channels: int) -> None:
    x, w = random(2, channels, 4, 5), random(channels, 3, 3, 3)
    params = {"stride": 2, "padding": 1, "output_padding": 1}
    with pf.kernels("portable"):
        exact = pf.conv_transpose2d(wide(x), wide(w), None, **params)
        size = pf.conv_transpose2d(abs(wide(x)), abs(wide(w)), None, **params)
    with pf.kernels("cuda"):
        y = pf.conv_transpose2d(x, w, None, **params)
    check(y, exact, size, channels * 9)


def test_nan_reaches_the_windows_that_have_it() -> None:
    for w, groups in ((random(16, 8, 3, 3), 1), (random(8, 1, 3, 3), 8)):
        x = random(1, 8, 6, 6)
        x[0, 3, 2, 2] = np.nan
        params = geometry(2, groups=groups)
        y = cuda.forward(x, w, **params)
        expected = shifted.convolve(np, x, w, None, *params.values())
        assert np.array_equal(np.isnan(y), np.isnan(expected)) and np.isnan(y).any()


def test_more_blocks_than_a_grid_has_across() -> None:
    """Groups, phases and taps are blocks along y and z, of which there are 65535 at most."""
    x, many = np.empty((1, 65536 * 5, 1), np.float32), np.empty((65536 * 5, 5, 1), np.float32)
    params = geometry(1, groups=65536)
    assert "65535 groups" in cuda._supports(x, many, **params)
    params = geometry(1, stride=(70000,))
    grad, w = np.empty((1, 16, 1), np.float32), np.empty((16, 16, 1), np.float32)
    assert "steps of a stride" in cuda._supports_input(grad, w, input_size=(1, 16, 1), **params)
    assert not cuda._supports(np.empty((1, 16, 1), np.float32), w, **params)
    long, one = np.empty((1, 1, 70000), np.float32), np.empty((1, 1, 1), np.float32)
    params = geometry(1)
    why = cuda._supports_weight(one, long, weight_size=(1, 1, 70000), **params)
    assert "65535 elements" in why


# ---------------------------------------------------------------- any function behind a convolution

GATED = trace(lambda s, scale, near, *, k=1.0: tanh(s * scale) * k + near, "gated_convolution")


@BOTH
@pytest.mark.parametrize(
    ("dtype", "outs", "stride"), [("float32", 16, 1), ("float32", 10, 2), ("bfloat16", 16, 1)]
)
def test_a_function_of_the_sums(last: bool, dtype: str, outs: int, stride: int) -> None:
    """A vector of channels, an array of the result's shape and a number, in groups of channels."""
    x, w = random(2, 16, 7, 6, dtype=dtype), random(outs, 8, 3, 3, dtype=dtype) / 8
    w = w.astype(x.dtype)
    params = {"stride": (stride,) * 2, "padding": (1, 1), "dilation": (1, 1)}
    shape = (2, outs, *(7 // stride + (stride > 1), 6 // stride))
    scale, near = random(outs, dtype=dtype), random(*shape, dtype=dtype)
    after = gemm.After(GATED, (scale, in_layout(near, last)), (0.5,))
    y = gemm.gather(in_layout(x, last), w, shape, 2, params, False, after=after)
    assert direct.is_channels_last(y) == last and y.dtype == x.dtype
    sums = pf.conv2d.op.reference(wide(x), wide(w), None, **params, groups=2)
    expected = np.tanh(sums * wide(scale)[:, None, None]) * 0.5 + wide(near)
    few = 4 * epsilon(y.dtype)
    np.testing.assert_allclose(wide(y), expected, rtol=few, atol=8 * few)


def test_an_activation_instead_of_limits() -> None:
    """Fused where nothing is recorded, one op more where the backward needs what is before it."""
    conv_affine = pf.nn.functional.conv_affine
    x, w, scale = (pf.tensor(random(*s)) for s in ((1, 6, 5, 5), (12, 6, 3, 3), (12,)))
    before = conv_affine(x, w, scale, padding=1)
    y = conv_affine(x, w, scale, padding=1, activation="gelu")
    np.testing.assert_allclose(y.numpy(), pf.nn.functional.gelu(before).numpy(), atol=1e-5)
    recorded = conv_affine(x, w.requires_grad_(), scale, padding=1, activation="gelu")
    assert recorded.grad_fn.rule.name == "gelu"
    np.testing.assert_allclose(recorded.detach().numpy(), y.numpy(), atol=1e-5)
    with pytest.raises(pf.errors.ChoiceError, match="limits or an activation"):
        conv_affine(x, w, min=0, activation="gelu")
