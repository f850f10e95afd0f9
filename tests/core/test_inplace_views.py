"""In-place writes through views: random programs against PyTorch, and the promises one by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe.errors import AutogradError
from pyframe.tensor import inplace as inplace_module

# ---------------------------------------------------------------------- random programs


class Program:
    """Runs one random program on pyframe and PyTorch step by step.

    After every step both have the same values, the same ``requires_grad``, and raised or not.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.leaves: list[tuple] = []
        self.pairs: list[tuple] = []
        self.reads: list[tuple] = []
        self.log: list[str] = []

    def number(self, n: int) -> int:
        return int(self.random.integers(n))

    def pick(self) -> tuple:
        return self.pairs[self.number(len(self.pairs))]

    def start(self) -> None:
        for k in range(3):
            a = self.random.standard_normal([(3, 4), (2, 3, 2), (4,)][k])
            if self.number(3) == 0:
                a = a.T.copy().T  # another order in memory
            ours, theirs = pf.from_numpy(a.copy(order="K")), torch.from_numpy(a.copy(order="K"))
            if self.number(4):
                ours.requires_grad_(), theirs.requires_grad_()
                self.leaves.append((ours, theirs))
                self.pairs.append((ours, theirs))
                self.pairs.append((ours * 1.5, theirs * 1.5))
            else:
                self.pairs.append((ours, theirs))

    def view(self, ndim: int, shape: tuple) -> tuple[str, Callable]:
        """A random view of a tensor of this shape, as a function of the tensor."""
        d = self.number(ndim) if ndim else 0
        size = shape[d] if ndim else 1
        at = self.number(size) if size else 0
        start = self.number(size + 1)
        dims = tuple(int(i) for i in self.random.permutation(ndim))
        choices: list[tuple[str, Callable]] = [
            ("detach", lambda x: x.detach()),
            ("unsqueeze", lambda x: x.unsqueeze(d)),
            ("reshape", lambda x: x.reshape(-1)),
            ("view", lambda x: x.view(-1)),
            ("...", lambda x: x[...]),
            ("squeeze", lambda x: x.squeeze()),
        ]
        if ndim:
            choices += [
                ("permute", lambda x: x.permute(dims)),
                ("transpose", lambda x: x.transpose(d, 0)),
                ("slice", lambda x: x[start:]),
                ("narrow", lambda x: x.narrow(d, start, size - start)),
                ("flatten", lambda x: x.flatten()),
                ("step", lambda x: x[..., ::2]),
                ("unfold", lambda x: x.unfold(d, min(2, size), 2)),
                ("expand", lambda x: x.expand(2, *shape)),
            ]
            if size:
                choices += [
                    ("number", lambda x: x[at if d == 0 else 0] if shape[0] else x[...]),
                    ("select", lambda x: x.select(d, at)),
                ]
        if ndim > 1:
            choices += [("diagonal", lambda x: x.diagonal()), ("column", lambda x: x[:, None])]
        return choices[self.number(len(choices))]

    def write(self, shape: tuple) -> tuple[str, Callable]:
        """A random in-place op on a tensor of this shape; the function also gets the module."""
        other = self.pick()
        v = self.random.standard_normal(shape[-1:] if self.number(2) else ())
        half = slice(0, 1 + self.number(2))
        mask = self.random.random(shape) < 0.5

        def of(m: Any) -> Any:
            return other[0] if m is pf else other[1]

        choices: list[tuple[str, Callable]] = [
            ("mul_", lambda m, x: x.mul_(2.0)),
            ("add_", lambda m, x: x.add_(m.tensor(v))),
            ("tanh_", lambda m, x: x.tanh_()),
            ("mul_other", lambda m, x: x.mul_(of(m).sum().reshape(()))),
            ("add_same", lambda m, x: x.add_(x)),
            ("zero_", lambda m, x: x.zero_()),
            ("fill_", lambda m, x: x.fill_(0.5)),
            ("set", lambda m, x: x.__setitem__(..., of(m).mean())),
            ("set_number", lambda m, x: x.__setitem__(..., 0.25)),
            ("copy_", lambda m, x: x.copy_(m.tensor(v))),
        ]
        if shape:
            choices += [
                ("set_half", lambda m, x: x.__setitem__(half, of(m).sum())),
                ("set_mask", lambda m, x: x.__setitem__(m.tensor(mask), of(m).sum())),
                ("add_half", lambda m, x: x[half].add_(1.0)),
                ("set_column", lambda m, x: x.__setitem__((..., 0), x[..., -1] * 2)),
            ]
        return choices[self.number(len(choices))]

    def both(self, word: str, run: Callable) -> tuple | None:
        """Runs a step in both; ``None`` if both raised."""
        self.log.append(word)
        results, errors = [], []
        for m in (pf, torch):
            try:
                results.append(run(m))
                errors.append(None)
            except RuntimeError as error:
                results.append(None)
                errors.append(error)
        assert (errors[0] is None) == (errors[1] is None), (errors, self.log)
        return None if errors[0] is not None else tuple(results)

    def step(self) -> None:
        k = self.number(len(self.pairs))
        pair = self.pairs[k]
        shape = tuple(pair[1].shape)
        silent = self.number(8) == 0

        def quiet(m: Any) -> Any:
            return m.no_grad() if silent else nullcontext()

        kind = self.number(10)
        note = f"{k}{list(shape)}{' no_grad' if silent else ''}"
        if kind < 4:
            word, view = self.view(len(shape), shape)

            def run(m: Any) -> Any:
                return view(pair[m is torch])

            made = self.both(f"#{len(self.pairs)} = {word}({k}{list(shape)})", run)
            if made is not None:
                self.pairs.append(made)
        elif kind < 8:
            if any(t == 0 and n > 1 for t, n in zip(pair[1].stride(), shape, strict=True)):
                return  # expanded: tested below, PyTorch is not consistent
            word, write = self.write(shape)

            def run(m: Any) -> None:
                with quiet(m):
                    write(m, pair[m is torch])

            self.both(f"{word}({note})", run)
        else:
            read = self.both(f"read({note})", lambda m: (pair[m is torch] ** 2).sum())
            self.reads.append(read)

    def check(self) -> None:
        for ours, theirs in self.pairs:
            assert ours.requires_grad == theirs.requires_grad, self.log
            assert ours.is_leaf == theirs.is_leaf, self.log
            np.testing.assert_allclose(
                ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-12, err_msg=str(self.log)
            )

    def finish(self) -> None:
        weights = [self.random.standard_normal(p[1].shape) for p in self.pairs]
        graph = bool(self.number(2))

        def run(m: Any) -> list:
            i = int(m is torch)
            total = sum(r[i] for r in self.reads) + sum(
                (p[i] * m.tensor(w)).sum() for p, w in zip(self.pairs, weights, strict=True)
            )
            if not total.requires_grad:
                return []
            leaves = [p[i] for p in self.leaves]
            grads = m.autograd.grad(total, leaves, create_graph=graph, allow_unused=True)
            if graph:
                again = sum((g * g).sum() for g in grads if g is not None)
                more: Any = [None] * len(leaves)
                if again.requires_grad:
                    more = m.autograd.grad(again, leaves, allow_unused=True)
                grads = [*grads, *more]
            return [None if g is None else g.detach().numpy() for g in grads]

        results = self.both("backward", run)
        if results is None:
            return
        for ours, theirs in zip(*results, strict=True):
            a = 0 if ours is None else ours  # a missing gradient is a zero one
            b = 0 if theirs is None else theirs
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8, err_msg=str(self.log))


