"""Attention against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import pyframe
from pyframe.errors import DtypeError, ShapeError
from pyframe.op.registry import composites
from tests.parity.against_torch import close, compare, ours, theirs

DTYPES = ("float32", "float64")


def attention(*args: Any, **kwargs: Any) -> Any:
    return composites["scaled_dot_product_attention"].function(*args, **kwargs)


def their_attention(*args: Any, **kwargs: Any) -> Any:
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivatives
        return F.scaled_dot_product_attention(*args, **kwargs)


def normal(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def operands(dtype: str) -> list[np.ndarray]:
    return [normal(dtype, 2, 3, 4, 5), normal(dtype, 2, 3, 6, 5), normal(dtype, 2, 3, 6, 7)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}])
def test_attention(options: dict, dtype: str) -> None:
    compare(
        lambda *a: attention(*a, **options),
        lambda *a: their_attention(*a, **options),
        operands(dtype),
        factor=3,
    )
    compare(
        lambda *a: attention(*a, **options),
        lambda *a: their_attention(*a, **options),
        [a[0, 0] for a in operands(dtype)],
        factor=3,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks(dtype: str) -> None:
    mask = np.random.default_rng(1).random((4, 6)) > 0.5
    mask[:, 0] = True
    for shape in [(4, 6), (1, 4, 6), (2, 1, 4, 6)]:
        m = np.broadcast_to(mask, shape)
        compare(
            lambda *a, m=m: attention(*a, ours(m)),
            lambda *a, m=m: their_attention(*a, theirs(m)),
            operands(dtype),
            factor=3,
        )
        learnt = [*operands(dtype), normal(dtype, *shape)]
        compare(attention, their_attention, learnt, factor=3)


def test_rows_without_keys_give_zero() -> None:
    mask = np.ones((4, 6), bool)
    mask[1] = False
    arrays = operands("float64")
    compare(
        lambda *a: attention(*a, ours(mask)),
        lambda *a: their_attention(*a, theirs(mask)),
        arrays,
        second=False,
    )
    y = attention(*map(ours, arrays), ours(mask)).numpy()
    assert not y[:, :, 1].any()
    assert np.isfinite(y).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcasting_and_grouped_queries(dtype: str) -> None:
    arrays = [normal(dtype, 2, 4, 3, 5), normal(dtype, 1, 4, 6, 5), normal(dtype, 2, 1, 6, 5)]
    compare(attention, their_attention, arrays, factor=3)
    arrays = [normal(dtype, 2, 4, 3, 5), normal(dtype, 2, 2, 6, 5), normal(dtype, 2, 2, 6, 5)]
    compare(
        lambda *a: attention(*a, enable_gqa=True),
        lambda *a: their_attention(*a, enable_gqa=True),
        arrays,
        factor=3,
    )


def test_many_blocks() -> None:
    arrays = [normal("float32", 3, 300, 8, seed=k) for k in range(3)]
    compare(
        lambda *a: attention(*a, is_causal=True),
        lambda *a: their_attention(*a, is_causal=True),
        arrays,
        second=False,
        factor=3,
    )


def test_large_scores_are_stable() -> None:
    arrays = [100 * normal("float32", 4, 8, seed=k) for k in range(3)]
    compare(attention, their_attention, arrays, second=False, factor=500)


def test_dropout() -> None:
    q, k, v = (ours(a, True) for a in operands("float64"))
    pyframe.manual_seed(1)
    y = attention(q, k, v, dropout_p=0.5, is_causal=True)
    pyframe.manual_seed(1)
    again = attention(q, k, v, dropout_p=0.5, is_causal=True)
    assert np.array_equal(y.detach().numpy(), again.detach().numpy())
    assert not np.allclose(y.detach().numpy(), attention(q, k, v, is_causal=True).detach().numpy())
    y.sum().backward()
    assert q.grad is not None
    pyframe.manual_seed(0)
    kept = np.mean(
        [attention(q, k, v, dropout_p=0.3).detach().numpy() for _ in range(2000)], axis=0
    )
    exact = attention(q, k, v).detach().numpy()
    assert np.abs(kept - exact).max() < 0.15


def test_attention_errors() -> None:
    x, t = pyframe.zeros(4, 5), torch.zeros(4, 5)
    for mine, other in [
        ((x, pyframe.zeros(4, 6), x), (t, torch.zeros(4, 6), t)),
        ((x, x, pyframe.zeros(3, 5)), (t, t, torch.zeros(3, 5))),
        ((x[0], x, x), (t[0], t, t)),
        ((x, x, x, pyframe.zeros(4, 3)), (t, t, t, torch.zeros(4, 3))),
    ]:
        with pytest.raises(ShapeError):
            attention(*mine)
        with pytest.raises(RuntimeError):
            F.scaled_dot_product_attention(*other)
    with pytest.raises(DtypeError):
        attention(x, x.to("float64"), x)
    with pytest.raises(ShapeError, match="dropout_p"):
        attention(x, x, x, dropout_p=1.5)


# ---- multi-head attention


def _multi_head(
    arrays: list, mode: str, options: dict, dtype: str
) -> tuple[list[np.ndarray], Any, Any]:
    embed, heads = 6, 2
    weights = [normal(dtype, 3 * embed, embed), normal(dtype, 3 * embed)]
    weights += [normal(dtype, embed, embed, seed=1), normal(dtype, embed)]

    def caller(function: Any, convert: Any) -> Any:
        def call(*given: Any) -> Any:
            *sources, w_in, b_in, w_out, b_out = given
            q, k, v = sources * 3 if mode == "self" else sources
            masks = {
                name: convert(m) if isinstance(m, np.ndarray) else m for name, m in options.items()
            }
            y, weights = function(
                q, k, v, embed, heads, w_in, b_in, None, None, masks.pop("add_zero_attn", False),
                0.0, w_out, b_out, True, **masks,
            )  # fmt: skip
            return y if weights is None else (y, weights)

        return call

    mine = caller(composites["multi_head_attention_forward"].function, ours)
    return [*arrays, *weights], mine, caller(F.multi_head_attention_forward, theirs)


PADDING = np.array([[False, False, True, False], [False, True, True, False]])
CAUSAL = np.triu(np.ones((4, 4), bool), 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"need_weights": False},
        {"average_attn_weights": False},
        {"attn_mask": CAUSAL},
        {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
        {"key_padding_mask": PADDING, "need_weights": False, "add_zero_attn": True},
        {"attn_mask": np.where(CAUSAL, -np.inf, 0.0).astype(np.float32), "need_weights": False},
    ],
)
def test_multi_head_self_attention(options: dict, dtype: str) -> None:
    if "attn_mask" in options and options["attn_mask"].dtype != bool:
        options = {**options, "attn_mask": options["attn_mask"].astype(dtype)}
    arrays, mine, other = _multi_head([normal(dtype, 4, 2, 6)], "self", options, dtype)
    with sdpa_kernel(SDPBackend.MATH):
        compare(mine, other, arrays, factor=5, second=False)


def test_multi_head_cross_attention_and_no_batch() -> None:
    sources = [
        normal("float64", 3, 2, 6),
        normal("float64", 5, 2, 6),
        normal("float64", 5, 2, 6, seed=2),
    ]
    arrays, mine, other = _multi_head(sources, "cross", {}, "float64")
    with sdpa_kernel(SDPBackend.MATH):
        compare(mine, other, arrays)
        arrays, mine, other = _multi_head([s[:, 0] for s in sources], "cross", {}, "float64")
        compare(mine, other, arrays, second=False)


def test_attention_of_half_types() -> None:
    for dtype in ("float16", "bfloat16"):
        arrays = operands("float32")
        y = attention(*(ours(a).to(dtype) for a in arrays), is_causal=True)
        u = attention(*map(ours, arrays), is_causal=True)
        assert y.dtype.name == dtype
        close(y.to("float32"), u, 3e-2 if dtype == "bfloat16" else 4e-3, dtype)
