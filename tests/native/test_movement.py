"""Native copies, casts, indexing and sorting: sizes and layouts that the samples do not reach."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import copies, native
from pyframe.ops import basic_indexing, segments, splitting
from pyframe.ops.advanced_indexing import advanced_sum
from pyframe.ops.gather import scatter_sum
from pyframe.ops.index_select import add_rows
from pyframe.ops.scatter import scatter_elements

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)

ITEMS = ("u1", "u2", "u4", "u8", "c16")


def _bits(a: np.ndarray) -> bytes:
    return np.ascontiguousarray(a).tobytes()


def _views(dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of more than LARGE elements in every layout that the copies tell apart."""
    rng = np.random.default_rng(0)

    def a(*shape: int) -> np.ndarray:
        return rng.integers(0, 250, shape).astype(dtype)

    yield "transposed", a(67, 131).T
    yield "transposed whole squares", a(128, 192).T
    yield "transposed thin", a(3, 4099).T
    yield "transposed narrow", a(4099, 3).T
    yield "channels last", a(2, 5, 31, 33).transpose(0, 2, 3, 1)
    yield "channels first", a(2, 31, 33, 17).transpose(0, 3, 1, 2)
    yield "all axes moved", a(5, 6, 7, 8, 9).transpose(4, 2, 0, 3, 1)
    yield "eight axes", a(2, 3, 4, 2, 3, 4, 2, 9).transpose(7, 0, 6, 1, 5, 2, 4, 3)
    yield "pairs stay together", a(70, 90, 2).transpose(1, 0, 2)
    yield "triples stay together", a(70, 90, 3).transpose(1, 0, 2)
    yield "every second", a(70, 301)[:, ::2]
    yield "every third", a(70, 301)[:, ::3]
    yield "reversed", a(70, 101)[:, ::-1]
    yield "all reversed", a(70, 101)[::-1, ::-1]
    yield "transposed and reversed", a(70, 101).T[::-1]
    yield "columns", a(70, 301)[:, 3:150]
    yield "broadcast rows", np.broadcast_to(a(1, 101), (70, 101))
    yield "broadcast columns", np.broadcast_to(a(70, 1), (70, 101))
    yield "broadcast in the middle", np.broadcast_to(a(40, 1, 30), (40, 7, 30)).transpose(2, 1, 0)
    yield "offset", a(10001)[1:]


@pytest.mark.parametrize("dtype", ITEMS)
def test_copies_of_every_layout(dtype: str) -> None:
    for name, view in _views(dtype):
        assert view.size > copies.LARGE
        out = copies.copied(view)
        assert out.flags.c_contiguous
        assert np.array_equal(out, view), name


@pytest.mark.parametrize("dtype", ITEMS)
def test_assignment_to_every_layout_leaves_the_rest_alone(dtype: str) -> None:
    rng = np.random.default_rng(1)
    for shape, cut, axes in [
        ((80, 200), (slice(3, 77), slice(None, None, 2)), (0, 1)),
        ((80, 200), (slice(None, None, -1), slice(5, 190)), (1, 0)),
        ((9, 40, 30), (slice(1, 8), slice(None), slice(0, 29)), (2, 0, 1)),
    ]:
        room = rng.integers(0, 250, shape).astype(dtype)
        expected = room.copy()
        target, wanted = room[cut].transpose(axes), expected[cut].transpose(axes)
        for source in (
            rng.integers(0, 250, target.shape).astype(dtype),
            rng.integers(0, 250, target.shape[::-1]).astype(dtype).T,
            rng.integers(0, 250, target.shape[-1:]).astype(dtype),
            np.asarray(7, dtype),
        ):
            copies.assign(target, source)
            wanted[...] = source
            assert np.array_equal(room, expected)


def test_assignment_of_overlapping_memory() -> None:
    a = np.arange(90.0 * 90).reshape(90, 90)
    expected = a.T.copy()
    copies.assign(a, a.T)
    assert np.array_equal(a, expected)


def test_what_does_not_broadcast_is_refused() -> None:
    a = np.zeros((70, 80))
    for shape in [(79,), (70, 1, 80), (69, 80), (0,), (2, 70, 80)]:
        with pytest.raises(ValueError, match="broadcast"):
            copies.assign(a, np.ones(shape))
    assert not a.any()
    copies.assign(a, np.ones((70, 1)))
    assert a.all()


