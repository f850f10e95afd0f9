"""kernels/recurrent_persistent*.cu in the emulator, and when they are chosen."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import emulator, launch, nvrtc
from pyframe.dtypes import compute_dtype
from pyframe.op.record import Kernel, Op
from pyframe.ops import _cuda_recurrent_persistent as persistent
from pyframe.ops.gru import gru_backward, gru_layer
from pyframe.ops.lstm import lstm_backward, lstm_layer
from pyframe.testing.accuracy import epsilon
from tests.doubles.gpu import Array, Host
from tests.gpu.disassembly import disassembled

LAYERS = {"lstm": (lstm_layer, lstm_backward, 4, 2), "gru": (gru_layer, gru_backward, 3, 1)}
A100 = persistent.Device(108, 164 << 10, 163 << 10)
SMALL = persistent.Device(24, 100 << 10, 99 << 10)


def inputs(cell: str, dtype: Any, steps: int, rows: int, width: int, hidden: int) -> list:
    rng = np.random.default_rng(3)
    *_, gates, states = LAYERS[cell]
    shapes = [(steps, rows, width), *[(rows, hidden)] * states]
    shapes += [(gates * hidden, n) for n in (width, hidden)] + [(gates * hidden,)] * 2
    arrays = [rng.standard_normal(s) for s in shapes]
    for k in (1 + states, 2 + states):
        arrays[k] *= 0.2
    return [a.astype(dtype) for a in arrays]


# Per dtype: rows of the small instance, of the large one, and of two passes of it; several blocks,
# units that fill no block and no chunk of the products.
CASES = [
    ("float32", 3, 33),
    ("float32", 16, 13),
    ("float32", 21, 41),
    ("float64", 5, 34),
    ("bfloat16", 16, 41),
    ("bfloat16", 20, 17),
    ("float16", 70, 9),
]


@pytest.mark.parametrize(("cell", "reverse"), [("lstm", False), ("gru", True)])
@pytest.mark.parametrize(("name", "rows", "hidden"), CASES)
def test_layers_of_several_blocks(
    name: str, rows: int, hidden: int, cell: str, reverse: bool
) -> None:
    layer, backward, _, states = LAYERS[cell]
    dtype = pf.dtypes.as_dtype(name)
    arrays = inputs(cell, dtype, 3, rows, 5, hidden)
    outputs = agree(layer, arrays, reverse)
    cotangents = [np.roll(a, 1, -1) for a in outputs[: 1 + states]]
    saved = (outputs[0], *outputs[1 + states :])
    agree(backward, [*cotangents, *arrays[: 3 + states], *saved], reverse)


def agree(function: Any, arrays: list, reverse: bool) -> list:
    """Compares the kernel with the reference in float64; returns what that gives, rounded."""
    dtype, op = arrays[0].dtype, function.op
    exact = op.reference(*[a.astype(np.float64) for a in arrays], reverse=reverse)
    before = set(emulator.executed)
    emulator.executed.clear()
    with pf.kernels("persistent"):
        found = function(*arrays, reverse=reverse)
    assert any(f"kernels/{file}" == kernel(op).source for file, _ in emulator.executed)
    emulator.executed |= before
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == dtype
        close(a, b, dtype)
    return [np.asarray(e).astype(dtype) for e in exact]


def test_the_first_step_has_no_other_steps_to_wait_for() -> None:
    """One step, no biases: what a cell is."""
    arrays = inputs("lstm", np.float32, 1, 2, 3, 11)[:-2]
    with pf.kernels("persistent"):
        found = lstm_layer(*arrays, None, None)
    with pf.kernels("portable"):
        expected = lstm_layer(*arrays, None, None)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def close(found: np.ndarray, exact: np.ndarray, dtype: Any) -> None:
    """Half types round the inputs' part, what a step hands on, and the result."""
    roundings = 16 if dtype == compute_dtype(dtype) else 4
    atol = roundings * epsilon(dtype) * max(1.0, float(np.abs(exact).max()))
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=0, atol=atol)


# Per dtype: rows, and units so many that warps go through k more than once.
LONG = [("float32", 3, 1100), ("float64", 2, 520), ("bfloat16", 5, 1100), ("bfloat16", 33, 600)]


