"""The collectives, with the names and arguments of ``torch.distributed`` (L6).

All take Tensors or raw arrays and write into what they are given, outside of the tape. Every rank
of the group makes the same calls in the same order; a rank that does not is named in an error on
all of them. With ``async_op=True`` a call returns a :class:`~pyframe.parallel.work.Work` at once
and runs beside the program; its arrays are not to be touched until ``wait()`` returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import is_floating, is_supported
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError, describe, fail
from ..tensor import Tensor
from .group import ProcessGroup, resolve
from .transport import ReduceOp
from .work import Queued


class _Target:
    """A contiguous array for a transport to write into, and how its values get to their place."""

    __slots__ = ("array", "given", "place", "tensor")

    def __init__(self, given: Any, op: str, what: str = "tensor", reads: bool = True) -> None:
        self.tensor = given if isinstance(given, Tensor) else None
        self.place = given.array if self.tensor is not None else given
        _check(self.place, op, what)
        if not self.place.flags.c_contiguous:
            self.array = self.place.copy(order="C") if reads else _like(self.place)
        else:
            self.array = self.place

    def finish(self) -> None:
        """The values are there."""
        if self.array is not self.place:
            self.place[...] = self.array
        if self.tensor is not None:
            self.tensor._cell[0] += 1  # what the tape saved of it is overwritten


def shown(array: Any) -> str:
    """An array as ranks compare it: without its GPU's number, which is another on every rank.

    >>> shown(np.zeros((2, 3), np.float32))
    'float32[2,3]'
    """
    where = "" if str(getattr(array, "device", "cpu")).startswith("cpu") else " on a GPU"
    return f"{array.dtype}[{','.join(map(str, array.shape))}]{where}"


def _like(array: Any) -> Any:
    return backend_of(array).empty(array.shape, array.dtype)


def _check(array: Any, op: str, what: str) -> None:
    if not (hasattr(array, "dtype") and hasattr(array, "flags")) or isinstance(array, np.generic):
        fail(ArgumentTypeError, op, f"{what} is {describe(array)}", "Pass a Tensor or an array.")
    if not is_supported(array.dtype):
        fail(DtypeError, op, f"{what} has dtype {array.dtype}, which pyframe does not have")


def _source(given: Any, op: str, what: str = "tensor") -> Any:
    """A contiguous array to read from."""
    array = given.array if isinstance(given, Tensor) else given
    _check(array, op, what)
    return array if array.flags.c_contiguous else array.copy(order="C")


def _check_op(reduce: Any, array: Any, op: str) -> ReduceOp:
    if not isinstance(reduce, ReduceOp):
        fail(ArgumentTypeError, op, f"op is {reduce!r}", "Use ReduceOp.SUM or another ReduceOp.")
    if reduce is ReduceOp.AVG and not is_floating(array.dtype):
        what = f"ReduceOp.AVG needs a floating point dtype, not {array.dtype}"
        fail(DtypeError, op, what, "Convert, or use SUM.", tensor=array)
    return reduce


def _same(op: str, arrays: Sequence[Any], like: Any, count: int, what: str) -> None:
    """Checks a list with an array for every rank."""
    if len(arrays) != count:
        fail(ShapeError, op, f"{what} has {len(arrays)} tensors for {count} ranks")
    for i, array in enumerate(arrays):
        if array.shape != like.shape or array.dtype != like.dtype:
            text = f"{what}[{i}] is {describe(array)} where the others are {describe(like)}"
            fail(ShapeError, op, text, "All need the same shape and dtype.")


def _run(
    group: ProcessGroup,
    text: str,
    array: Any,
    act: Callable[..., Any],
    targets: Sequence[_Target] = (),
    async_op: bool = False,
    after: Callable[[], None] | None = None,
) -> Any:
    """Makes a call of the group: ``act(transport, watch)``, then the targets' ends."""
    transport = group.transport(array)

    def action(watch: Any) -> Any:
        request = act(transport, watch)

        def finish() -> None:
            if request is not None:
                request.wait(watch)
            if after is not None:
                after()
            for target in targets:
                target.finish()

        if request is not None and async_op:
            return Queued(request.test, finish)
        finish()
        return None

    result = group.run(text, action, async_op, transport.queued)
    return result if async_op else None


