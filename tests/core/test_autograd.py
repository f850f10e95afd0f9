"""The tape and the engine: what backward and grad promise, whatever the ops."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import AutogradError


def leaf(*values: float, dtype: str = "float64") -> pf.Tensor:
    return pf.tensor(list(values), dtype=dtype).requires_grad_()


def test_gradients_accumulate_over_calls() -> None:
    x = leaf(1, 2)
    for _ in range(2):
        (x * x).sum().backward()
    assert x.grad.tolist() == [4, 8]


def test_a_leaf_never_shares_its_gradient_with_another() -> None:
    x, y = leaf(1, 2), leaf(3, 4)
    seed = pf.tensor([1.0, 1.0], dtype="float64")
    (x + y).backward(seed)
    x.grad.array[0] = 99
    assert y.grad.tolist() == [1, 1] and seed.tolist() == [1, 1]


def test_a_value_used_many_times_is_summed_once_each() -> None:
    x = leaf(2.0)
    y = x * x
    z = y + y + y * y
    z.sum().backward()
    assert x.grad.tolist() == [2 * 2 * 2 + 4 * 8]


def test_a_chain_of_100000_ops() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y * 1.0
    y.backward(pf.ones(1, dtype="float64"))
    assert x.grad.tolist() == [1]
    del y


@pytest.mark.parametrize("backward", [False, True])
def test_graphs_are_freed_without_the_garbage_collector(backward: bool) -> None:
    gc.disable()
    try:
        x = leaf(1, 2, 3)
        hidden = (x * x).tanh()
        values, _ = hidden.max(dim=0)
        y = (hidden * values).sum()
        refs = [weakref.ref(t) for t in (hidden, values, y)]
        nodes = [weakref.ref(t.grad_fn) for t in (hidden, y)]
        if backward:
            y.backward()
        del hidden, values, y, _
        assert all(r() is None for r in refs + nodes)
    finally:
        gc.enable()


def test_a_second_backward_names_the_op_and_the_fix() -> None:
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(AutogradError, match=r"second time.*retain_graph=True"):
        y.backward()


def test_retain_graph() -> None:
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [12]


def test_an_overwritten_saved_value_is_named() -> None:
    x = leaf(1, 2)
    y = x * 1.0
    z = y * y
    y.add_(1.0)
    with pytest.raises(
        AutogradError, match=r"mul: backward needs '(input|other)' \(float64\[2\]\)"
    ):
        z.sum().backward()


def test_a_value_that_was_not_saved_may_be_overwritten() -> None:
    x, w = leaf(1, 2), pf.tensor([3.0, 4.0], dtype="float64")
    y = x * 1.0
    z = y * w  # saves w only, since w needs no gradient
    y.add_(1.0)
    z.sum().backward()
    assert x.grad.tolist() == [3, 4]


def test_writing_to_a_leaf_that_requires_grad_raises() -> None:
    x = leaf(1, 2)
    with pytest.raises(AutogradError, match=r"leaf.*in place.*no_grad"):
        x.mul_(2.0)
    with pytest.raises(AutogradError, match="view of a leaf"):
        x[:1].mul_(2.0)
    with pf.no_grad():
        x.mul_(2.0)
    assert x.tolist() == [2, 4] and x._version == 1


def test_backward_needs_a_number_or_a_cotangent() -> None:
    x = leaf(1, 2)
    with pytest.raises(AutogradError, match="only for a single number"):
        (x * x).backward()
    with pytest.raises(AutogradError, match="does not require grad"):
        pf.ones(1).backward()
    with pytest.raises(pf.errors.ShapeError, match="another shape"):
        (x * x).backward(pf.ones(3, dtype="float64"))


def test_grad_does_not_touch_leaves_and_finds_inner_tensors() -> None:
    x, w = leaf(2.0), leaf(5.0)
    y = x * w
    z = (y * y).sum()
    gy, gx = pf.autograd.grad(z, [y, x])
    assert gy.tolist() == [20] and gx.tolist() == [100] and x.grad is None and w.grad is None


def test_grad_of_an_unused_input() -> None:
    x, w = leaf(2.0), leaf(5.0)
    with pytest.raises(AutogradError, match=r"do not depend on input 1.*allow_unused"):
        pf.autograd.grad((x * x).sum(), [x, w])
    assert pf.autograd.grad((x * x).sum(), [x, w], allow_unused=True)[1] is None
    zeros = pf.autograd.grad((x * x).sum(), [x, w], materialize_grads=True)[1]
    assert zeros.tolist() == [0]
    with pytest.raises(AutogradError, match="input 0 does not require grad"):
        pf.autograd.grad((x * x).sum(), pf.ones(1))


def test_backward_into_chosen_inputs() -> None:
    x, w = leaf(2.0), leaf(5.0)
    (x * w).sum().backward(inputs=[x])
    assert x.grad.tolist() == [5] and w.grad is None


def test_third_derivative() -> None:
    x = leaf(2.0)
    g = (x * x * x * x).sum()
    for expected in (32, 48, 48):
        (g,) = pf.autograd.grad(g, x, create_graph=True)
        assert g.item() == expected
        g = g.sum()


def test_backward_with_create_graph_accumulates_differentiable_gradients() -> None:
    x = leaf(3.0)
    (x * x * x).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    (g,) = pf.autograd.grad(x.grad.sum(), x)
    assert g.tolist() == [18]


def test_grad_modes() -> None:
    x = leaf(1.0)
    with pf.no_grad():
        assert not (x * 2).requires_grad and not pf.is_grad_enabled()
        with pf.enable_grad():
            assert (x * 2).requires_grad
    with pf.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert pf.is_grad_enabled()
    pf.set_grad_enabled(False)
    assert not pf.is_grad_enabled()
    pf.set_grad_enabled(True)

    @pf.no_grad()
    def decorated() -> bool:
        return (x * 2).requires_grad

    @pf.no_grad
    def bare() -> bool:
        return (x * 2).requires_grad

    assert not decorated() and not bare()

    @pf.no_grad()
    def generator():
        yield (x * 2).requires_grad

    for flag in generator():
        assert not flag and pf.is_grad_enabled()


def test_inference_tensors_cannot_be_recorded() -> None:
    x = leaf(1.0)
    with pf.inference_mode():
        y = x * 2
        assert y.is_inference() and not y.requires_grad
    with pytest.raises(AutogradError, match=r"mul: backward needs.*inference tensor.*clone"):
        (y * x).sum().backward()
    (y + x).sum()  # nothing of y is saved
    (y.clone() * x).sum().backward()
    assert x.grad.tolist() == [2]


def test_modes_are_per_thread() -> None:
    seen = []
    with pf.no_grad():
        thread = threading.Thread(target=lambda: seen.append(pf.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_hooks() -> None:
    x = leaf(1, 2)
    y = x * 3
    handle = y.register_hook(lambda g: g * 10)
    seen = []
    x.register_hook(lambda g: seen.append(g.tolist()))
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist()))
    y.sum().backward(retain_graph=True)
    assert seen == [[30, 30], [30, 30]]
    handle.remove()
    x.grad = None
    y.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_retain_grad_and_detach() -> None:
    x = leaf(1, 2)
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [6, 12]
    d = y.detach()
    assert not d.requires_grad and d.array is y.array
    d.mul_(2.0)
    assert y._version == 1


def test_detach_shares_versions_so_that_a_write_is_noticed() -> None:
    x = leaf(1, 2)
    y = x * 1.0
    z = y * y
    y.detach().add_(1.0)
    with pytest.raises(AutogradError, match="in-place"):
        z.sum().backward()


def test_data_is_an_unnoticed_alias() -> None:
    x = leaf(1, 2)
    x.data.mul_(2.0)
    assert x.tolist() == [2, 4] and x._version == 0
    x.data = pf.tensor([5.0, 6.0], dtype="float64")
    assert x.tolist() == [5, 6] and x.requires_grad


class Square(pf.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


class Pair(pf.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x * factor, x + factor

    @staticmethod
    def backward(ctx, first, second):
        return first * ctx.factor + second, None


def test_function() -> None:
    x = leaf(1, 2)
    Square.apply(x).sum().backward()
    assert x.grad.tolist() == [2, 4]
    assert pf.autograd.gradcheck(Square.apply, (x,))
    assert pf.autograd.gradgradcheck(Square.apply, (x,))
    a, b = Pair.apply(x, 3.0)
    (g,) = pf.autograd.grad(a.sum(), x)
    assert g.tolist() == [3, 3]
    (a * b).sum()
    assert "Square" in Square.apply(x).grad_fn.name()


def test_function_with_a_wrong_backward() -> None:
    class Wrong(Square):
        @staticmethod
        def backward(ctx, g):
            return g.sum()

    class TooMany(Square):
        @staticmethod
        def backward(ctx, g):
            return g, g

    with pytest.raises(AutogradError, match="Wrong: gradient 0 does not have its input's shape"):
        Wrong.apply(leaf(1, 2)).sum().backward()
    with pytest.raises(AutogradError, match="TooMany: backward returned 2 gradients for 1 inputs"):
        TooMany.apply(leaf(1, 2)).sum().backward()


def test_function_graphs_are_freed_without_the_garbage_collector() -> None:
    class SavesOutput(pf.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]

    gc.disable()
    try:
        x = leaf(1.0)
        y = SavesOutput.apply(x)
        ref = weakref.ref(y)
        node = weakref.ref(y.grad_fn)
        y.sum().backward()
        del y
        assert ref() is None and node() is None
    finally:
        gc.enable()


def test_checkpoint_gives_the_same_gradients_and_dropout_masks() -> None:
    x = pf.randn(4, 5, dtype="float64").requires_grad_()

    def region(x):
        return pf.nn.functional.dropout((x * x).tanh(), 0.5, True)

    pf.manual_seed(3)
    region(x).sum().backward()
    plain = x.grad.numpy().copy()
    x.grad = None
    pf.manual_seed(3)
    pf.autograd.checkpoint(region, x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), plain)


def test_gradcheck_finds_a_planted_error_of_a_tenth_of_a_percent() -> None:
    class Off(Square):
        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            wrong = 2 * x * g
            return wrong + wrong * pf.tensor([0.001, 0.0, 0.0], dtype="float64")

    assert pf.autograd.gradcheck(Square.apply, (leaf(1, 2, 3),))
    with pytest.raises(AutogradError, match="along a random direction"):
        pf.autograd.gradcheck(Off.apply, (leaf(1, 2, 3),))


def test_nan_in_backward_is_named_under_detect_anomaly() -> None:
    x = leaf(0.0)
    with pf.autograd.detect_anomaly(), pytest.raises(AutogradError, match="NaN"):
        (x.sqrt() * 0.0).sum().backward()


def test_backward_runs_in_any_thread() -> None:
    x = leaf(1, 2)
    y = (x * x).sum()
    thread = threading.Thread(target=y.backward)
    thread.start()
    thread.join()
    assert x.grad.tolist() == [2, 4]


def test_errors_in_a_hook_leave_gradients_whole() -> None:
    x, w = leaf(1.0), leaf(2.0)
    y = x * w

    def broken(g):
        raise ValueError("mine")

    y.register_hook(broken)
    with pytest.raises(ValueError, match="mine"):
        y.sum().backward()
    assert x.grad is None and w.grad is None and pf.is_grad_enabled()


def test_jacobian_and_hessian() -> None:
    x = pf.tensor([1.0, 2.0], dtype="float64")
    jac = pf.autograd.functional.jacobian(lambda x: x * x * x, x)
    assert jac.tolist() == [[3, 0], [0, 12]]
    hess = pf.autograd.functional.hessian(lambda x: (x * x * x).sum(), x)
    assert hess.tolist() == [[6, 0], [0, 12]]
