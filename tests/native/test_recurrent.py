"""The native recurrent layers: odd sizes, layouts, threads, guard regions, instruction sets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pyframe import nn
from pyframe.backend import native
from pyframe.op.registry import ops

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

GUARD = 32
CELLS = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}
# Steps, batch, width, hidden: single elements, few rows (weights where they lie), more rows than a
# register tile has, widths beside and at multiples of a vector, sums in several parts, rows of x
# that are 4 KB apart.
SHAPES = [
    (1, 1, 1, 1),
    (3, 1, 5, 70),
    (2, 8, 3, 130),
    (4, 9, 7, 33),
    (3, 17, 40, 65),
    (2, 29, 1024, 20),
    (5, 33, 64, 48),
    (2, 12, 300, 290),
]


def _arrays(cell: str, shape: tuple, dtype: Any, bias: bool = True) -> list:
    steps, batch, width, hidden = shape
    rng = np.random.default_rng(sum(shape))
    wide = CELLS[cell] * hidden
    states = [(batch, hidden)] * (2 if cell == "lstm" else 1)
    arrays = [rng.standard_normal(s) for s in ((steps, batch, width), *states)]
    arrays += [rng.standard_normal((wide, n)) / np.sqrt(n) for n in (width, hidden)]
    arrays += [rng.standard_normal(wide) for _ in range(2)] if bias else []
    arrays = [a.astype(dtype) for a in arrays]
    return arrays if bias else [*arrays, None, None]


def _record(cell: str, part: str) -> tuple[Any, dict]:
    if cell in ("lstm", "gru"):
        return ops[f"{cell}_{part}"], {}
    return ops[f"rnn_{part}"], {"nonlinearity": cell}


def _run(cell: str, arrays: list, reverse: bool) -> tuple[tuple, tuple]:
    """Outputs of the layer, and of its backward with cotangents that are no constants."""
    states = 2 if cell == "lstm" else 1
    op, params = _record(cell, "layer")
    outputs = op.kernels["cpu"][0].run(*arrays, reverse=reverse, **params)
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(a.shape).astype(a.dtype) for a in outputs[: 1 + states]]
    op, params = _record(cell, "backward")
    saved = (outputs[0], *outputs[1 + states :])
    inputs = (*grads, *arrays[: 3 + states], *saved)
    return outputs, op.kernels["cpu"][0].run(*inputs, reverse=reverse, **params)


def _exact(cell: str, arrays: list, reverse: bool, outputs: tuple) -> tuple[tuple, tuple]:
    """The same by the float64 references, the backward from the kernel's own saved arrays."""
    states = 2 if cell == "lstm" else 1
    wide = [a if a is None else a.astype(np.float64) for a in arrays]
    op, params = _record(cell, "layer")
    exact = op.reference(*wide, reverse=reverse, **params)
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(a.shape).astype(outputs[0].dtype) for a in outputs[: 1 + states]]
    op, params = _record(cell, "backward")
    saved = [a.astype(np.float64) for a in (outputs[0], *outputs[1 + states :])]
    inputs = [*(g.astype(np.float64) for g in grads), *wide[: 3 + states], *saved]
    return exact, op.reference(*inputs, reverse=reverse, **params)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Outputs between guard regions, at addresses that are no multiples of a vector."""
    rooms = []

    def empty(shape: tuple, dtype: Any) -> np.ndarray:
        size = int(np.prod(shape))
        room = np.full(size + 2 * GUARD + 1, 7, dtype)
        rooms.append(room)
        return room[GUARD + 1 : GUARD + 1 + size].reshape(shape)

    monkeypatch.setattr(native, "empty", empty)
    yield
    assert rooms
    for room in rooms:
        assert (room[: GUARD + 1] == 7).all()
        assert (room[-GUARD:] == 7).all()


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_sizes(cell: str, shape: tuple, reverse: bool, dtype: str) -> None:
    arrays = _arrays(cell, shape, dtype)
    before = [a.copy() for a in arrays]
    outputs, grads = _run(cell, arrays, reverse)
    for a, b in zip(arrays, before, strict=True):
        assert np.array_equal(a, b)
    epsilon = np.finfo(dtype).eps
    # Every step adds the rounding errors of one sum, which grow with the root of its length.
    steps, batch, width, hidden = shape
    length = np.sqrt(width + hidden) * steps
    backward = np.sqrt(steps * batch + CELLS[cell] * hidden) * steps
    exact = _exact(cell, arrays, reverse, outputs)
    for found, wanted, terms in ((outputs, exact[0], length), (grads, exact[1], backward)):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert a.shape == b.shape
            scale = max(1.0, np.abs(b).max())
            assert np.abs(a - b).max() <= 4 * epsilon * terms * scale


@pytest.mark.parametrize("cell", CELLS)
def test_without_biases(cell: str) -> None:
    arrays = _arrays(cell, (3, 17, 6, 20), "float32")
    for a in arrays[-2:]:
        a[...] = 0
    zero = _run(cell, arrays, False)
    none = _run(cell, [*arrays[:-2], None, None], False)
    for a, b in zip(zero[0] + zero[1], none[0] + none[1], strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("cell", CELLS)
def test_any_layout(cell: str) -> None:
    arrays = _arrays(cell, (4, 10, 6, 20), "float32")
    wanted = _run(cell, arrays, False)
    x = np.ascontiguousarray(arrays[0].transpose(1, 0, 2)).transpose(1, 0, 2)
    others = [np.repeat(a, 2, axis=-1)[..., ::2] for a in arrays[1:]]
    assert not x.flags.c_contiguous
    found = _run(cell, [x, *others], False)
    for a, b in zip(wanted[0] + wanted[1], found[0] + found[1], strict=True):
        assert np.array_equal(a, b)


# Rows shared among threads; columns of few rows; columns of more rows than are thin.
@pytest.mark.parametrize("shape", [(6, 64, 48, 130), (6, 3, 64, 260), (5, 10, 64, 260)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_threads_do_not_change_the_bits(cell: str, dtype: str, shape: tuple) -> None:
    arrays = _arrays(cell, shape, dtype)
    before = native.num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            native.set_num_threads(threads)
            outputs, grads = _run(cell, arrays, False)
            results.append(outputs + grads)
    finally:
        native.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_nothing_empty_reaches_the_kernel(cell: str) -> None:
    op, params = _record(cell, "layer")
    for shape in ((0, 2, 3, 4), (3, 0, 3, 4), (3, 2, 0, 4)):
        arrays = _arrays(cell, shape[:2] + (max(shape[2], 1), 4), "float32")
        if not shape[2]:
            arrays[0] = arrays[0][:, :, :0]
        assert "empty" in op.kernels["cpu"][0].supports(*arrays, reverse=False, **params)


def test_a_layer_uses_the_kernel_at_any_size() -> None:
    layer = nn.LSTM(2, 3)
    calls = []
    kernel = ops["lstm_layer"].kernels["cpu"][0]
    run = kernel.run
    try:
        kernel.run = lambda *a, **k: calls.append(1) or run(*a, **k)
        import pyframe as pf

        layer(pf.ones(1, 1, 2))
    finally:
        kernel.run = run
    assert calls


@pytest.mark.parametrize("isa", [i for i in ("baseline", "avx2", "avx512") if native.isa() != i])
def test_other_instruction_sets(isa: str) -> None:
    if isa not in native.module.supported_isas():
        pytest.skip(f"this machine has no {isa}")
    chosen = f"{__file__}::test_sizes"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", chosen]
    environment = {**os.environ, "PYFRAME_ISA": isa}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