def all_reduce(
    tensor: Any, op: ReduceOp = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Any:
    """``tensor`` becomes the reduction over all ranks, the same bits on each.

    Args:
        tensor: of the same shape and dtype on all ranks; any dtype.
        op: see :class:`ReduceOp`.
        group: the default group by default.
        async_op: return a Work at once.

    Raises:
        CollectiveError: if the ranks make different calls; CollectiveTimeoutError if one does not
            come; RankLostError if one died. So do all functions here.
        DtypeError: for the average of integers or bools.

    >>> from pyframe.parallel import all_reduce, init_process_group
    >>> init_process_group()                          # doctest: +SKIP
    >>> all_reduce(gradient, ReduceOp.AVG)            # doctest: +SKIP
    """
    group = resolve(group, "all_reduce")
    target = _Target(tensor, "all_reduce")
    array, reduce = target.array, _check_op(op, target.array, "all_reduce")
    text = f"all_reduce({shown(target.place)}, {reduce.value})"
    return _run(group, text, array, lambda t, w: t.all_reduce(array, reduce, w), [target], async_op)


def reduce(
    tensor: Any, dst: int, op: ReduceOp = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> Any:
    """``tensor`` on rank ``dst`` becomes the reduction over all ranks; elsewhere it stays."""
    group = resolve(group, "reduce")
    target = _Target(tensor, "reduce")
    root = group.local(dst, "reduce")
    kept = group.rank == root
    array = target.array if kept else target.array.copy()
    op = _check_op(op, array, "reduce")
    text = f"reduce({shown(target.place)}, {op.value}, dst={dst})"
    targets = [target] if kept else []
    return _run(group, text, array, lambda t, w: t.all_reduce(array, op, w), targets, async_op)


def broadcast(tensor: Any, src: int, group: Any = None, async_op: bool = False) -> Any:
    """``tensor`` becomes that of rank ``src`` (its number in the world)."""
    group = resolve(group, "broadcast")
    target = _Target(tensor, "broadcast")
    root, array = group.local(src, "broadcast"), target.array
    text = f"broadcast({shown(target.place)}, src={src})"
    return _run(group, text, array, lambda t, w: t.broadcast(array, root, w), [target], async_op)


def all_gather(
    tensor_list: Sequence[Any], tensor: Any, group: Any = None, async_op: bool = False
) -> Any:
    """``tensor_list[i]`` becomes ``tensor`` of rank ``i``; all of one shape and dtype."""
    group = resolve(group, "all_gather")
    array = _source(tensor, "all_gather")
    targets = [_Target(t, "all_gather", "tensor_list", False) for t in tensor_list]
    _same("all_gather", [t.place for t in targets], array, group.size, "tensor_list")
    out = _stack(array, group.size)
    return _run(
        group,
        f"all_gather({shown(array)})",
        array,
        lambda t, w: t.all_gather(out, array, w),
        targets,
        async_op,
        lambda: _spread(out, targets),
    )


def _stack(array: Any, count: int) -> Any:
    return backend_of(array).empty((count, *array.shape), array.dtype)


def _stacked(parts: Sequence[Any], like: Any) -> Any:
    """The ranks' parts, of the shape and dtype of ``like``, in one array."""
    whole = _stack(like, len(parts))
    for i, part in enumerate(parts):
        whole[i] = part
    return whole


def _spread(rows: Any, targets: Sequence[_Target]) -> None:
    for row, target in zip(rows, targets, strict=True):
        target.array[...] = row


def all_gather_into_tensor(
    output_tensor: Any, input_tensor: Any, group: Any = None, async_op: bool = False
) -> Any:
    """``output_tensor`` becomes the ranks' ``input_tensor``, concatenated or stacked.

    Raises:
        ShapeError: unless it has ``get_world_size(group)`` times as many elements.
    """
    name = "all_gather_into_tensor"
    group = resolve(group, name)
    array, target = _source(input_tensor, name), _Target(output_tensor, name, "output", False)
    _times(name, target.array, array, group.size)
    out = target.array
    text = f"{name}({shown(array)})"
    return _run(group, text, array, lambda t, w: t.all_gather(out, array, w), [target], async_op)


def _times(op: str, large: Any, small: Any, count: int) -> None:
    if large.size != count * small.size or large.dtype != small.dtype:
        what = f"{describe(large)} does not have {count} times the elements of {describe(small)}"
        fail(ShapeError, op, what, f"There are {count} ranks.")


def reduce_scatter(
    output: Any,
    input_list: Sequence[Any],
    op: ReduceOp = ReduceOp.SUM,
    group: Any = None,
    async_op: bool = False,
) -> Any:
    """``output`` becomes the reduction over all ranks of ``input_list[rank]``."""
    group = resolve(group, "reduce_scatter")
    target = _Target(output, "reduce_scatter", "output", False)
    parts = [_source(t, "reduce_scatter", "input_list") for t in input_list]
    _same("reduce_scatter", parts, target.array, group.size, "input_list")
    whole = _stacked(parts, target.array)
    return _reduce_scatter(group, "reduce_scatter", target, whole, op, async_op)


def reduce_scatter_tensor(
    output: Any,
    input: Any,
    op: ReduceOp = ReduceOp.SUM,
    group: Any = None,
    async_op: bool = False,
) -> Any:
    """``output`` becomes this rank's part (of equal ones, in order) of the reduction of ``input``.

    Raises:
        ShapeError: unless ``input`` has ``get_world_size(group)`` times as many elements.
    """
    name = "reduce_scatter_tensor"
    group = resolve(group, name)
    target, whole = _Target(output, name, "output", False), _source(input, name, "input")
    _times(name, whole, target.array, group.size)
    return _reduce_scatter(group, name, target, whole, op, async_op)


def _reduce_scatter(
    group: ProcessGroup, name: str, target: _Target, whole: Any, op: ReduceOp, async_op: bool
) -> Any:
    out, reduce = target.array, _check_op(op, whole, name)
    text = f"{name}({shown(target.place)}, {reduce.value})"
    return _run(
        group,
        text,
        whole,
        lambda t, w: t.reduce_scatter(out, whole, reduce, w),
        [target],
        async_op,
    )


def gather(
    tensor: Any,
    gather_list: Sequence[Any] | None = None,
    dst: int = 0,
    group: Any = None,
    async_op: bool = False,
) -> Any:
    """``gather_list[i]`` on rank ``dst`` becomes ``tensor`` of rank ``i``; ``None`` elsewhere."""
    group = resolve(group, "gather")
    array, root = _source(tensor, "gather"), group.local(dst, "gather")
    targets: list[_Target] = []
    if group.rank == root:
        if gather_list is None:
            fail(ArgumentError, "gather", f"rank {dst} is to gather, but has no gather_list")
        targets = [_Target(t, "gather", "gather_list", False) for t in gather_list]
        _same("gather", [t.place for t in targets], array, group.size, "gather_list")
    out = _stack(array, group.size) if targets else None
    return _run(
        group,
        f"gather({shown(array)}, dst={dst})",
        array,
        lambda t, w: t.gather(out, array, root, w),
        targets,
        async_op,
        (lambda: _spread(out, targets)) if targets else None,
    )


def scatter(
    tensor: Any,
    scatter_list: Sequence[Any] | None = None,
    src: int = 0,
    group: Any = None,
    async_op: bool = False,
) -> Any:
    """``tensor`` becomes ``scatter_list[rank]`` of rank ``src``; the list is ``None`` elsewhere."""
    group = resolve(group, "scatter")
    target, root = _Target(tensor, "scatter", reads=False), group.local(src, "scatter")
    whole = None
    if group.rank == root:
        if scatter_list is None:
            fail(ArgumentError, "scatter", f"rank {src} is to scatter, but has no scatter_list")
        parts = [_source(t, "scatter", "scatter_list") for t in scatter_list]
        _same("scatter", parts, target.place, group.size, "scatter_list")
        whole = _stacked(parts, target.array)
    out = target.array
    text = f"scatter({shown(target.place)}, src={src})"
    return _run(group, text, out, lambda t, w: t.scatter(out, whole, root, w), [target], async_op)


def barrier(group: Any = None, async_op: bool = False) -> Any:
    """Returns when all ranks of the group have called it."""
    group = resolve(group, "barrier")
    result = group.run("barrier()", lambda watch: None, async_op)
    return result if async_op else None
