"""When gradients are delivered: as soon as they are complete, for leaves that have hooks."""

from __future__ import annotations

import pytest

import pyframe as pf
from pyframe.tape import engine


def chain() -> tuple[list[pf.Tensor], pf.Tensor, list[str]]:
    """Three leaves, the second used twice, and a log of hooks."""
    leaves = [pf.tensor([float(i + 2)], requires_grad=True) for i in range(3)]
    log: list[str] = []
    y = pf.tensor([1.0])
    for step, i in enumerate((0, 1, 1, 2)):
        y = y * leaves[i]
        y.register_hook(lambda g, step=step: log.append(f"product {step}"))
    return leaves, y, log


def test_a_hook_is_called_before_older_parts_of_the_graph() -> None:
    leaves, y, log = chain()
    for i, leaf in enumerate(leaves):
        leaf.register_post_accumulate_grad_hook(
            lambda t, i=i: log.append(f"leaf {i}: {t.grad.item():g}")
        )
    y.backward()
    assert log == [
        "product 3", "leaf 2: 18", "product 2", "product 1", "leaf 1: 48", "product 0",
        "leaf 0: 36",
    ]  # fmt: skip


def test_gradients_are_the_same_with_and_without_hooks() -> None:
    results = []
    for hooked in (False, True):
        leaves, y, _ = chain()
        leaves[0].register_hook(lambda g: g * 2)
        if hooked:
            for leaf in leaves:
                leaf.register_post_accumulate_grad_hook(lambda t: None)
        y.backward(retain_graph=True)
        y.backward()
        results.append([leaf.grad.item() for leaf in leaves])
    assert results[0] == results[1] == [144.0, 96.0, 36.0]


def test_a_hook_may_free_the_gradient_and_a_root_may_be_a_leaf() -> None:
    x = pf.tensor([1.0], requires_grad=True)
    seen = []

    def take(t: pf.Tensor) -> None:
        seen.append(t.grad.item())
        t.grad = None

    x.register_post_accumulate_grad_hook(take)
    (x * 3).backward()
    x.backward()
    (x * 0.5 + x).backward()
    assert seen == [3.0, 1.0, 1.5] and x.grad is None


def test_a_branch_without_gradient_does_not_keep_a_leaf_back() -> None:
    class Stops(pf.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: pf.Tensor) -> pf.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: object, g: pf.Tensor) -> None:
            return None

    x = pf.tensor([2.0], requires_grad=True)
    seen = []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 3 + Stops.apply(x) + Stops.apply(x * x)).backward()
    assert seen == [3.0]


def test_callbacks_run_once_at_the_end_of_the_outermost_pass() -> None:
    log: list[str] = []
    x = pf.tensor([2.0], requires_grad=True)

    def inner(g: pf.Tensor) -> None:
        assert engine.accumulates()
        engine.queue_callback(lambda: log.append("end"))
        with pf.enable_grad():
            (x.detach().requires_grad_() * 2).backward()  # a pass inside of a pass
        log.append("hook")

    y = x * 3
    y.register_hook(inner)
    x.register_post_accumulate_grad_hook(lambda t: log.append("leaf"))
    y.backward()
    assert log == ["hook", "leaf", "end"]
    assert not engine.accumulates()
    z = x * 3
    z.register_hook(lambda g: log.append(str(engine.accumulates())))
    pf.autograd.grad(z, x)
    assert log[-1] == "False"


def test_a_pass_that_raises_drops_its_callbacks() -> None:
    log: list[str] = []
    x = pf.tensor([2.0], requires_grad=True)

    def fails(g: pf.Tensor) -> None:
        engine.queue_callback(lambda: log.append("end"))
        raise KeyError("planted")

    y = x * 3
    handle = y.register_hook(fails)
    with pytest.raises(KeyError, match="planted"):
        y.backward(retain_graph=True)
    handle.remove()
    y.backward()
    assert log == []
    with pytest.raises(pf.errors.AutogradError, match="no backward pass under way"):
        engine.queue_callback(lambda: None)
