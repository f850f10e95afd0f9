"""kernels/attention*.cu in the emulator: shapes, masks, strides and dtypes against float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import emulator, launch
from pyframe.backend.capture import OnDevice
from pyframe.ops import _attention_cases as cases
from pyframe.ops import _cuda_attention as cuda
from pyframe.ops.attention import native_attention
from tests.doubles.gpu import Host

rng = np.random.default_rng(11)
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
ROUNDING = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}
ROUNDING |= dict(zip(HALVES, (2.0**-11, 2.0**-8), strict=True))


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


def wide(x: Any) -> Any:
    return x if x is None or x.dtype == bool else x.astype(np.float64)


def check(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False, p: float = 0.0) -> None:
    """Forward and backward against float64.

    The bound is that of the analysis: each product of a weight, which is rounded to the dtype, is
    off by one rounding, and so is each result; sums are those of the dtype that is computed in.
    """
    options: dict[str, Any] = {"is_causal": causal, "scale": q.shape[-1] ** -0.5, "dropout_p": p}
    options |= {"seed": 7, "offset": 3}
    inner = 2.0**-20 if q.dtype != np.float64 else 2.0**-48
    half = q.dtype in HALVES
    rounding, least = ROUNDING[q.dtype], 2.0**-25 if q.dtype == np.float16 else 0.0

    def close(found: Any, exact: Any, products: Any, scale: Any) -> None:
        """``products``: sums of magnitudes; ``scale``: those that float16's weights multiply."""
        assert found.dtype == q.dtype and found.shape == exact.shape
        bound = (rounding if half else 0) * products + rounding * np.abs(exact)
        bound += inner * products + least * (scale + 1) + inner
        worst = float((np.abs(found.astype(np.float64) - exact) / bound).max())
        assert worst <= 1, f"{worst} times the bound"

    y, log_mass = cuda.attention(q, k, v, mask, **options)
    exact = [wide(x) for x in (q, k, v, mask)]
    expected, expected_mass = cases.reference(*exact, **options)
    products = cases.reference(exact[0], exact[1], np.abs(exact[2]), exact[3], **options)[0]
    close(y, expected, products, np.abs(exact[2]).sum(-2, keepdims=True).max())
    np.testing.assert_allclose(log_mass, expected_mass, rtol=8 * inner, atol=8 * inner)

    g = normal(*y.shape, dtype=q.dtype)
    saved = (wide(g), *exact[:3], wide(y), wide(log_mass), exact[3])
    found = cuda.attention_backward(g, q, k, v, y, log_mass, mask, **options)
    weights = cases._weights_reference(exact[0], exact[1], exact[3], causal, options["scale"])
    weights = weights * np.exp(-wide(log_mass))[..., None]
    factors = cases._factors_reference(weights.shape, p, 7, 3)
    # What d(scores) is the difference of, since that is rounded too.
    slopes = np.einsum("...lv,...sv->...ls", np.abs(wide(g)), np.abs(exact[2])) * factors
    slopes = slopes + np.sum(np.abs(wide(g) * wide(y)), -1, keepdims=True)
    exactly = np.einsum("...lv,...sv->...ls", wide(g), exact[2]) * factors
    exactly = np.abs(exactly - np.sum(wide(g) * wide(y), -1, keepdims=True))
    s = options["scale"] * weights * (exactly + (inner / rounding if half else 1) * slopes)
    products = (
        np.einsum("...ls,...se->...le", s, np.abs(exact[1])),
        np.einsum("...ls,...le->...se", s, np.abs(exact[0])),
        np.einsum("...ls,...lv->...sv", weights * factors, np.abs(wide(g))),
    )
    scales = [np.abs(x).sum(-2).max() for x in (exact[1], exact[0], wide(g))]
    for got, e, m, most in zip(
        found, cases.backward_reference(*saved, **options), products, scales, strict=True
    ):
        close(got, e, cases.unbroadcast(m, e.shape), most * max(1, m.size // max(e.size, 1)))


# Features, and lengths that are no multiple of a block.
SIZES = [(32, 130, 70), (64, 40, 130), (128, 40, 70), (256, 20, 40)]


@pytest.mark.parametrize(("size", "dtype"), [*zip(SIZES, HALVES * 2, strict=True)], ids=str)
def test_every_width_of_half_types(size: tuple, dtype: Any) -> None:
    width, queries, keys = size
    q, k, v = (normal(1, n, width, dtype=dtype) for n in (queries, keys, keys))
    check(q, k, v)
    check(q, k, v, rng.random((queries, keys)) < 0.7, causal=True)


@pytest.mark.parametrize(
    ("width", "dtype"), [(64, np.float64), (128, np.float32), (256, np.float64)], ids=str
)
def test_every_width_of_float_and_double(width: int, dtype: Any) -> None:
    q, k, v = (normal(1, n, width, dtype=dtype) for n in (35, 70, 70))
    check(q, k, v, causal=True)


@pytest.mark.parametrize("dtype", [HALVES[1], np.float32], ids=str)
def test_odd_widths_lengths_and_alignments(dtype: Any) -> None:
    check(normal(33, 9, dtype=dtype), normal(65, 9, dtype=dtype), normal(65, 13, dtype=dtype))
    q, k, v = normal(3, 20, 33, dtype=dtype)[:, :, 1:]
    check(q, k, v)


@pytest.mark.parametrize("dtype", [HALVES[0], np.float32], ids=str)
def test_masks_and_causality(dtype: Any) -> None:
    q, k, v = (normal(2, n, 16, dtype=dtype) for n in (70, 50, 50))
    keep = rng.random((2, 1, 50)) < 0.5
    keep[1] = False  # rows without any key
    check(q, k, v, keep)
    check(q, k, v, normal(70, 1), causal=True)
    y, log_mass = cuda.attention(q, k, v, keep, is_causal=False, scale=1.0)
    assert not y[1].any() and not log_mass[1].any()
    check(v, q, q, causal=True)  # more keys than queries see


@pytest.mark.parametrize("dtype", [HALVES[0], np.float32], ids=str)
@pytest.mark.parametrize("keys", [48, 49])
def test_dropped_weights_are_those_of_the_cpu(dtype: Any, keys: int) -> None:
    q, k, v = (normal(2, n, 16, dtype=dtype) for n in (20, keys, keys))
    check(q, k, v, p=0.3)


def test_a_stream_on_the_device_is_that_of_its_numbers() -> None:
    """What a captured graph hands over: seed and offset in memory."""
    q = normal(9, 16, dtype=np.float16)
    options: dict[str, Any] = {"is_causal": False, "scale": 1.0, "dropout_p": 0.5}
    expected = cuda.attention(q, q, q, **options, seed=5, offset=12)[0]
    words = np.array([5, 10], np.uint64)
    offset = OnDevice(words, 1, 2)
    assert np.array_equal(cuda.attention(q, q, q, **options, seed=0, offset=offset)[0], expected)


@pytest.mark.parametrize("dtype", [HALVES[1], np.float32], ids=str)
def test_shared_heads_and_split_heads(dtype: Any) -> None:
    """Heads that are views of [batch, time, heads · features]; two queries' heads share keys."""
    q = normal(2, 17, 4, 16, dtype=dtype).swapaxes(1, 2)
    k, v = (normal(2, 19, 2, 16, dtype=dtype).swapaxes(1, 2) for _ in range(2))
    check(q.reshape(2, 2, 2, 17, 16), k[:, :, None], v[:, :, None], causal=True)
    pairs = (q.reshape(2, 2, 2, 17, 16), k[:, :, None], v[:, :, None])
    y = cuda.attention(*pairs, is_causal=False, scale=0.25)[0].reshape(q.shape)
    for head in range(4):
        alone = cuda.attention(
            *(x[:, h : h + 1] for x, h in ((q, head), (k, head // 2), (v, head // 2))),
            is_causal=False,
            scale=0.25,
        )[0]
        assert np.array_equal(y[:, head : head + 1], alone)


def test_the_output_lies_as_the_queries_do() -> None:
    q = normal(2, 17, 4, 16).swapaxes(1, 2)
    y = cuda.attention(q, q, q, is_causal=False, scale=1.0)[0]
    assert y.swapaxes(1, 2).flags.c_contiguous


@pytest.mark.parametrize("dtype", [HALVES[0], np.float32], ids=str)
def test_many_leading_dimensions(dtype: Any) -> None:
    q = normal(2, 2, 2, 2, 5, 8, dtype=dtype)
    k = normal(1, 2, 1, 2, 6, 8, dtype=dtype)
    check(q, k, k[:, :, :, ::-1], rng.random((2, 1, 5, 6)) < 0.8)
    check(q, k, normal(2, 1, 1, 1, 6, 8, dtype=dtype))


@pytest.mark.parametrize("dtype", [HALVES[0], np.float32], ids=str)
def test_infinities_and_nan(dtype: Any) -> None:
    """As the portable forward: what a row sees decides, and nothing else."""
    q, k, v = (normal(2, 9, 8, dtype=dtype) for _ in range(3))
    q[0, 2], k[1, 3, 0] = np.nan, np.inf
    found = cuda.attention(q, k, v, is_causal=False, scale=-1.0)
    with pf.kernels("portable"), np.errstate(invalid="ignore"):
        expected = native_attention(q, k, v, None, False, -1.0)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    assert np.isnan(found[0][0, 2]).all() and not np.isnan(found[0][0, 3]).any()


def test_the_largest_weights_need_no_slack() -> None:
    """Scores that rise slowly over the keys, so that no step rescales, and fast, so that all do."""
    q = np.ones((1, 8, 32), np.float16)
    for slope in (0.001, 0.5):
        k = np.ones((1, 200, 32), np.float16) * (slope * np.arange(200)[:, None]).astype(np.float16)
        check(q, k, normal(1, 200, 32, dtype=np.float16))


def test_what_is_not_supported() -> None:
    x = normal(4, 260)
    assert "256 features" in cuda.not_cuda_attention(x, x, x)
    assert "no elements" in cuda.not_cuda_attention(x[:0], x, x)
    x = x[:, :9]
    assert "dtypes differ" in cuda.not_cuda_attention(x, x.astype(np.float64), x)


def test_kernels_of_whole_packs_run_only_where_rows_are() -> None:
    before = set(emulator.executed)
    emulator.executed.clear()
    x = normal(3, 9, dtype=np.float16)
    cuda.attention(x, x, x, is_causal=False, scale=1.0)
    assert {i for _, i in emulator.executed} == {"attention_forward<pf::float16, 32, 1, 64, false>"}
    emulator.executed |= before


def test_devices_that_are_too_old_or_have_less_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(capability=(7, 5))
    host.shared_memory = lambda device: {201: 101_376, 202: 232_448}[device]  # type: ignore
    monkeypatch.setattr(launch, "host", lambda: host)

    def on(device: int) -> Any:
        data = SimpleNamespace(ptr=256, device_id=device)
        return SimpleNamespace(size=8, shape=(2, 4), dtype=HALVES[0], data=data)

    assert "8.0, and this device has 7.5" in cuda.not_cuda_attention(on(200), on(200), on(200))
    assert cuda._cut_queries(True, 256, on(202))[1:] == (True, 131_584)
    assert cuda._cut_queries(True, 256, on(201))[1:] == (False, 98_816)
    assert cuda._cut_queries(True, 128, on(201))[1:] == (True, 99_328)