@pytest.mark.parametrize("start", range(0, 400, 20))
def test_random_programs(start: int) -> None:
    for seed in range(start, start + 20):
        program = Program(seed)
        program.start()
        for _ in range(3 + seed % 10):
            program.step()
            program.check()
        program.finish()


# ---------------------------------------------------------------------- one promise each


def leaf(*shape: int) -> pf.Tensor:
    values = np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape)
    return pf.tensor(values).requires_grad_()


def test_the_gradient_of_an_overwritten_part_is_zero_and_goes_to_the_value() -> None:
    x, v = leaf(3), leaf(2)
    y = x * 2
    y[1:] = v * 3
    (y * pf.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [2, 0, 0]
    assert v.grad.tolist() == [30, 300]


def test_a_write_through_a_view_of_a_view_reaches_all_of_them() -> None:
    x = leaf(2, 3)
    y = x * 1
    row, column = y[0], y[:, 1]
    y.t()[1].mul_(5)
    assert row.tolist() == [1, 10, 3]
    assert column.tolist() == [10, 25]
    (row.sum() + column.sum()).backward()
    assert x.grad.tolist() == [[1, 10, 1], [0, 5, 0]]


def test_a_view_made_before_the_write_has_the_new_edge() -> None:
    x = leaf(3)
    base = pf.zeros(3, dtype="float64")
    view = base[:2]
    assert not view.requires_grad
    base += x
    assert view.requires_grad
    view.sum().backward()
    assert x.grad.tolist() == [1, 1, 0]


def test_a_write_of_a_recorded_value_puts_the_base_on_the_tape() -> None:
    x = leaf(2)
    base = pf.zeros(2, 2, dtype="float64")
    base[1] = x
    base[0] = base[1] * 2
    assert base.requires_grad
    base.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_saved_values_are_versioned_across_views() -> None:
    x = leaf(4)
    y = x * 1
    z = y * y
    y[0] = 0.0
    with pytest.raises(
        AutogradError, match=r"mul: backward needs .*float64\[4\].*version 0, now 1"
    ):
        z.sum().backward()


def test_writes_to_a_detached_tensor_are_noticed() -> None:
    x = leaf(4)
    y = x * 1
    z = y * y
    y.detach()[2:] = 0.0
    with pytest.raises(AutogradError, match="in-place"):
        z.sum().backward()


def test_writes_under_no_grad_are_noticed() -> None:
    x = leaf(4)
    y = x * 1
    z = y * y
    with pf.no_grad():
        y[0] = 1.0
    with pytest.raises(AutogradError, match="in-place"):
        z.sum().backward()


def test_an_op_that_saves_nothing_does_not_mind_a_write() -> None:
    x = leaf(4)
    y = x * 1
    z = y + 1
    y[0] = 0.0
    z.sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("add_", lambda x: x.add_(1)),
        ("assignment", lambda x: x.__setitem__(0, 1.0)),
        ("assignment", lambda x: x.__setitem__(pf.tensor([0]), 1.0)),
        ("index_fill_", lambda x: x.index_fill_(0, pf.tensor([0]), 1.0)),
        ("tril_", lambda x: x.tril_()),
    ],
)
def test_a_leaf_cannot_be_written_to(name: str, write: Callable) -> None:
    for view in (lambda x: x, lambda x: x.t(), lambda x: x[1:].view(1, 2)):
        x = leaf(2, 2)
        with pytest.raises(AutogradError, match=rf"{name}: .*leaf that requires grad"):
            write(view(x))
        assert x.tolist() == [[1, 2], [3, 4]]
        with pf.no_grad():
            write(view(x))
        assert x.is_leaf


