"""Shapes, joining and splitting against PyTorch: values, gradients, second gradients, dtype, layout
of views, error type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as TF

import pyframe as pf
import pyframe.nn.functional as F

from .against_torch import compare


def _flat(result: Any) -> list:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def against_torch(run: Callable, *shapes: tuple, dtype: str = "float64") -> None:
    """Runs ``run(module, functional, *tensors)`` with both and compares everything."""
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(s).astype(dtype) for s in shapes]
    compare(lambda *x: run(pf, F, *x), lambda *x: run(torch, TF, *x), arrays)


ONE: dict[str, tuple[Callable, tuple]] = {
    "reshape": (lambda m, f, x: x.reshape(2, 6), (3, 4)),
    "reshape_tuple": (lambda m, f, x: m.reshape(x, (-1, 2)), (3, 4)),
    "reshape_copy": (lambda m, f, x: x.t().reshape(-1), (3, 4)),
    "reshape_0d": (lambda m, f, x: x.reshape(()), (1, 1)),
    "reshape_empty": (lambda m, f, x: x.reshape(5, 0), (0, 3)),
    "view": (lambda m, f, x: x.view(4, -1), (2, 3, 4)),
    "view_of_slice": (lambda m, f, x: x[:, :2].view(3, 2, 1), (3, 4)),
    "view_of_transpose": (lambda m, f, x: x.transpose(0, 1).view(4, 3, 1), (3, 4)),
    "view_split": (lambda m, f, x: x.permute(1, 0, 2).view(3, 2, 2, 2), (2, 3, 4)),
    "flatten": (lambda m, f, x: x.flatten(), (2, 3, 4)),
    "flatten_1": (lambda m, f, x: m.flatten(x, 1), (2, 3, 4)),
    "flatten_mid": (lambda m, f, x: x.flatten(0, -2), (2, 3, 4)),
    "flatten_0d": (lambda m, f, x: x.flatten(), ()),
    "unflatten": (lambda m, f, x: x.unflatten(1, (2, -1)), (3, 6)),
    "ravel": (lambda m, f, x: x.t().ravel(), (3, 4)),
    "squeeze": (lambda m, f, x: x.squeeze(), (1, 3, 1)),
    "squeeze_0": (lambda m, f, x: x.squeeze(0), (1, 3, 1)),
    "squeeze_kept": (lambda m, f, x: x.squeeze(1), (1, 3, 1)),
    "squeeze_several": (lambda m, f, x: m.squeeze(x, (0, 1, -1)), (1, 3, 1)),
    "squeeze_0d": (lambda m, f, x: x.squeeze(-1), ()),
    "unsqueeze": (lambda m, f, x: x.unsqueeze(1), (3, 4)),
    "unsqueeze_last": (lambda m, f, x: m.unsqueeze(x, -1), (3, 4)),
    "unsqueeze_far": (lambda m, f, x: x.unsqueeze(-4), (2, 3, 4)),
    "transpose": (lambda m, f, x: x.transpose(0, -1), (2, 3, 4)),
    "transpose_0d": (lambda m, f, x: x.transpose(0, -1), ()),
    "swapaxes": (lambda m, f, x: m.swapaxes(x, 1, 2), (2, 3, 4)),
    "swapdims": (lambda m, f, x: x.swapdims(0, 1), (2, 3, 4)),
    "t": (lambda m, f, x: x.t(), (2, 3)),
    "t_1d": (lambda m, f, x: x.t(), (3,)),
    "T": (lambda m, f, x: x.T, (2, 3)),
    "mT": (lambda m, f, x: x.mT, (2, 3, 4)),
    "permute": (lambda m, f, x: x.permute(2, 0, 1), (2, 3, 4)),
    "permute_tuple": (lambda m, f, x: m.permute(x, (-1, 0, 1)), (2, 3, 4)),
    "movedim": (lambda m, f, x: x.movedim(0, -1), (2, 3, 4)),
    "movedim_two": (lambda m, f, x: m.movedim(x, (0, 1), (2, 0)), (2, 3, 4)),
    "expand": (lambda m, f, x: x.expand(2, 3, 4), (3, 1)),
    "expand_keep": (lambda m, f, x: x.expand(-1, 4), (3, 1)),
    "expand_strided": (lambda m, f, x: x[:, ::2].t().expand(5, 2, 3), (3, 4)),
    "broadcast_to": (lambda m, f, x: m.broadcast_to(x, (2, 3)), (3,)),
    "split": (lambda m, f, x: x.split(2), (5, 3)),
    "split_list": (lambda m, f, x: m.split(x, [1, 2, 0, 2], dim=-1), (3, 5)),
    "chunk": (lambda m, f, x: x.chunk(3, 1), (2, 7)),
    "chunk_few": (lambda m, f, x: x.chunk(4), (6, 2)),
    "unbind": (lambda m, f, x: x.unbind(1), (2, 3)),
    "tensor_split": (lambda m, f, x: m.tensor_split(x, 3), (7, 2)),
    "tensor_split_at": (lambda m, f, x: m.tensor_split(x, (1, 4, 3)), (7, 2)),
    "narrow": (lambda m, f, x: x.narrow(1, 1, 2), (3, 4)),
    "narrow_negative": (lambda m, f, x: m.narrow(x, 0, -2, 2), (3, 4)),
    "select": (lambda m, f, x: x.select(-1, 2), (3, 4)),
    "flip": (lambda m, f, x: x.flip(0), (3, 4)),
    "flip_two": (lambda m, f, x: m.flip(x, (0, -1)), (3, 4)),
    "fliplr": (lambda m, f, x: m.fliplr(x), (3, 4)),
    "flipud": (lambda m, f, x: m.flipud(x), (3, 4)),
    "roll": (lambda m, f, x: x.roll(2), (3, 4)),
    "roll_dims": (lambda m, f, x: m.roll(x, (1, -5), (0, 1)), (3, 4)),
    "rot90": (lambda m, f, x: m.rot90(x), (3, 4)),
    "rot90_3": (lambda m, f, x: m.rot90(x, -1, (1, 2)), (2, 3, 4)),
    "rot90_2": (lambda m, f, x: m.rot90(x, 2), (3, 4)),
    "repeat": (lambda m, f, x: x.repeat(2, 1, 3), (3, 2)),
    "tile": (lambda m, f, x: x.tile(3), (3, 2)),
    "tile_more": (lambda m, f, x: m.tile(x, (2, 2, 1)), (3, 2)),
    "repeat_interleave": (lambda m, f, x: x.repeat_interleave(2), (3, 2)),
    "repeat_interleave_dim": (lambda m, f, x: m.repeat_interleave(x, 3, dim=1), (3, 2)),
    "repeat_interleave_counts": (
        lambda m, f, x: m.repeat_interleave(x, m.tensor([2, 0, 1]), dim=0),
        (3, 2),
    ),
    "pad": (lambda m, f, x: f.pad(x, (1, 2), value=1.5), (3, 4)),
    "pad_crop": (lambda m, f, x: f.pad(x, (-1, 2, 1, -1)), (3, 4)),
    "pad_reflect": (lambda m, f, x: f.pad(x, (2, 1), mode="reflect"), (2, 3, 4)),
    "pad_reflect_2d": (lambda m, f, x: f.pad(x, (2, 1, 0, 2), mode="reflect"), (2, 3, 4, 5)),
    "pad_replicate": (lambda m, f, x: f.pad(x, (2, 3, 1, 0), mode="replicate"), (2, 3, 4, 5)),
    "pad_circular": (lambda m, f, x: f.pad(x, (4, 3), mode="circular"), (2, 3, 4)),
    "pad_circular_2d": (lambda m, f, x: f.pad(x, (1, 2, 3, 0), mode="circular"), (2, 3, 4, 5)),
    "tril": (lambda m, f, x: x.tril(), (3, 5)),
    "tril_off": (lambda m, f, x: m.tril(x, diagonal=-1), (2, 3, 5)),
    "triu": (lambda m, f, x: x.triu(1), (4, 3)),
    "diagonal": (lambda m, f, x: x.diagonal(), (3, 5)),
    "diagonal_off": (lambda m, f, x: m.diagonal(x, -1, 0, 2), (3, 4, 5)),
    "diag": (lambda m, f, x: m.diag(x, 1), (3, 4)),
    "diag_vector": (lambda m, f, x: x.diag(-1), (3,)),
    "diag_embed": (lambda m, f, x: m.diag_embed(x, 1, 0, 2), (2, 3)),
    "trace": (lambda m, f, x: x.trace(), (3, 4)),
    "unfold": (lambda m, f, x: x.unfold(0, 3, 2), (8, 2)),
    "unfold_last": (lambda m, f, x: x.unfold(-1, 2, 1), (2, 5)),
    "unfold_0d": (lambda m, f, x: x.unfold(0, 1, 1), ()),
    "im2col": (lambda m, f, x: f.unfold(x, (2, 3), padding=1, stride=(2, 1)), (2, 3, 5, 6)),
    "im2col_dilated": (lambda m, f, x: f.unfold(x, 2, dilation=2, padding=(1, 0)), (2, 3, 5, 6)),
    "im2col_3d": (lambda m, f, x: f.unfold(x, 3), (3, 5, 6)),
    "col2im": (lambda m, f, x: f.fold(x, (5, 6), 2, padding=1, stride=(2, 1)), (2, 12, 21)),
    "col2im_dilated": (lambda m, f, x: f.fold(x, (5, 6), 2, dilation=2), (2, 8, 12)),
    "stack_of_one": (lambda m, f, x: m.stack([x, x * 2, x]), (3, 2)),
    "meshgrid_one": (lambda m, f, x: m.meshgrid(x, indexing="ij"), (3,)),
}


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_tensor(name: str) -> None:
    run, shape = ONE[name]
    against_torch(run, shape)


SEVERAL: dict[str, tuple[Callable, tuple]] = {
    "cat": (lambda m, f, *x: m.cat(x), ((2, 3), (4, 3), (1, 3))),
    "cat_last": (lambda m, f, *x: m.cat(x, dim=-1), ((2, 3), (2, 1))),
    "cat_empty": (lambda m, f, *x: m.concat(x, 1), ((0,), (2, 3), (2, 0))),
    "stack": (lambda m, f, *x: m.stack(x), ((2, 3), (2, 3))),
    "stack_last": (lambda m, f, *x: m.stack(x, dim=-1), ((2, 3), (2, 3), (2, 3))),
    "stack_0d": (lambda m, f, *x: m.stack(x), ((), (), ())),
    "hstack": (lambda m, f, *x: m.hstack(x), ((3, 2), (3, 1))),
    "hstack_1d": (lambda m, f, *x: m.hstack(x), ((3,), (2,), ())),
    "vstack": (lambda m, f, *x: m.vstack(x), ((3,), (2, 3))),
    "dstack": (lambda m, f, *x: m.dstack(x), ((3,), (3,))),
    "dstack_2d": (lambda m, f, *x: m.dstack(x), ((3, 2), (3, 2))),
    "column_stack": (lambda m, f, *x: m.column_stack(x), ((3,), (3, 2))),
    "broadcast_tensors": (lambda m, f, *x: m.broadcast_tensors(*x), ((3, 1), (4,), ())),
    "meshgrid": (lambda m, f, *x: m.meshgrid(*x, indexing="ij"), ((3,), (4,), ())),
    "meshgrid_xy": (lambda m, f, *x: m.meshgrid(*x, indexing="xy"), ((3,), (4,), (2,))),
    "view_as": (lambda m, f, x, y: x.view_as(y) * y, ((3, 4), (2, 6))),
    "reshape_as": (lambda m, f, x, y: x.t().reshape_as(y) * y, ((3, 4), (2, 6))),
    "expand_as": (lambda m, f, x, y: x.expand_as(y) * y, ((4,), (2, 4))),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_functions_of_several_tensors(name: str) -> None:
    run, shapes = SEVERAL[name]
    against_torch(run, *shapes)


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_other_dtypes(name: str, dtype: str) -> None:
    run, shape = ONE[name]
    if dtype == "float16" and name in ("trace", "col2im", "col2im_dilated", "im2col_dilated"):
        pytest.skip("PyTorch sums in another order or not at all")
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    a, b = _flat(run(pf, F, pf.tensor(x.copy()))), _flat(run(torch, TF, torch.tensor(x)))
    for p, q in zip(a, b, strict=True):
        assert str(p.dtype) == str(q.dtype).removeprefix("torch.")
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ONE)
def test_what_shares_memory_in_pytorch_does_here(name: str) -> None:
    """Strides and sharing of the result decide what a later write changes."""
    run, shape = ONE[name]
    if name.startswith(("pad", "im2col", "col2im")) or not np.prod(shape):
        pytest.skip("a copy, or nothing to share")
    x = np.random.default_rng(0).standard_normal(shape)
    ours, theirs = pf.tensor(x.copy()), torch.tensor(x)
    for p, q in zip(_flat(run(pf, F, ours)), _flat(run(torch, TF, theirs)), strict=True):
        shares = q.untyped_storage().data_ptr() == theirs.untyped_storage().data_ptr()
        assert np.shares_memory(p.numpy(), ours.numpy()) == (shares and q.numel() > 0)


@pytest.mark.parametrize(
    "dtypes", [("int32", "float32"), ("uint8", "int8"), ("bool", "int64"), ("float16", "bfloat16")]
)
def test_joined_dtypes(dtypes: tuple) -> None:
    a = [pf.ones(2, dtype=getattr(pf, d)) for d in dtypes]
    b = [torch.ones(2, dtype=getattr(torch, d)) for d in dtypes]
    assert str(pf.cat(a).dtype) == str(torch.cat(b).dtype).removeprefix("torch.")
    assert str(pf.stack(a).dtype) == str(torch.stack(b).dtype).removeprefix("torch.")


ERRORS: dict[str, tuple[Callable, tuple]] = {
    "reshape": (lambda m, f, x: x.reshape(5, 2), (3, 4)),
    "reshape_two": (lambda m, f, x: x.reshape(-1, -1), (3, 4)),
    "reshape_negative": (lambda m, f, x: x.reshape(-2, 6), (3, 4)),
    "reshape_unknown": (lambda m, f, x: x.reshape(-1, 0), (0, 4)),
    "reshape_float": (lambda m, f, x: x.reshape(1.5, 8), (3, 4)),
    "view": (lambda m, f, x: x.view(5, 2), (3, 4)),
    "view_copy": (lambda m, f, x: x.t().view(-1), (3, 4)),
    "view_copy_slice": (lambda m, f, x: x[:, :2].view(6), (3, 4)),
    "flatten": (lambda m, f, x: x.flatten(1, 0), (3, 4)),
    "flatten_dim": (lambda m, f, x: x.flatten(0, 2), (3, 4)),
    "unflatten": (lambda m, f, x: x.unflatten(1, (3, 3)), (3, 4)),
    "squeeze": (lambda m, f, x: x.squeeze(2), (3, 4)),
    "unsqueeze": (lambda m, f, x: x.unsqueeze(3), (3, 4)),
    "transpose": (lambda m, f, x: x.transpose(0, 2), (3, 4)),
    "t": (lambda m, f, x: x.t(), (2, 3, 4)),
    "mT": (lambda m, f, x: x.mT, (2,)),
    "permute_few": (lambda m, f, x: x.permute(0), (3, 4)),
    "permute_twice": (lambda m, f, x: x.permute(0, 0), (3, 4)),
    "permute_range": (lambda m, f, x: x.permute(0, 2), (3, 4)),
    "movedim": (lambda m, f, x: x.movedim((0, 1), (0,)), (3, 4)),
    "expand": (lambda m, f, x: x.expand(3, 5), (3, 4)),
    "expand_few": (lambda m, f, x: x.expand(4), (3, 4)),
    "expand_new": (lambda m, f, x: x.expand(-1, 3, 4), (3, 4)),
    "cat": (lambda m, f, x: m.cat([x, x.t()]), (3, 4)),
    "cat_dim": (lambda m, f, x: m.cat([x, x], 2), (3, 4)),
    "cat_0d": (lambda m, f, x: m.cat([x, x]), ()),
    "cat_ndim": (lambda m, f, x: m.cat([x, x[0]]), (3, 4)),
    "cat_type": (lambda m, f, x: m.cat([x, 1.0]), (3,)),
    "stack": (lambda m, f, x: m.stack([x, x.t()]), (3, 4)),
    "split_sum": (lambda m, f, x: x.split([1, 1]), (3, 4)),
    "split_negative": (lambda m, f, x: x.split(-1), (3, 4)),
    "split_0d": (lambda m, f, x: x.split(1), ()),
    "chunk": (lambda m, f, x: x.chunk(0), (3, 4)),
    "unbind_0d": (lambda m, f, x: x.unbind(), ()),
    "narrow": (lambda m, f, x: x.narrow(0, 2, 2), (3, 4)),
    "narrow_start": (lambda m, f, x: x.narrow(0, 4, 0), (3, 4)),
    "select": (lambda m, f, x: x.select(0, 3), (3, 4)),
    "flip": (lambda m, f, x: x.flip(2), (3, 4)),
    "flip_twice": (lambda m, f, x: x.flip(0, 0), (3, 4)),
    "roll": (lambda m, f, x: x.roll((1, 2), (0,)), (3, 4)),
    "repeat": (lambda m, f, x: x.repeat(2), (3, 4)),
    "repeat_negative": (lambda m, f, x: x.repeat(2, -1), (3, 4)),
    "pad_odd": (lambda m, f, x: f.pad(x, (1,)), (3, 4)),
    "pad_many": (lambda m, f, x: f.pad(x, (1,) * 6), (3, 4)),
    "pad_reflect": (lambda m, f, x: f.pad(x, (4, 0), mode="reflect"), (2, 3, 4)),
    "pad_circular": (lambda m, f, x: f.pad(x, (5, 0), mode="circular"), (2, 3, 4)),
    "pad_ndim": (lambda m, f, x: f.pad(x, (1, 1), mode="reflect"), (4,)),
    "tril": (lambda m, f, x: x.tril(), (3,)),
    "diagonal": (lambda m, f, x: x.diagonal(0, 1, 1), (3, 4)),
    "diag": (lambda m, f, x: m.diag(x), (2, 3, 4)),
    "trace": (lambda m, f, x: x.trace(), (3,)),
    "unfold": (lambda m, f, x: x.unfold(0, 4, 1), (3, 4)),
    "unfold_step": (lambda m, f, x: x.unfold(0, 2, 0), (3, 4)),
    "im2col": (lambda m, f, x: f.unfold(x, 6), (2, 3, 5, 5)),
    "im2col_ndim": (lambda m, f, x: f.unfold(x, 2), (3, 4)),
    "col2im": (lambda m, f, x: f.fold(x, (5, 5), 2), (2, 8, 15)),
    "meshgrid": (lambda m, f, x: m.meshgrid(x, x, indexing="ij"), (3, 4)),
    "broadcast_to": (lambda m, f, x: m.broadcast_to(x, (2, 5)), (3,)),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    run, shape = ERRORS[name]
    x = np.ones(shape)
    with pytest.raises(Exception) as theirs:  # noqa: PT011 (its type is what we compare with)
        run(torch, TF, torch.tensor(x))
    kind = theirs.type
    if kind is NotImplementedError:
        kind = RuntimeError  # its base class
    with pytest.raises(kind) as ours:
        run(pf, F, pf.tensor(x))
    assert isinstance(ours.value, pf.errors.PyframeError)


def test_repeating_no_times() -> None:
    x = pf.ones(3, 2, requires_grad=True)
    y = x.repeat(0, 2)
    assert y.shape == (0, 4)
    y.sum().backward()
    assert x.grad.tolist() == [[0, 0]] * 3


def test_shape_changes_in_place() -> None:
    x = pf.zeros(3)
    assert x.unsqueeze_(0) is x
    assert x.shape == (1, 3)
    assert x.squeeze_() is x
    assert x.shape == (3,)
    with pytest.raises(pf.errors.AutogradError, match="unsqueeze_"):
        pf.zeros(3, requires_grad=True).unsqueeze_(0)


def test_writing_to_expanded_memory_raises() -> None:
    for m in (pf, torch):
        x = m.zeros(3).expand(2, 3)
        with pytest.raises(RuntimeError):
            x.add_(1)
        with pytest.raises(RuntimeError):
            x[0:2] = 1.0
        y = m.zeros(2, 3).expand(2, 3)
        y[0] = 1.0
        assert y.sum().item() == 3
