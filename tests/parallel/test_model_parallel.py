"""Tensor parallelism, the one weird trick and pipelines: each equal to one process."""

from __future__ import annotations

import pytest

import pyframe as pf
from pyframe import nn
from pyframe.errors import ArgumentError, ArgumentTypeError
from pyframe.parallel import Pipe, split_sequential
from tests.parallel.launching import in_ci, launch


@pytest.mark.parametrize("ranks", [2, 3, pytest.param(4, marks=in_ci)])
def test_equal_to_one_process(ranks: int) -> None:
    result = launch("model_parallel.py", ranks=ranks)
    assert result.code == 0, result.err
    assert all(f"rank {rank} done" in result.out for rank in range(ranks))


@pytest.mark.parametrize("chunks", [1, 3, 9])
def test_a_pipe_on_several_devices(chunks: int) -> None:
    def build() -> nn.Sequential:
        pf.manual_seed(1)
        layers: list[nn.Module] = [nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 2)]
        return nn.Sequential(*layers).double()

    one, pipe = build(), Pipe(build(), ["cpu:0", "cpu:1", "cpu:2"], chunks)
    assert [next(s.parameters()).device.index for s in pipe.stages] == [0, 1, 2]
    x = pf.randn(7, 3, dtype=pf.float64)
    for net in (one, pipe):
        net(x).square().sum().backward()
    assert pf.allclose(pipe(x).to("cpu"), one(x), rtol=1e-12, atol=0)
    for ours, theirs in zip(pipe.parameters(), one.parameters(), strict=True):
        assert pf.allclose(ours.grad.to("cpu"), theirs.grad, rtol=1e-12, atol=1e-15)


def test_what_cannot_be_cut() -> None:
    with pytest.raises(ArgumentTypeError, match="expected a Sequential, not Linear"):
        split_sequential(nn.Linear(2, 2), 2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="1 layers cannot be cut into 2 parts"):
        split_sequential(nn.Sequential(nn.Linear(2, 2)), 2)
    with pytest.raises(ArgumentError, match="2 costs for 1 layers"):
        split_sequential(nn.Sequential(nn.Linear(2, 2)), 1, [1, 2])
    with pytest.raises(ArgumentError, match="there must be a device and a chunk"):
        Pipe(nn.Sequential(nn.Linear(2, 2)), [])
