"""Every collective against NumPy, for all dtypes: run by test_collectives.py on each rank.

Every rank makes the inputs of all ranks, so that it can compute what is right by itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pyframe as pf
import pyframe.parallel as dist
from pyframe import dtypes
from pyframe.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from pyframe.parallel import ReduceOp
from pyframe.parallel.group import resolve

# Nothing; one element; odd; about what the shared memory is used from; several of its chunks.
SHAPES = [(0,), (), (3, 5), (4, 1025)]
LARGE = (1_100_003,)
WITH_LARGE = (dtypes.bool_, dtypes.int64, dtypes.bfloat16, dtypes.float32)
FUNCTIONS = {
    ReduceOp.SUM: np.add,
    ReduceOp.PRODUCT: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
}


def shapes(dtype: np.dtype) -> list[tuple]:
    return [*SHAPES, LARGE] if dtype in WITH_LARGE else SHAPES


def values(dtype: np.dtype, shape: tuple, rank: int, seed: int) -> np.ndarray:
    random = np.random.default_rng([seed, rank])
    if dtype == dtypes.bool_:
        return random.integers(0, 2, shape).astype(bool)
    if dtypes.is_floating(dtype):
        array = np.asarray(random.standard_normal(shape)).astype(dtype)
        if array.size > 2:
            array.reshape(-1)[rank] = np.nan
        return array
    info = np.iinfo(dtype)
    return np.asarray(random.integers(info.min, info.max, shape, dtype, endpoint=True))


def reduced(arrays: list[np.ndarray], op: ReduceOp) -> np.ndarray:
    """In the order of the ranks; half types in float32, rounded once."""
    dtype = arrays[0].dtype
    wide = dtypes.compute_dtype(dtype)
    total = arrays[0].astype(wide)
    for array in arrays[1:]:
        total = FUNCTIONS[ReduceOp.SUM if op is ReduceOp.AVG else op](total, array.astype(wide))
    if op is ReduceOp.AVG:
        total = total / wide.type(len(arrays))
    return np.asarray(total).astype(dtype)


def same(got: np.ndarray, want: np.ndarray, what: str) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype and got.shape == want.shape, (what, got.dtype, got.shape)
    if dtypes.is_floating(got.dtype):
        assert np.array_equal(np.isnan(got), np.isnan(want)), f"{what}: other NaNs"
        got, want = np.nan_to_num(got), np.nan_to_num(want)
    assert got.tobytes() == want.tobytes(), f"{what}: other values"


def reductions(rank: int, size: int) -> None:
    for seed, dtype in enumerate(dtypes.ALL):
        for shape in shapes(dtype):
            inputs = [values(dtype, shape, r, seed) for r in range(size)]
            for op in ReduceOp:
                if op is ReduceOp.AVG and not dtypes.is_floating(dtype):
                    continue
                what = f"all_reduce {dtype} {shape} {op}"
                array = inputs[rank].copy()
                dist.all_reduce(array, op)
                want = reduced(inputs, op)
                same(array, want, what)
            tensor = pf.from_numpy(inputs[rank].copy())
            dist.reduce(tensor, size - 1)
            want = reduced(inputs, ReduceOp.SUM) if rank == size - 1 else inputs[rank]
            same(tensor.numpy(), want, f"reduce {dtype} {shape}")
            rows = [values(dtype, (size, *shape), r, seed) for r in range(size)]
            out = np.empty(shape, dtype)
            dist.reduce_scatter_tensor(out, rows[rank])
            want = reduced([row[rank] for row in rows], ReduceOp.SUM)
            same(out, want, f"reduce_scatter_tensor {dtype} {shape}")
            out = pf.from_numpy(np.empty(shape, dtype))
            dist.reduce_scatter(
                out, [pf.from_numpy(np.asarray(r)) for r in rows[rank]], ReduceOp.MAX
            )
            want = reduced([row[rank] for row in rows], ReduceOp.MAX)
            same(out.numpy(), want, f"reduce_scatter {dtype} {shape}")


def copies(rank: int, size: int) -> None:
    for seed, dtype in enumerate(dtypes.ALL):
        for shape in shapes(dtype):
            what = f"{dtype} {shape}"
            inputs = [values(dtype, shape, r, seed) for r in range(size)]
            stacked = np.stack(inputs)
            for src in range(size):
                tensor = pf.from_numpy(inputs[rank].copy())
                dist.broadcast(tensor, src)
                same(tensor.numpy(), inputs[src], f"broadcast {what} from {src}")
            parts = [pf.from_numpy(np.empty(shape, dtype)) for _ in range(size)]
            dist.all_gather(parts, pf.from_numpy(inputs[rank]))
            same(np.stack([p.numpy() for p in parts]), stacked, f"all_gather {what}")
            out = np.empty((size, *shape), dtype)
            dist.all_gather_into_tensor(out, inputs[rank])
            same(out, stacked, f"all_gather_into_tensor {what}")
            root = size - 1
            parts = [np.empty(shape, dtype) for _ in range(size)] if rank == root else None
            dist.gather(inputs[rank], parts, dst=root)
            if parts is not None:
                same(np.stack(parts), stacked, f"gather {what}")
            out = np.empty(shape, dtype)
            given = [np.asarray(part) for part in values(dtype, (size, *shape), 0, seed)]
            dist.scatter(out, given if rank == 0 else None)
            same(out, given[rank], f"scatter {what}")


def layouts(rank: int, size: int) -> None:
    """Arrays that are not contiguous are written in place, and nothing beside them."""
    whole = np.zeros((40, 60), np.float32)
    view = whole[1::2, ::3]
    view[...] = rank + 1
    dist.all_reduce(view)
    assert (view == size * (size + 1) / 2).all() and whole.sum() == view.sum()
    turned = pf.from_numpy(np.full((3, 4), float(rank))).t()
    dist.broadcast(turned, 1)
    assert turned.numpy().tolist() == [[1.0] * 3] * 4
    out = np.zeros((4, 2 * size), np.int64)[:, ::2].T  # size × 4, in no order of its own
    dist.all_gather_into_tensor(out, np.full(4, rank))
    assert out.tolist() == [[r] * 4 for r in range(size)]


def tape(rank: int, size: int) -> None:
    """Writing into what the tape saved is noticed; a leaf that requires grad may be written."""
    weight = pf.ones(3, requires_grad=True)
    dist.all_reduce(weight)
    x = pf.ones(3, requires_grad=True) * 2
    y = x * x
    dist.all_reduce(x)
    refused(pf.errors.AutogradError, "mul", lambda: y.sum().backward())


def asynchronous(rank: int, size: int) -> None:
    arrays = [np.full(n, float(rank + i)) for i, n in enumerate((1, 1000, 300_000, 7, 50_000))]
    works = [dist.all_reduce(a, async_op=True) for a in arrays]
    total = np.array([1.0])
    dist.all_reduce(total)  # comes after all of them
    assert all(w.is_completed() for w in works) and total[0] == size
    for i, (array, work) in enumerate(zip(arrays, works, strict=True)):
        work.wait()
        assert (array == sum(r + i for r in range(size))).all() and work.is_success()
    flag = dist.barrier(async_op=True)
    flag.wait(timeout=10.0)
    parts = [np.empty(2) for _ in range(size)]
    work = dist.all_gather(parts, np.full(2, float(rank)), async_op=True)
    work.wait()
    assert [p[0] for p in parts] == list(range(size))


def messages(rank: int, size: int) -> None:
    for dtype in dtypes.ALL:
        for shape in shapes(dtype):
            out = np.empty(shape, dtype)
            first = dist.irecv(out, (rank - 1) % size, tag=3)
            second = dist.isend(values(dtype, shape, rank, 5), (rank + 1) % size, tag=3)
            second.wait()
            first.wait()
            assert first.is_completed()
            same(out, values(dtype, shape, (rank - 1) % size, 5), f"recv {dtype} {shape}")
    # Two under way between the same ranks keep their order, also when waited for in another.
    outs = [np.zeros(3), np.zeros(5)]
    works = [dist.irecv(out, (rank - 1) % size) for out in outs]
    for out in outs:
        dist.isend(np.full(out.size, float(out.size)), (rank + 1) % size).wait()
    for work in reversed(works):
        work.wait()
    assert [o[0] for o in outs] == [3.0, 5.0]
    if rank == 0:
        seen = set()
        for _ in range(size - 1):
            out = pf.zeros(2)
            source = dist.recv(out)
            assert out.numpy().tolist() == [source, source]
            seen.add(source)
        assert seen == set(range(1, size))
    else:
        dist.send(pf.ones(2) * rank, 0)


def objects(rank: int, size: int) -> None:
    everyone = [None] * size
    dist.all_gather_object(everyone, {"rank": rank, "text": "x" * (100_000 * rank)})
    assert [len(e["text"]) for e in everyone] == [100_000 * r for r in range(size)]
    shared = ["a", {"b": 1}] if rank == 1 else [None, None]
    dist.broadcast_object_list(shared, src=1)
    assert shared == ["a", {"b": 1}]
    gathered = [None] * size if rank == 0 else None
    dist.gather_object(rank**2, gathered)
    assert gathered == ([r**2 for r in range(size)] if rank == 0 else None)
    mine = [None]
    dist.scatter_object_list(mine, list("abcd")[:size] if rank == 0 else None)
    assert mine == ["abcd"[rank]]


def groups(rank: int, size: int) -> None:
    last = list(range(size))[::-1]
    turned = dist.new_group(last)
    assert dist.get_rank(turned) == size - 1 - rank
    assert dist.get_process_group_ranks(turned) == last
    out = np.empty(size, np.int64)
    dist.all_gather_into_tensor(out, np.array([rank]), group=turned)
    assert out.tolist() == last
    tensor = np.array([float(rank)])
    dist.broadcast(tensor, 1, group=turned)  # a number in the world
    assert tensor[0] == 1
    pair = dist.new_group([1, 0])
    if rank < 2:
        big = np.full(100_000, rank + 1.0)
        work = dist.all_reduce(big, group=pair, async_op=True)
        small = np.array([1.0])
        dist.all_reduce(small)  # of another group, in between
        work.wait()
        assert (big == 3).all() and small[0] == size
        dist.destroy_process_group(pair)
    else:
        assert pair is dist.NON_GROUP_MEMBER and dist.get_rank(pair) == -1
        dist.all_reduce(np.array([1.0]))
        refused(pf.errors.CollectiveError, "not in this group", lambda: dist.barrier(group=pair))


def mapped() -> int:
    """Bytes of address space of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(r"VmSize:\s+(\d+)", status)[1])