def test_a_write_in_grad_mode_through_a_view_made_without_grad_raises_and_changes_nothing() -> None:
    x = leaf(3)
    y = x * 1
    with pf.no_grad():
        view = y[1:]
    with pytest.raises(AutogradError, match="made without grad"):
        view.add_(x[0])
    assert y.tolist() == [1, 2, 3]
    for write in (lambda: view.add_(1), lambda: view.__setitem__(0, 5)):  # nor a constant
        with pytest.raises(AutogradError, match="made without grad"):
            write()
    with pf.no_grad():
        view.add_(1)
    assert y.tolist() == [1, 3, 4]


def test_a_write_that_overlaps_what_it_reads() -> None:
    x = leaf(4)
    y = x * 1
    y[1:] = y[:-1]
    assert y.tolist() == [1, 1, 2, 3]
    (y * pf.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert x.grad.tolist() == [11, 100, 1000, 0]


def test_squaring_in_place_keeps_what_backward_needs() -> None:
    x = leaf(3)
    y = x * 1
    y.mul_(y)
    y.sum().backward()
    assert x.grad.tolist() == [2, 4, 6]


def test_augmented_assignment_to_a_part() -> None:
    x = leaf(3)
    y = x * 1
    y[0] += y[2] * 2
    y[1:] *= 3
    y.sum().backward()
    assert y.tolist() == [7, 6, 9]
    assert x.grad.tolist() == [1, 3, 5]


def test_versions_count_writes_through_every_view() -> None:
    x = pf.zeros(2, 3)
    views = [x.t(), x[0], x.view(-1), x.detach(), x[:, None]]
    for k, view in enumerate(views):
        view.fill_(k)
        assert x._version == k + 1
        assert all(v._version == k + 1 for v in views)
    assert x.clone()._version == 0
    assert x.t().reshape(6)._version == 0  # a copy


def test_an_inference_tensor_is_written_to_only_in_inference_mode() -> None:
    x = leaf(2)
    with pf.inference_mode():
        y = pf.zeros(3, dtype="float64")
        y[0] = 2.0
    assert y.tolist() == [2, 0, 0]
    for write in (lambda: y.__setitem__(1, x[0]), lambda: y.__setitem__(1, 1.0), lambda: y.add_(1)):
        with pytest.raises(AutogradError, match="inference"):
            write()
    assert y.is_inference()
    assert y.tolist() == [2, 0, 0]


def test_a_loop_of_writes_into_one_buffer() -> None:
    """A recurrent network that collects its outputs in place."""
    x = leaf(3)
    out = pf.zeros(5, 3, dtype="float64")
    h = x
    for t in range(5):
        h = h * 2
        out[t] = h
    out.sum().backward()
    assert x.grad.tolist() == [62, 62, 62]


# ---------------------------------------------------------------------- large arrays

# Each changes its first argument, of 64 × 1000 values, for which kernels write where it lies.
LARGE_WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "relu_": lambda x, z: x.relu_(),
    "tanh_": lambda x, z: x.tanh_(),
    "exp_": lambda x, z: x.exp_(),
    "sin_": lambda x, z: x.sin_(),  # whose rule needs what was there
    "add_": lambda x, z: x.add_(z),
    "add_ alpha": lambda x, z: x.add_(z, alpha=2),
    "mul_": lambda x, z: x.mul_(z),
    "mul_ number": lambda x, z: x.mul_(2.5),
    "pow_": lambda x, z: x.pow_(2),
    "sub_ of one value": lambda x, z: x.sub_(z.sum()),
    "another order": lambda x, z: x.t().relu_().t(),
    "overlapping operand": lambda x, z: x.add_(x[:, :1]),
    "a part": lambda x, z: (x[:, 10:900].mul_(z[:, 10:900]), x)[1],
}


@pytest.mark.parametrize("name", LARGE_WRITES)
def test_recorded_writes_into_large_arrays(name: str) -> None:
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((64, 1000)) for _ in range(2))
    found = []
    for framework in (pf, torch):
        x, z = (framework.tensor(v).requires_grad_() for v in (a, b))
        y = LARGE_WRITES[name](x * 1.0, z)
        (y * y).backward(framework.ones_like(y))
        used = [t.grad for t in (x, z) if t.grad is not None]
        found.append([t.detach().numpy() for t in (y, *used)])
    assert len(found[0]) == len(found[1])
    for ours, theirs in zip(*found, strict=True):
        # float64, a few operations deep: only the last bits of functions such as exp may differ.
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_recorded_write_needs_no_second_array(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pf.ones(64, 1000).requires_grad_() * -1.0
    at = x.array
    assigned: list = []
    monkeypatch.setattr(inplace_module, "assign", lambda target, value: assigned.append(value))
    x.relu_()
    native = pf.backend.native.module is not None
    assert bool(assigned) != native
    assert x.array is at
    assert not native or not at.any()
