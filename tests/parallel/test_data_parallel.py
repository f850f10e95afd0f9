"""DistributedDataParallel and what belongs to it: N ranks give what one process gives."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

import pytest

import pyframe as pf
from pyframe.parallel.buckets import make_buckets
from pyframe.parallel.weighing import map_tensors
from tests.parallel.launching import in_sweeps, launch


@pytest.mark.parametrize("ranks", [2, 3, pytest.param(4, marks=in_sweeps)])
def test_ranks_are_one_process(ranks: int) -> None:
    result = launch("data_parallel.py", ranks=ranks)
    assert result.code == 0, result.err
    assert "all checks passed" in result.out


def test_the_same_job_twice_gives_the_same_bits() -> None:
    first, second = (launch("data_parallel.py", "show_digests", ranks=2) for _ in range(2))
    assert first.code == second.code == 0, first.err + second.err
    assert first.out.startswith("digests [[")
    assert first.out == second.out


def test_transfers_run_beside_backward() -> None:
    result = launch("overlap.py", ranks=2)
    assert result.code == 0, result.err
    assert "all transfers but the last began before backward ended" in result.out


def test_outputs_keep_their_kind_of_dictionary() -> None:
    lists = defaultdict(list, y=[pf.ones(2)])
    new = map_tensors(OrderedDict(a=lists), lambda t: t * 3)
    assert type(new) is OrderedDict and type(new["a"]) is defaultdict
    assert new["a"]["y"][0].tolist() == [3.0, 3.0] and new["a"]["more"] == []
    assert list(lists) == ["y"] and lists["y"][0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("most", [1, 100, 10_000])
def test_buckets_have_every_parameter_once(most: int) -> None:
    shapes = [(3,), (40, 2), (1,), (0,), (7, 7)]
    params = [pf.zeros(*s, dtype=d) for s in shapes for d in (pf.float32, pf.float64)]
    order = list(range(len(params)))[::-1]
    buckets = make_buckets(params, order, most, pf.float16)
    assert sorted(i for b in buckets for i in b.members) == sorted(order)
    for bucket in buckets:
        assert bucket.dtype == pf.float16
        assert len({params[i].dtype for i in bucket.members}) == 1
        size = sum(params[i].array.nbytes for i in bucket.members)
        assert (
            size <= most
            or len(bucket.members) == 1
            or all(params[i].array.size == 0 for i in bucket.members[1:])
        )
    last = [max(order.index(i) for i in b.members) for b in buckets]
    assert last == sorted(last)  # sent in the order in which they can be complete


def test_a_message_has_gradients_and_flags() -> None:
    params = [pf.nn.Parameter(pf.zeros(3)), pf.nn.Parameter(pf.zeros(2, 2))]
    params[1].grad = pf.tensor([[1.0, 2.0], [3.0, 4.0]])
    (bucket,) = make_buckets(params, [1, 0], 1 << 20)
    flat = bucket.fill({1}, 0.5)
    assert bucket.flags().tolist() == [[True, False], [False, True]]
    assert len(flat) % 16 == 4
    assert flat.sum() == 5.0 + 2.0  # gaps and missing gradients are zeros
    bucket.deliver([True, False])
    assert params[0].grad is None
    assert params[1].grad.tolist() == [[0.5, 1.0], [1.5, 2.0]]