def test_large_outputs_are_written_past_the_caches() -> None:
    for dtype, n in (("f4", 2560), ("f8", 1792), ("u2", 3584)):
        a = np.arange(n * n).reshape(n, n).astype(dtype)
        assert a.nbytes >= 24 << 20
        assert np.array_equal(copies.copied(a.T), a.T)
        assert np.array_equal(copies.copied(a[:, 1:]), a[:, 1:])
        assert np.array_equal(copies.copied(a), a)


NAMES = ("f4", "f8", "f2", "bfloat16", "i1", "i2", "i4", "i8", "u1", "?")


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", NAMES)
def test_casts_have_the_bits_of_numpy(source: str, target: str) -> None:
    a, b = _dtype(source), _dtype(target)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((71, 143)) * 30
    if "u" in (a.kind, b.kind):
        x = abs(x)
    if a.kind in "fV" and b.kind in "fV":
        x *= 10.0 ** rng.integers(-6, 4, x.shape)
        x[3, :5] = np.inf, -np.inf, np.nan, -0.0, 1e300
    if a.kind in "iu" and b.kind in "fV":
        x = rng.integers(0, np.iinfo(a).max, x.shape)
    with np.errstate(all="ignore"):
        x = x.astype(a)
        for view in (x, x.T, x[:, ::2]):
            expected, out = view.astype(b), copies.converted(view, b)
            assert out.dtype == b and out.shape == view.shape
            nan = out != out
            assert np.array_equal(nan, expected != expected)
            assert _bits(np.where(nan, b.type(0), out)) == _bits(np.where(nan, b.type(0), expected))


def _spread(x: np.ndarray) -> np.ndarray:
    """Of the whole range of 64 bits: key and place do not fit into one word."""
    x = x.astype("u8") * np.uint64(0x9E3779B97F4A7C15)
    x[:2] = 0, 0xFFFFFFFFFFFFFFFF
    return x.view("i8")


