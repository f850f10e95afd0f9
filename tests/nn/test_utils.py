"""Gradient clipping, parameter vectors, padded and packed sequences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe.nn import utils

SHAPES = [(3, 4), (5,), (), (0,)]


def pair() -> tuple[list, list]:
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for shape in SHAPES:
        g = np.asarray(rng.standard_normal(shape), np.float32)
        p, q = pf.nn.Parameter(pf.zeros(shape)), torch.nn.Parameter(torch.zeros(shape))
        p.grad, q.grad = pf.tensor(g.copy()), torch.tensor(g)
        ours.append(p)
        theirs.append(q)
    ours.append(pf.nn.Parameter(pf.zeros(2)))
    theirs.append(torch.nn.Parameter(torch.zeros(2)))
    return ours, theirs


@pytest.mark.parametrize("norm", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clip_grad_norm(norm: float, limit: float) -> None:
    ours, theirs = pair()
    if norm == float("inf"):
        ours.pop(3), theirs.pop(3)
    a = utils.clip_grad_norm_(ours, limit, norm)
    b = torch.nn.utils.clip_grad_norm_(theirs, limit, norm)
    assert a.dtype == pf.float32
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
    for p, q in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


def test_clip_grad_norm_nonfinite() -> None:
    ours, _ = pair()
    ours[0].grad.array[0, 0] = np.nan
    with pytest.raises(RuntimeError, match="non-finite"):
        utils.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    assert np.isnan(utils.clip_grad_norm_(ours[0], 1.0).item())
    assert utils.clip_grad_norm_(ours[4:], 1.0).item() == 0.0


def test_clip_grad_value() -> None:
    ours, theirs = pair()
    utils.clip_grad_value_(ours, 0.3)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    for p, q in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


def test_vectors() -> None:
    model = pf.nn.Linear(2, 3)
    vector = utils.parameters_to_vector(model.parameters())
    assert tuple(vector.shape) == (9,)
    utils.vector_to_parameters(pf.arange(9.0), model.parameters())
    assert model.bias.tolist() == [6.0, 7.0, 8.0]
    with pytest.raises(TypeError):
        utils.vector_to_parameters([1.0], model.parameters())


LENGTHS = [3, 5, 1, 3]


def sequences(library: object) -> list:
    rng = np.random.default_rng(1)
    values = [rng.standard_normal((n, 2)) for n in LENGTHS]
    return [library.tensor(v, requires_grad=True) for v in values]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pad(batch_first: bool, side: str) -> None:
    a = utils.rnn.pad_sequence(sequences(pf), batch_first, 0.5, side)
    b = torch.nn.utils.rnn.pad_sequence(sequences(torch), batch_first, 0.5, side)
    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize("batch_first", [False, True])
def test_pack(batch_first: bool) -> None:
    results = []
    for library in (pf, torch):
        rnn = library.nn.utils.rnn
        given = sequences(library)
        packed = rnn.pack_sequence(given, enforce_sorted=False)
        padded, lengths = rnn.pad_packed_sequence(packed, batch_first, 0.5, 6)
        (padded * padded).sum().backward()
        back = rnn.unpack_sequence(packed)
        results.append(
            [
                packed.data.tolist(), packed.batch_sizes.tolist(), packed.sorted_indices.tolist(),
                packed.unsorted_indices.tolist(), padded.tolist(), lengths.tolist(),
                [s.grad.tolist() for s in given], [s.tolist() for s in back],
            ]
        )  # fmt: skip
    assert results[0] == results[1]
    with pytest.raises(RuntimeError, match="sorted"):
        utils.rnn.pack_sequence(sequences(pf))


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True, "num_layers": 2}, {"batch_first": True}]
)
@pytest.mark.parametrize("ordered", [False, True])
def test_packed_through_rnn(name: str, options: dict, ordered: bool) -> None:
    theirs = getattr(torch.nn, name)(2, 3, **options).double()
    ours = getattr(pf.nn, name)(2, 3, **options).double()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    results = []
    for library, module in ((pf, ours), (torch, theirs)):
        given = sequences(library)
        if ordered:
            given = sorted(given, key=len, reverse=True)
        packed = library.nn.utils.rnn.pack_sequence(given, enforce_sorted=ordered)
        output, state = module(packed)
        states = state if isinstance(state, tuple) else (state,)
        total = (output.data * output.data).sum()
        for s in states:
            total = total + (s * s).sum()
        total.backward()
        results.append([output.data, *states, *[s.grad for s in given], module.weight_ih_l0.grad])
        assert output.batch_sizes.tolist() == packed.batch_sizes.tolist()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-12)
