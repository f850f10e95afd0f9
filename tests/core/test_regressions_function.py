"""Cases that once went wrong in Function, checkpoint and the modes, against PyTorch."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.autograd import Function, checkpoint
from pyframe.errors import AutogradError
from tests.core.regressions import BOTH, leaf

# ---- Function


class _Exp:
    """exp whose backward uses the saved output."""

    @staticmethod
    def of(m: Any) -> Any:
        class Exp(m.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                y = x.exp()
                ctx.save_for_backward(y)
                return y

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                return g * ctx.saved_tensors[0]

        return Exp.apply


@BOTH
def test_a_saved_output_is_differentiated_again(m: Any) -> None:
    x = leaf(m, 0.5)
    (g,) = m.autograd.grad(_Exp.of(m)(x), x, create_graph=True)
    (h,) = m.autograd.grad(g, x)
    assert h.item() == pytest.approx(np.exp(0.5), rel=1e-6)


def test_a_saved_output_of_several_is_differentiated_again() -> None:
    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y, z = x * x * x, x * 2
            ctx.save_for_backward(x, y)
            return y, z

        @staticmethod
        def backward(ctx: Any, g_y: Any, g_z: Any) -> Any:
            x, y = ctx.saved_tensors
            return g_y * 3 * y / x + 2 * g_z

    x = leaf(pf, 2.0)
    y, z = Two.apply(x)
    (g,) = pf.autograd.grad(y * y + z, x, create_graph=True)
    assert g.tolist() == [6 * 2**5 + 2]
    assert pf.autograd.grad(g, x)[0].tolist() == [30 * 2**4]


@BOTH
def test_a_dirty_view_changes_its_base(m: Any) -> None:
    class Double(m.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    x = leaf(m, 1.0, 2.0)
    with pytest.raises(RuntimeError, match="leaf"):
        Double.apply(x)
    x = leaf(m, 1.0, 2.0)
    y = x * 1
    Double.apply(y[:1])
    (y * 3).sum().backward()
    assert x.grad.tolist() == [6, 3]


@BOTH
def test_apply_takes_keywords_and_defaults(m: Any) -> None:
    class Scale(m.autograd.Function):
        @staticmethod
        def forward(x: Any, k: float = 3.0) -> Any:
            return x * k

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
            ctx.k = inputs[1]

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.k, None

    x = leaf(m, 1.0)
    (Scale.apply(x) + Scale.apply(x, k=4.0)).backward()
    assert x.grad.tolist() == [7]


@BOTH
def test_a_once_differentiable_backward_cannot_be_differentiated(m: Any) -> None:
    class Square(m.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @m.autograd.function.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * ctx.saved_tensors[0] * g

    x, w = leaf(m, 3.0), leaf(m, 2.0)
    (g,) = m.autograd.grad(Square.apply(x) * w, x, create_graph=True)
    assert g.requires_grad
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (g * x).backward()


def test_a_function_releases_what_it_saved_in_backward() -> None:
    exp = _Exp.of(pf)
    x = leaf(pf, 1.0, 2.0)
    y = exp(x) * 1
    node = y.grad_fn.parents[0]
    saved = weakref.ref(node.saved[0])
    y.sum().backward()
    assert saved() is None and node.saved is None


# ---- checkpoint


def test_checkpoint_takes_closures_grad_and_second_derivatives() -> None:
    x, w = leaf(pf, 1.0, 2.0), leaf(pf, 3.0, 4.0)

    def region(a: Any, hidden: Any) -> dict:
        return {"out": (a * a * hidden * w).sin().exp()}

    def value(run: Any) -> Any:
        hidden = x * 2  # not a leaf, and used by two regions
        first = run(lambda a: region(a, hidden), x * 1)["out"]
        return (first + run(lambda a: region(a, hidden), first)["out"] + hidden).sum()

    def derivatives(run: Any) -> list:
        grads = pf.autograd.grad(value(run), [x, w], create_graph=True)
        second = pf.autograd.grad(sum((g * g).sum() for g in grads), [x, w])
        return [g.tolist() for g in (*grads, *second)]

    plain = derivatives(lambda f, a: f(a))
    again = derivatives(lambda f, a: checkpoint(f, a))
    nested = derivatives(lambda f, a: checkpoint(lambda b: checkpoint(f, b), a))
    for one in (again, nested):
        for a, b in zip(plain, one, strict=True):
            assert a == pytest.approx(b, rel=1e-5)


def test_checkpoint_keeps_nothing_of_the_inside_and_runs_once_more() -> None:
    runs, inside = [], []

    def region(a: Any) -> Any:
        runs.append(1)
        b = a.exp()
        inside.append(weakref.ref(b))
        return (b * b).sum()

    gc.disable()
    try:
        x = leaf(pf, 1.0, 2.0)
        y = checkpoint(region, x)
        assert inside[0]() is None
        y.backward(retain_graph=True)
        y.backward()
        assert len(runs) == 2
        node = weakref.ref(y.grad_fn)
        del y
        assert node() is None
    finally:
        gc.enable()


def test_checkpoint_notices_what_cannot_be_repeated() -> None:
    x = leaf(pf, 1.0, 2.0)
    h = x * 1
    y = checkpoint(lambda a: (a * a).sum(), h)
    h.add_(1)
    with pytest.raises(AutogradError, match="changed in place since"):
        y.backward()
    switch = [True]
    y = checkpoint(lambda a: a.exp() if switch[0] else a.sin().exp(), x)
    switch[0] = False
    with pytest.raises(AutogradError, match="other things when it was run again"):
        y.sum().backward()


# ---- modes


@BOTH
def test_inference_mode_is_stronger_than_enable_grad(m: Any) -> None:
    w = leaf(m, 1.0)
    with m.inference_mode():
        with m.enable_grad():
            y = w * 2
        with m.inference_mode(False):
            z = w * 2
    assert not y.requires_grad and y.is_inference()
    assert z.requires_grad and not z.is_inference()


@BOTH
def test_a_decorated_generator_is_still_a_generator(m: Any) -> None:
    @m.no_grad()
    def numbers() -> Any:
        got = yield m.is_grad_enabled()
        try:
            yield got
        except KeyError:
            yield "caught", m.is_grad_enabled()
        return "end"

    it = numbers()
    assert next(it) is False and m.is_grad_enabled()
    assert it.send("sent") == "sent"
    assert it.throw(KeyError()) == ("caught", False)
    with pytest.raises(StopIteration, match="end"):
        next(it)


def test_a_generator_that_ends_in_another_thread_does_not_fail() -> None:
    def numbers() -> Any:
        with pf.no_grad():
            yield 1

    it, failed = numbers(), []

    def finish() -> None:
        try:
            list(it)
        except Exception as error:
            failed.append(error)

    token = pf.config.set_mode()
    try:
        next(it)
        thread = threading.Thread(target=finish)
        thread.start()
        thread.join()
    finally:
        pf.config.reset_mode(token)
    assert not failed and pf.is_grad_enabled()