def _calls() -> dict[str, tuple[Any, tuple, dict]]:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((61, 37, 23)).astype("f4")
    calls: dict[str, tuple[Any, tuple, dict]] = {}
    for dim in (0, 1, 2):
        n = x.shape[dim]
        index = rng.integers(0, n, x.shape)
        short = index[:50, :30, :20]
        few = rng.integers(0, n // 3, x.shape)
        for name, k in (("", index), (" short", short), (" few", few)):
            calls[f"gather {dim}{name}"] = (
                lambda x, k, d=dim: pf.gather(x, d, k), (x, k), {}
            )  # fmt: skip
            calls[f"scatter_sum {dim}{name}"] = (
                scatter_sum, (x, k), {"dim": dim, "shape": x.shape}
            )  # fmt: skip
            for accumulate in (False, True):
                options = {"dim": dim, "accumulate": accumulate}
                calls[f"scatter {accumulate} {dim}{name}"] = (scatter_elements, (x, k, x), options)
                calls[f"scatter number {accumulate} {dim}{name}"] = (
                    scatter_elements, (x, k, np.asarray(1.5, "f4")), options
                )  # fmt: skip
        rows = rng.integers(-n, n, n + 9)
        calls[f"index_select {dim}"] = (
            lambda x, k, d=dim, n=n: pf.index_select(x, d, k % n), (x, rows), {}
        )  # fmt: skip
        picked = np.take(x, rows, dim)
        calls[f"add_rows {dim}"] = (add_rows, (picked, rows), {"dim": dim, "size": n})
        calls[f"index_add {dim}"] = (
            lambda x, k, y, d=dim, n=n: pf.index_add(x, d, k % n, y), (x, rows, picked), {}
        )  # fmt: skip
    line, places = x.reshape(-1)[:40009], rng.integers(0, 40009, 50021)
    calls["line"] = (lambda x, k: pf.gather(x, 0, k), (line, places), {})
    calls["line sum"] = (
        scatter_sum, (np.resize(line, 50021), places), {"dim": 0, "shape": (40009,)}
    )  # fmt: skip
    calls["line scatter"] = (
        scatter_elements, (line, places, np.resize(line, 50021)), {"dim": 0, "accumulate": False}
    )  # fmt: skip
    # Tables of 16 MB, of which each thread writes a part.
    large, places = np.zeros(5 << 20, "f4"), rng.integers(0, 5 << 20, 30011)
    places[10000:20000] = places[:10000]
    values = rng.standard_normal(30011).astype("f4")
    calls["large sum"] = (scatter_sum, (values, places), {"dim": 0, "shape": large.shape})
    calls["large scatter"] = (
        scatter_elements, (large, places, values), {"dim": 0, "accumulate": False}
    )  # fmt: skip
    pairs = (large.reshape(-1, 2), places.reshape(-1, 1) // 2, values.reshape(-1, 1))
    calls["large scatter of columns"] = (
        scatter_elements, pairs, {"dim": 0, "accumulate": True}
    )  # fmt: skip
    wide = rng.standard_normal((300, 1001)).astype("f4")  # columns in several strips
    index = rng.integers(0, 300, (290, 1001))
    calls["gather wide"] = (lambda x, k: pf.gather(x, 0, k), (wide, index), {})
    calls["scatter_sum wide"] = (scatter_sum, (wide, index), {"dim": 0, "shape": wide.shape})
    calls["scatter wide"] = (
        scatter_elements, (wide, index, wide[::-1]), {"dim": 0, "accumulate": False}
    )  # fmt: skip
    joint = np.stack([rng.integers(-61, 61, 9001), rng.integers(-37, 37, 9001)])
    calls["x[i, j]"] = (lambda x, i: x[i[0], i[1]], (pf.tensor(x), joint), {})
    picked = x[joint[0], joint[1]]
    calls["x[i, j] sum"] = (advanced_sum, (picked, joint), {"dims": (0, 1), "shape": x.shape})
    for dtype in ("f8", "i4", "i8"):
        y = (x * 100).astype(dtype)
        calls[f"scatter {dtype}"] = (
            scatter_elements, (y, rng.integers(0, 37, x.shape), y), {"dim": 1, "accumulate": True}
        )  # fmt: skip
    mask = x > 0.3
    calls["mask"] = (lambda x, m: x[m], (pf.tensor(x), pf.tensor(mask)), {})
    calls["mask of rows"] = (lambda x, m: x[m], (pf.tensor(x), pf.tensor(mask[:, :, 0])), {})
    calls["nonzero"] = (lambda m: pf.argwhere(m), (mask,), {})
    calls["sort"] = (lambda x: pf.sort(x, 1), (x,), {})
    calls["sort long"] = (lambda x: pf.sort(x), (np.resize(x, 1 << 17).round(1),), {})
    whole = rng.integers(0, 1 << 40, 1 << 17)
    calls["sort long integers"] = (lambda x: pf.sort(x), (whole,), {})
    calls["sort short integers"] = (lambda x: pf.sort(x, -1, True), (whole % 1000,), {})
    calls["sort all integers"] = (lambda x: pf.sort(x, -1), (_spread(whole),), {})
    calls["argsort"] = (lambda x: pf.argsort(x, -1, True), (x.round(1),), {})
    calls["topk"] = (lambda x: pf.topk(x, 5, 0), (x.round(1),), {})
    calls["median"] = (lambda x: pf.median(x, 2), (x.round(1),), {})
    calls["one_hot"] = (lambda k: pf.nn.functional.one_hot(k, 40), (rows % 37,), {})
    return calls


CALLS = _calls()


def _results(name: str) -> list[np.ndarray]:
    function, arrays, params = CALLS[name]
    out = function(*arrays, **params)
    out = out if isinstance(out, tuple) else (out,)
    return [np.asarray(getattr(o, "array", o)) for o in out]


def _portable(name: str, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    with monkeypatch.context() as m, pf.kernels("portable"):
        for module in (copies, segments):
            m.setattr(module, "LARGE", 1 << 60)
        return _results(name)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_indexing_and_sorting_as_the_portable_forward(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for a, b in zip(_results(name), _portable(name, monkeypatch), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if "sum" in name or "add" in name or "True" in name:  # another order of additions
            assert np.allclose(a, b, rtol=1e-5, atol=1e-4)
        else:
            assert np.array_equal(a, b)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    before = native.num_threads()
    try:
        native.set_num_threads(1)
        one = _results(name)
        for threads in (2, 5):
            native.set_num_threads(threads)
            for a, b in zip(one, _results(name), strict=True):
                assert _bits(a) == _bits(b)
    finally:
        native.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 257, 16383, 16385, 70001])
def test_sorting_is_stable_with_nan_last(n: int, dtype: str) -> None:
    rng = np.random.default_rng(n)
    x = rng.standard_normal((3, n)) * 10.0 ** rng.integers(-3, 9, (3, n))
    if dtype[0] == "f":
        x[:, :: n // 7 + 1] = 0
        x[:, 1 :: n // 5 + 1] = -0.0
        x[1, 2 :: n // 3 + 1] = np.nan
        x[2, 3 :: n // 9 + 1] = np.inf
    else:
        x[0] = x[0].round(-8)
    x = x.astype(dtype)
    for descending in (False, True):
        expected = np.argsort(x, -1, kind="stable")
        if descending:
            expected = n - 1 - np.argsort(x[:, ::-1], -1, kind="stable")[:, ::-1]
        values, indices = pf.sort(pf.tensor(x), -1, descending)
        assert np.array_equal(indices.numpy(), expected)
        assert _bits(values.numpy()) == _bits(np.take_along_axis(x, expected, -1))
        for k in {1, min(5, n), min(50, n), n}:
            _, indices = pf.topk(pf.tensor(x), k, -1, descending)
            assert np.array_equal(indices.numpy(), expected[:, :k])
    for k in {1, n // 2 + 1, n}:
        _, indices = pf.kthvalue(pf.tensor(x), k)
        assert np.array_equal(indices.numpy(), np.argsort(x, -1, kind="stable")[:, k - 1])


@pytest.mark.parametrize("dtype", ITEMS)
@pytest.mark.parametrize("count", [2, 3, 7, 8, 40])
def test_joining_parts_of_any_layout(count: int, dtype: str) -> None:
    rng = np.random.default_rng(count)
    for dim in (0, 1, 2):
        shapes = [[11, 30, 17] for _ in range(count)]
        for shape in shapes:
            shape[dim] = int(rng.integers(0, 40))
        parts = [rng.integers(0, 250, shape).astype(dtype) for shape in shapes]
        parts[0] = parts[0].copy(order="F")
        parts[-1] = np.repeat(parts[-1], 2, 1)[:, ::2]
        expected = np.concatenate(parts, dim)
        out = native.empty(expected.shape, expected.dtype)
        native.module.join(out, parts, dim, out.itemsize)
        assert np.array_equal(out, expected)
    parts = [rng.integers(0, 250, (9, 70)).astype(dtype) for _ in range(count)]
    parts[1] = parts[1].copy(order="F")
    for dim in (0, 1, 2):
        out = native.empty((*parts[0].shape[:dim], count, *parts[0].shape[dim:]), parts[0].dtype)
        native.module.join(out, parts, dim, out.itemsize)
        assert np.array_equal(out, np.stack(parts, dim))


def test_copy_in_place() -> None:
    x, y = pf.zeros(100, 80), pf.arange(8000.0).reshape(100, 80)
    version = x._cell[0]
    assert x.copy_(y) is x
    assert x._cell[0] > version
    assert np.array_equal(x.numpy(), y.numpy())
    assert np.array_equal(x.copy_(y.double() * 2).numpy(), y.numpy() * 2)
    assert np.array_equal(x.copy_(y[3]).numpy(), np.broadcast_to(y.numpy()[3], (100, 80)))
    with pytest.raises(pf.errors.ShapeError, match="same place"), pf.no_grad():
        pf.zeros(1, 80).expand(100, 80).copy_(y)
    a = pf.ones(100, 80, requires_grad=True)
    z = a * 2
    z.copy_(y)
    z.sum().backward()
    assert np.array_equal(a.grad.numpy(), np.zeros((100, 80)))
    z = pf.zeros(100, 80)
    a.grad = None
    z.copy_(a)
    z.sum().backward()
    assert np.array_equal(a.grad.numpy(), np.ones((100, 80)))
    with pytest.raises(pf.errors.AutogradError, match="leaf"):
        a.copy_(y)


def test_views_add_their_gradients_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    unindex = basic_indexing.unindex
    for module in (basic_indexing, splitting):
        monkeypatch.setattr(module, "unindex", lambda *a: made.append(a) or unindex(*a))
    x = pf.tensor(np.arange(60.0).reshape(5, 4, 3), requires_grad=True)
    parts = [x[i] for i in range(5)] + [x[1:3, :, 0], x[-1, 2], x[..., None, 2], x[0, 0, 0]]
    parts += [x.narrow(1, 1, 3), x.select(-1, 1), x.select(0, -2)]
    expected = np.zeros((5, 4, 3))
    total = 0
    for k, part in enumerate(parts):
        total = total + (part * (k + 1)).sum()
    for k in range(5):
        expected[k] += k + 1
    expected[1:3, :, 0] += 6
    expected[-1, 2] += 7
    expected[..., 2] += 8
    expected[0, 0, 0] += 9
    expected[:, 1:] += 10
    expected[:, :, 1] += 11
    expected[-2] += 12
    total.backward(retain_graph=True)
    assert np.array_equal(x.grad.numpy(), expected)
    assert len(made) == 1  # the first makes the gradient of the whole
    (g,) = pf.autograd.grad(total, x, create_graph=True)
    assert np.array_equal(g.numpy(), expected)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_parts_write_one_gradient(dim: int) -> None:
    rng = np.random.default_rng(4)
    x = pf.tensor(rng.standard_normal((12, 30, 20)), requires_grad=True)
    w = rng.standard_normal((12, 30, 20))
    for parts in (pf.split(x, 5, dim), pf.chunk(x, 4, dim), pf.unbind(x, dim)):
        weights = (
            pf.split(pf.tensor(w), [p.shape[dim] for p in parts], dim)
            if parts[0].ndim == 3
            else pf.unbind(pf.tensor(w), dim)
        )
        x.grad = None
        pf.autograd.backward([p * v for p, v in zip(parts, weights, strict=True)],
                             [pf.ones_like(p) for p in parts])  # fmt: skip
        assert np.array_equal(x.grad.numpy(), w)


def test_unused_parts_have_gradient_zero_and_parts_can_be_written_to() -> None:
    x = pf.ones(6, 4, requires_grad=True)
    y = x * 1
    a, b, _ = y.split(2)
    b.mul_(3)
    (b * b).sum().backward(retain_graph=True)
    expected = np.zeros((6, 4), "f4")
    expected[2:4] = 18
    assert np.array_equal(x.grad.numpy(), expected)
    x.grad = None
    (y.sum() + a.sum()).backward()
    expected[...] = 1
    expected[:2], expected[2:4] = 2, 3
    assert np.array_equal(x.grad.numpy(), expected)


def test_second_derivatives_go_through_parts() -> None:
    x = pf.tensor(np.arange(1.0, 7), requires_grad=True)
    a, b = x.chunk(2)
    (g,) = pf.autograd.grad((a * a * b).sum(), x, create_graph=True)
    (h,) = pf.autograd.grad(g.sum(), x)
    a, b = np.arange(1.0, 4), np.arange(4.0, 7)
    assert np.allclose(h.numpy(), np.concatenate([2 * b + 2 * a, 2 * a]))


_PROGRAM = """
import hashlib
from tests.native.test_movement import ITEMS, NAMES, CALLS, _bits, _dtype, _results, _views, copies
import numpy as np
digest = hashlib.sha256()
for dtype in ITEMS:
    for _, view in _views(dtype):
        digest.update(_bits(copies.copied(view)))
x = np.random.default_rng(0).standard_normal(10007) * 100
for name in NAMES:
    if name not in ("u1", "?"):
        digest.update(_bits(copies.converted(x, _dtype(name))))
for name in sorted(CALLS):
    for result in _results(name):
        digest.update(_bits(result))
print(digest.hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    found = set()
    for isa in native.module.supported_isas():
        environment = {**os.environ, "PYFRAME_ISA": isa}
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