def freed(rank: int, size: int) -> None:
    """A destroyed group takes no memory and no calls."""
    everybody = list(range(size))
    group = dist.new_group(everybody)
    dist.destroy_process_group(group)
    refused(pf.errors.CollectiveError, "was destroyed", lambda: dist.barrier(group=group))
    before = mapped()
    for _ in range(8):
        dist.destroy_process_group(dist.new_group(everybody))
    assert mapped() - before < 4 << 20, "a window of one group is more than that"
    group = dist.new_group(everybody)
    try:
        raise KeyError("while an exception is under way the other ranks may not come")
    except KeyError:
        for turn in everybody:
            if turn == rank:
                dist.destroy_process_group(group)
            dist.barrier()


def refused(kind: type, text: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        call()


def mistakes(rank: int, size: int) -> None:
    """What a rank can find out by itself is raised before anything is sent."""
    one = np.ones(3)
    refused(
        DtypeError, "AVG needs a floating", lambda: dist.all_reduce(np.ones(2, int), ReduceOp.AVG)
    )
    refused(ArgumentTypeError, "Pass a Tensor", lambda: dist.all_reduce([1.0]))
    refused(ArgumentTypeError, "ReduceOp", lambda: dist.all_reduce(one, "sum"))
    refused(DtypeError, "complex128", lambda: dist.all_reduce(np.ones(2, complex)))
    refused(ArgumentError, "not in the group", lambda: dist.broadcast(one, size))
    refused(ShapeError, "for", lambda: dist.all_gather([one], one))
    refused(ShapeError, "times the elements", lambda: dist.all_gather_into_tensor(one, one))
    refused(ArgumentError, "this rank itself", lambda: dist.send(one, rank))
    refused(ArgumentError, "distinct", lambda: dist.new_group([0, 0]))
    refused(ArgumentError, "has no scatter_list", lambda: dist.scatter(one, src=rank))
    refused(pf.errors.CollectiveError, "there already", dist.init_process_group)


def main() -> None:
    refused(pf.errors.CollectiveError, "no process group", lambda: dist.all_reduce(np.ones(1)))
    refused(ArgumentError, "no backend", lambda: dist.init_process_group("smoke"))
    refused(ArgumentError, "world_size is 9", lambda: dist.init_process_group(world_size=9))
    dist.init_process_group("gloo", timeout=60.0)
    rank, size = dist.get_rank(), dist.get_world_size()
    shared = resolve(None, "test").control.shared is not None
    assert shared == (sys.argv[1] == "shared"), "not the transport that this run is to test"
    for part in (
        mistakes,
        reductions,
        copies,
        layouts,
        tape,
        asynchronous,
        messages,
        objects,
        groups,
        freed,
    ):
        part(rank, size)
        dist.barrier()
    dist.destroy_process_group()
    assert not dist.is_initialized()
    print(f"rank {rank} of {size}: all right", flush=True)


main()
