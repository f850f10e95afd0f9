"""Calls whose kernel and parameters are known from an earlier one (pyframe.op.choice)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf
import pyframe.nn.functional as F
from pyframe.backend import backends, native
from pyframe.backend.base import Backend
from pyframe.errors import ArgumentTypeError, RangeError
from pyframe.op import choice
from pyframe.op.record import Kernel, Op
from pyframe.op.registry import ops
from pyframe.op.samples import Maker
from pyframe.tensor.register import register

WITH_KERNELS = [op for op in ops.values() if op.module.startswith("pyframe.ops") and op.kernels]
REMEMBERED = [op for op in WITH_KERNELS if op.expr is None and op.check_values is not True]


def _other_values(array: Any, fill: int) -> Any:
    if array is None:
        return None
    if isinstance(array, (list, tuple)):
        return [_other_values(a, fill) for a in array]
    return np.full_like(array, fill)


@pytest.mark.parametrize("op", REMEMBERED, ids=lambda op: op.name)
def test_check_does_not_look_at_values(op: Op) -> None:
    """Else what it said of one array would be taken for another of the same layout."""
    if op.check is None or op.samples is None:
        return
    hidden = {"seed", "offset"} if op.random else set()
    defaults = {p.name: p.default for p in op.params if not p.required and p.name not in hidden}
    for sample in op.samples(Maker("float32")):
        arrays = [*sample.arrays, *[None] * (len(op.inputs) - len(sample.arrays))]
        params = {**defaults, **sample.params}
        names = [p.name for p in op.params if p.name not in hidden]
        params = {name: params[name] for name in names if name in params}
        said = op.check(*arrays, **params)
        for fill in (0, 1, 100):
            assert op.check(*_other_values(arrays, fill), **params) == said


@pytest.mark.parametrize("op", WITH_KERNELS, ids=lambda op: op.name)
def test_errors_are_raised_after_good_calls_too(op: Op) -> None:
    make = Maker("float32")
    for _ in range(2):
        for sample in op.samples(make) if op.samples else ():
            op.function(*sample.arrays, **sample.params)
    for failing in op.errors(make) if op.errors else ():
        for _ in range(2):
            with pytest.raises(failing.error, match=failing.pattern):
                op.function(*failing.arrays, **failing.params)


def _by_index() -> Iterator[Any]:
    x, table = pf.rand(64, 10), pf.rand(10, 128)
    yield "cross_entropy", lambda i: F.cross_entropy(x, i)
    yield "nll_loss", lambda i: F.nll_loss(x, i)
    yield "embedding", lambda i: F.embedding(i.repeat(8), table)
    yield "gather", lambda i: table.gather(0, i[:, None].repeat(1, 128))
    yield "index_select", lambda i: table.index_select(0, i)
    yield "index", lambda i: table[i]
    yield "one_hot", lambda i: F.one_hot(i.repeat(8), 10)


@pytest.mark.parametrize("call", [pytest.param(c, id=name) for name, c in _by_index()])
def test_indices_are_looked_at_in_every_call(call: Any) -> None:
    good = pf.arange(64) % 10
    bad = good.clone()
    bad[5] = 10
    for _ in range(3):
        call(good)
    for _ in range(2):
        with pytest.raises((RangeError, pf.errors.ShapeError), match="out of range"):
            call(bad)
    call(good)


def test_equal_parameters_of_other_classes_are_others() -> None:
    x = pf.rand(8, 4)
    for dim in (1, True, 1):
        assert np.allclose(pf.softmax(x, dim).array.sum(1), 1)
    for _ in range(2):
        with pytest.raises(ArgumentTypeError, match="dim must be an integer"):
            pf.softmax(x, 1.0)  # type: ignore[arg-type]
        pf.softmax(x, 1)


def test_alike() -> None:
    class Own(int):
        pass

    same: list[tuple] = [((1, None), (1, None)), (((1, 2), "a"), ((1, 2), "a")), ((2.5,), (2.5,))]
    for a, b in same:
        assert choice.alike(a, b)
    others: list[tuple] = [
        ((1,), (True,)), ((1,), (1.0,)), ((0.0,), (-0.0,)), (((1, 2),), ((1.0, 2),)),
        ((1,), (Own(1),)),
    ]  # fmt: skip
    for a, b in others:
        assert not choice.alike(a, b) and not choice.alike(b, a)


def test_layouts_have_kernels_of_their_own() -> None:
    array = np.random.default_rng(0).random((16, 16), np.float32)
    for x in (array, array.T, array[::-1], array[:, ::-1], array.astype(np.float64)) * 2:
        found = pf.softmax(pf.from_numpy(x), 1).array
        expected = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        assert found.dtype == x.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_parameter_that_cannot_be_hashed() -> None:
    x = pf.rand(128, 64)
    for _ in range(3):
        assert pf.sum(x, [0, 1]).shape == ()  # type: ignore[arg-type]


def _counting(name: str, calls: list) -> Any:
    def run(x: Any, *, k: int) -> Any:
        calls.append(k)
        if len(calls) == 2:
            raise FloatingPointError
        return x * k

    def check(x: Any, *, k: Any) -> tuple:
        calls.append("check")
        return (int(k),)

    return register(
        Op(
            name,
            lambda xp, x, *, k: x * k,
            vjp=None,
            check=check,
            kernels={"cpu": [Kernel("own", run)]},
            kernels_from=1,
            export=(),
        )
    )


def test_check_and_choice_are_asked_once() -> None:
    calls: list = []
    function = _counting("known_calls_once", calls)
    x = pf.ones(3)
    try:
        assert function(x, 2).tolist() == [2, 2, 2]
        assert calls == ["check", 2, 2]  # the first run raised, as under np.seterr(all="raise")
        function(x, 2)
        function(x.array, 2)
        assert calls[3:] == [2, 2]
        function(x, 3)
        function(pf.ones(4), 3)
        assert calls[5:] == ["check", 3, "check", 3]
        choice.clear_choices()
        function(x, 2)
        assert calls[9:] == ["check", 2]
        with pf.kernels("portable"):
            function(x, 2)
        assert calls[11:] == ["check"]
    finally:
        del ops["known_calls_once"]


def test_parameters_that_can_change_are_not_kept() -> None:
    class Mutable:
        value = 2

        def __int__(self) -> int:
            return self.value

    function, calls, k = _counting("known_calls_mutable", []), [], Mutable()
    try:
        assert calls == []
        assert function(pf.ones(2), k).tolist() == [2, 2]
        k.value = 3
        assert function(pf.ones(2), k).tolist() == [3, 3]
    finally:
        del ops["known_calls_mutable"]


@pytest.mark.skipif(native.layout is None, reason="needs the native extension")
def test_the_native_layout_tells_what_the_portable_one_tells() -> None:
    array = np.zeros((2, 3, 4), np.float32)
    bytes_ = np.zeros(4 * 24 + 1, np.uint8)[1:].view(np.float32).reshape(2, 3, 4)
    various = [
        array, array[0], array.T, array[:, :2], array[::-1], array.astype(np.int32), None,
        np.zeros(()), np.zeros((0, 3)), np.zeros((3, 0)), array.astype(">f4"),
        pf.ones(2, 3, 4, dtype=pf.bfloat16).array,
    ]  # fmt: skip
    layouts = [native.layout(a) for a in various]
    assert len(set(layouts)) == len(various)
    assert native.layout(array.copy()) == layouts[0]
    assert native.layout(bytes_) != layouts[0]  # not aligned
    assert native.layout(array, None, array[0]) == layouts[0] + layouts[6] + layouts[1]
    assert len({Backend.layout(a, None) for a in various}) == len(various) - 1  # not the byte order
    for wrong in ([1.0], 1, "x"):
        with pytest.raises(TypeError):
            native.layout(wrong)
    with pytest.raises(TypeError, match="too many"):
        native.layout(*[np.zeros((1,) * 30)] * 3)
    assert backends[np.ndarray].layout(array) == layouts[0]