@pytest.mark.parametrize(("name", "rows", "hidden"), LONG)
def test_a_block_of_a_wide_layer(name: str, rows: int, hidden: int) -> None:
    """The first block alone, with what the others would hand on already there."""
    dtype = pf.dtypes.as_dtype(name)
    layer = persistent.Layer(dtype, 4, 1, rows, hidden)
    cut = persistent._cut(layer, next(r for r in persistent._rows(dtype) if r >= rows))
    rng = np.random.default_rng(4)
    filled = -(-rows // cut.rows) * cut.rows
    state = np.zeros((2, filled, cut.stride), dtype)
    state[0, :rows, :hidden] = rng.standard_normal((rows, hidden))
    weights = (rng.standard_normal((4 * hidden, hidden)) * hidden**-0.5).astype(dtype)
    own = slice(0, 8)
    carry = rng.standard_normal((rows, hidden)).astype(compute_dtype(dtype))
    before = carry[:, own].astype(np.float64)
    gates, y, saved = (np.zeros((rows, n * hidden), dtype) for n in (4, 1, 1))
    arrays = (weights, None, carry, state, np.zeros(1, np.uint32), gates, y, saved)
    vector = int(hidden * dtype.itemsize % 16 == 0)
    persistent.FILES[False, dtype].launch(
        persistent.instance(layer, cut),
        "P" * 8 + "i" * 6,
        (1,),
        (persistent.THREADS,),
        (*arrays, 1, rows, hidden, cut.stride, 0, vector),
        cut.shared,
    )
    wide = [a.astype(np.float64) for a in (state[0, :rows, :hidden], weights)]
    a = (wide[0] @ wide[1].T).reshape(rows, 4, hidden)[:, :, own]
    i, f, o = (1 / (1 + np.exp(-a[:, k])) for k in (0, 1, 3))
    cell = f * before + i * np.tanh(a[:, 2])
    close(carry[:, own], cell, dtype)
    close(y[:, own], o * np.tanh(cell), dtype)
    assert not y[:, own.stop :].any()


@pytest.mark.parametrize(("name", "rows", "hidden"), LONG)
def test_a_block_of_a_wide_layer_backward(name: str, rows: int, hidden: int) -> None:
    dtype = pf.dtypes.as_dtype(name)
    layer = persistent.Layer(dtype, 4, 1, rows, hidden, backward=True)
    cut = persistent._cut(layer, next(r for r in persistent._rows(dtype) if r >= rows))
    rng = np.random.default_rng(5)
    filled = -(-rows // cut.rows) * cut.rows
    exchange = np.zeros((2, filled, 4, cut.stride), dtype)
    exchange[1, :rows, :, :hidden] = rng.standard_normal((rows, 4, hidden))
    weights = (rng.standard_normal((4 * hidden, hidden)) * hidden**-0.5).astype(dtype)
    first, states, g_y, saved, g_h = (
        rng.standard_normal((rows, hidden)).astype(dtype) for _ in range(5)
    )
    gates, d = rng.random((rows, 4 * hidden)).astype(dtype), np.zeros((rows, 4 * hidden), dtype)
    carry, counter = np.zeros((rows, hidden), compute_dtype(dtype)), np.zeros(1, np.uint32)
    arrays = (weights, first, states, g_y, gates, saved, carry, g_h, exchange, counter, d, None)
    persistent.FILES[True, dtype].launch(
        persistent.instance(layer, cut),
        "P" * 12 + "i" * 5,
        (1,),
        (persistent.THREADS,),
        (*arrays, 1, rows, hidden, cut.stride, 0),
        cut.shared,
    )
    handed = exchange[1, :rows, :, :hidden].astype(np.float64)
    np.testing.assert_array_equal(handed[:, :, :8], d.reshape(rows, 4, hidden)[:, :, :8])
    exact = np.einsum("rgk,gku->ru", handed, weights.astype(np.float64).reshape(4, hidden, hidden))
    close(g_h[:, :8], exact[:, :8], dtype)


def test_every_instance_is_run_by_a_case() -> None:
    found = set()
    for gates, backward, (name, rows, hidden) in product((3, 4), (False, True), CASES):
        layer = persistent.Layer(pf.dtypes.as_dtype(name), gates, 3, rows, hidden, backward)
        found.add(persistent.instance(layer, persistent.cut(layer, persistent.H100)))
    all_of_them = {i for file in persistent.FILES.values() for i in file.instances}
    # Those of float16 are the same templates as those of bfloat16.
    assert {i for i in all_of_them if "pf::float16" not in i} <= found


# ---- what fits, and what is chosen


FITS = [
    ("bfloat16", 1024, 64, persistent.H100, 64),  # 128 blocks, one on a multiprocessor
    ("bfloat16", 1024, 64, A100, 16),  # two on a multiprocessor: few registers, small sums
    ("bfloat16", 1024, 1, persistent.H100, 16),
    ("bfloat16", 1536, 64, persistent.H100, 16),
    ("bfloat16", 1792, 1, persistent.H100, None),
    ("bfloat16", 2048, 1, persistent.H100, None),
    ("float32", 1024, 4, persistent.H100, 4),
    ("float32", 1024, 4, A100, None),
    ("float32", 512, 64, persistent.H100, 16),
    ("float32", 512, 4, A100, 4),
    ("float64", 512, 64, persistent.H100, 4),
    ("float64", 1024, 1, persistent.H100, None),
    ("bfloat16", 192, 8, SMALL, 16),
    ("bfloat16", 512, 8, SMALL, None),
]


@pytest.mark.parametrize(
    ("name", "hidden", "rows", "device", "at_once", "backward"),
    [
        *((*case, backward) for case in FITS for backward in (False, True)),
        ("float32", 1024, 64, persistent.H100, 16, False),
        ("float32", 1024, 64, persistent.H100, 4, True),  # four times the room for what is read
    ],
)
def test_what_fits(
    name: str,
    hidden: int,
    rows: int,
    device: persistent.Device,
    at_once: int | None,
    backward: bool,
) -> None:
    layer = persistent.Layer(pf.dtypes.as_dtype(name), 4, 9, rows, hidden, backward)
    cut = persistent.cut(layer, device)
    assert (cut and cut.rows) == at_once
    if cut is not None:
        each = device.shared // (cut.shared + 1024)
        assert cut.blocks <= each * device.multiprocessors and cut.shared <= device.of_block


def kernel(op: Op = lstm_layer.op) -> Kernel:
    return next(k for k in op.kernels["cuda"] if k.name == "persistent")


def shaped(name: str, steps: int, rows: int, hidden: int) -> list:
    """Operands of a layer that take no memory."""
    dtype = pf.dtypes.as_dtype(name)
    shapes = [(steps, rows, hidden), (rows, hidden), (rows, hidden), *[(4 * hidden, hidden)] * 2]
    return [np.broadcast_to(np.zeros(1, dtype), s) for s in shapes]


@pytest.mark.parametrize(
    ("name", "steps", "rows", "hidden", "gains", "gains_backward"),
    [
        ("bfloat16", 100, 1, 1024, True, True),
        ("bfloat16", 100, 64, 1024, True, True),
        ("bfloat16", 1, 1, 64, False, False),  # three kernels come before it
        ("bfloat16", 100, 64, 256, True, False),  # backward, four times as much is read
        ("float32", 100, 1, 1024, True, True),
        ("float32", 100, 32, 1024, True, False),
        ("float32", 100, 256, 1024, False, False),  # as much to compute, less efficiently
        ("float64", 100, 128, 512, False, False),
    ],
)
def test_the_rule(
    name: str, steps: int, rows: int, hidden: int, gains: bool, gains_backward: bool
) -> None:
    x, h, c, w_ih, w_hh = shaped(name, steps, rows, hidden)
    y, gates = x, np.broadcast_to(x[0, 0, :1], (steps, rows, 4 * hidden))
    forward = x, h, c, w_ih, w_hh
    for arrays, op, wanted in (
        (forward, lstm_layer.op, gains),
        ((y, h, c, *forward, y, gates, y), lstm_backward.op, gains_backward),
    ):
        assert kernel(op).supports(*arrays, reverse=False) == ""
        why = kernel(op).trusted(*arrays)
        assert (why == "") == wanted
        assert wanted or "step by step" in why


def test_why_it_declines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = kernel().supports
    assert "float64 and" in asked(*shaped("float64", 2, 2, 4)[:-1], np.zeros((16, 4), np.float32))
    assert asked(*shaped("int64", 2, 2, 4)) == "only floating point, not int64"
    wide = asked(*shaped("bfloat16", 4, 2, 4096))
    assert "4096 units need 512 blocks of 278528 bytes of shared memory at once" in wide
    assert "the device holds 0" in wide
    host = Host()
    host.cooperative = lambda device: False
    monkeypatch.setattr(launch, "host", lambda: host)
    on_device = []
    for a in shaped("bfloat16", 2, 2, 64):
        on_device.append(Array(1 << 20, a.shape))
        on_device[-1].dtype, on_device[-1].size = a.dtype, a.size
    assert asked(*on_device) == "the device cannot run all blocks of a kernel at once"


# ---- machine code


@pytest.mark.parametrize("backward", [False, True])
def test_blocks_see_what_others_wrote(backward: bool, tmp_path: Path) -> None:
    """Release, acquire, and reads that no cache which is not coherent answers."""
    layer = persistent.Layer(pf.bfloat16, 4, 9, 64, 512, backward)
    name = persistent.instance(layer, persistent.cut(layer, persistent.H100))
    file = persistent.FILES[backward, pf.bfloat16]
    sass = disassembled(
        nvrtc.compile_instance(file.source, file.name, name, "sm_90a").cubin, tmp_path
    )
    told, heard = sass.index("REDG.E.ADD.STRONG.GPU"), sass.index("LDG.E.STRONG.GPU")
    assert "MEMBAR.ALL.GPU" in sass[:told] and "CCTL.IVALL" in sass[heard:]
    # 64 rows: eight pairs of lines for each gate that is read, and two chunks of them forward.
    assert len(re.findall(r"LDG\.E\.128 ", sass)) == (32 if backward else 16)
    assert "HMMA.16816.F32.BF16" in sass and not re.search(r"\b(STL|LDL)\b", sass)
