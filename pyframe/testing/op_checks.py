"""The generic checks of an op record (L6). No op's name occurs here: a special case is a field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from .. import dtypes
from ..autograd.gradcheck import STEP, gradcheck, gradgradcheck
from ..backend import native
from ..errors import PyframeError, ShapeError
from ..op import choice
from ..op.record import Op, Sample
from ..op.samples import Maker
from ..tensor.tensor import Tensor, make
from .accuracy import condition, epsilon, tolerance, widen

GUARD = 64  # bytes around an output that a kernel must leave alone


class Case:
    """One sample of one op in one dtype."""

    def __init__(self, op: Op, number: int, sample: Sample, dtype: np.dtype) -> None:
        self.op, self.number, self.sample, self.dtype = op, number, sample, dtype

    @property
    def id(self) -> str:
        """A short name, stable over runs: ``sum-3-float32``."""
        return f"{self.op.name}-{self.number}-{self.dtype.name}"

    def __repr__(self) -> str:
        return f"{self.op.name}: {self.sample!r}"


def cases(op: Op, dtype: Any, seed: int = 1) -> Iterator[Case]:
    """The op's samples in ``dtype``; another ``seed`` has other values."""
    dtype = dtypes.as_dtype(dtype)
    assert op.samples is not None, f"op {op.name} has no samples"
    for number, sample in enumerate(op.samples(Maker(dtype, seed=seed))):
        yield Case(op, number, sample, dtype)


def call(op: Op, arrays: tuple, params: dict) -> list:
    """The op's outputs as a list."""
    result = op.function(*arrays, **params)
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _host(value: Any) -> np.ndarray:
    return value.get() if hasattr(value, "get") else value


def check_forward(case: Case, move: Any = lambda a: a) -> None:
    """The op on raw arrays against the float64 reference, shape and dtype included.

    Args:
        case: what to run.
        move: brings a NumPy array to the array module under test.
    """
    op, sample = case.op, case.sample
    with _inputs_kept(case):
        outputs = [_host(o) for o in call(op, mapped(sample.arrays, move), sample.params)]
    compare(case, outputs, "portable")


@contextmanager
def _inputs_kept(case: Case) -> Iterator[None]:
    arrays = _flat(case.sample.arrays)
    before = [np.array(a, copy=True) for a in arrays]
    yield
    for a, b in zip(arrays, before, strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind in "fV"), f"{case}: an input was changed"


@lru_cache(maxsize=4)  # the kernels of a case are checked one after the other
def _expected(case: Case, eps: float) -> tuple[list, list[np.ndarray]]:
    """The float64 reference's outputs, and how far they move with the inputs."""
    arrays = tuple(widen(a) for a in case.sample.arrays)
    assert case.op.reference is not None, f"op {case.op.name} has no reference"
    exact = case.op.reference(*arrays, **case.sample.params)
    exact = list(exact) if isinstance(exact, (tuple, list)) else [exact]
    return exact, condition(case.op.reference, arrays, case.sample.params, eps)


def errors_of(case: Case, outputs: list, rounds: bool = False) -> list[np.ndarray]:
    """|output − reference| per output, in units of the tolerance; ``rounds``: as a kernel's."""
    eps = epsilon(case.dtype if rounds else dtypes.compute_dtype(case.dtype))
    exact, moved = _expected(case, eps)
    assert len(exact) == len(outputs), f"{case}: {len(outputs)} outputs, reference has {len(exact)}"
    found = []
    for out, e, m in zip(outputs, exact, moved, strict=True):
        e = np.asarray(e)
        assert out.shape == e.shape, f"{case}: shape {out.shape}, reference {e.shape}"
        if not dtypes.is_floating(out.dtype):
            found.append(np.where(out == e, 0.0, np.inf))
            continue
        actual = out.astype(np.float64)
        with np.errstate(all="ignore"):
            same = (actual == e) | (np.isnan(actual) & np.isnan(e))
            overflow = np.abs(e) > float(_largest(out.dtype))
            same |= overflow & np.isinf(actual)
            error = np.abs(actual - e) / tolerance(e, m, case.dtype, out.dtype)
        found.append(np.where(same, 0.0, np.where(np.isnan(error), np.inf, error)))
    return found


def _largest(dtype: np.dtype) -> float:
    return {dtypes.float16: 65504.0, dtypes.bfloat16: 3.38e38, dtypes.float32: 3.4e38}.get(
        dtype, 1e308
    )


def compare(case: Case, outputs: list, what: str) -> None:
    """Fails, showing the worst element, if an output is farther from the reference than allowed."""
    for k, error in enumerate(errors_of(case, outputs)):
        if error.size and error.max() > 1:
            at = np.unravel_index(int(error.argmax()), error.shape)
            raise AssertionError(
                f"{case}: {what}: output {k} at {tuple(map(int, at))} is {outputs[k][at]!r}, "
                f"{error.max():.3g} times the tolerance from the float64 reference"
            )


def check_kernel(case: Case, name: str, move: Any = lambda a: a) -> bool:
    """A kernel against float64: no worse than twice the portable forward, or within tolerance.

    Returns:
        False if the kernel does not support the call (so nothing was checked).
    """
    op, sample = case.op, case.sample
    arrays = mapped(sample.arrays, move)
    try:
        with choice.kernels(name), guarded_outputs(), _inputs_kept(case):
            outputs = [_host(o) for o in call(op, arrays, sample.params)]
    except PyframeError as error:
        if "cannot run" in str(error):
            return False
        raise
    with choice.kernels(choice.PORTABLE):  # on the host: another module would compile for minutes
        portable = [_host(o) for o in call(op, sample.arrays, sample.params)]
    rounds = any(k.rounds for kind in op.kernels.values() for k in kind if k.name == name)
    for k, (a, b) in enumerate(
        zip(errors_of(case, outputs, rounds), errors_of(case, portable, rounds), strict=True)
    ):
        limit = max(1.0, 2 * float(b.max(initial=0)))
        assert a.max(initial=0) <= limit, (
            f"{case}: kernel {name!r}: output {k} is {a.max():.3g} tolerances from the reference, "
            f"the portable forward {b.max():.3g}"
        )
        assert outputs[k].dtype == portable[k].dtype, f"{case}: kernel {name!r} changes the dtype"
    return True


@contextmanager
def guarded_outputs() -> Iterator[None]:
    """Arrays that kernels allocate on the CPU lie between guard regions, checked at the end.

    Raises:
        AssertionError: if a kernel wrote outside an output.
    """
    original = native.empty
    rooms: list[np.ndarray] = []

    def empty(shape: Any, dtype: Any) -> np.ndarray:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        inside = int(np.prod(shape)) * dtype.itemsize
        room = np.full(inside + 2 * GUARD, 0xA5, np.uint8)
        room[GUARD : GUARD + inside] = 0xFF  # NaN: an element that no kernel writes is noticed
        rooms.append(room)
        return room[GUARD : GUARD + inside].view(dtype).reshape(shape)

    native.empty = empty
    try:
        yield
    finally:
        native.empty = original
    for room in rooms:
        whole = (room[:GUARD] == 0xA5).all() and (room[-GUARD:] == 0xA5).all()
        assert whole, "a kernel wrote outside its output"


def check_layouts(case: Case) -> None:
    """Transposed, strided and offset inputs give what contiguous ones give."""
    expected = call(case.op, case.sample.arrays, case.sample.params)
    for layout in (_reversed_axes, _strided, _offset):
        arrays = mapped(case.sample.arrays, layout)
        try:
            outputs = call(case.op, arrays, case.sample.params)
        except ShapeError:
            if case.op.view != "always":
                raise
            continue  # not every layout can be viewed in every shape
        for o, e in zip(outputs, expected, strict=True):
            same = np.array_equal(o, e, equal_nan=o.dtype.kind in "fV")
            if not same:  # another order of summation may round differently
                compare(case, outputs, layout.__name__)


def _reversed_axes(a: np.ndarray) -> np.ndarray:
    return np.asfortranarray(a) if a.ndim > 1 else a


def _strided(a: np.ndarray) -> np.ndarray:
    if not a.ndim:
        return a
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _offset(a: np.ndarray) -> np.ndarray:
    room = np.zeros(a.size + 1, a.dtype)
    room[1:] = a.ravel()
    return room[1:].reshape(a.shape)


def differentiable(case: Case) -> list[int]:
    """Positions of the inputs whose gradients can be checked."""
    op = case.op
    if op.vjp is None:
        return []
    if op.complete is not None:
        op.complete()  # a pointwise op's rules are derived then, else at its first call
    named = op.vjp if isinstance(op.vjp, dict) else {i.name: 1 for i in op.inputs}
    return [
        k
        for k, (a, i) in enumerate(zip(case.sample.arrays, op.inputs, strict=False))
        if i.name in named
        and i.name not in op.nondiff
        and named[i.name] is not None
        and all(x.dtype == dtypes.float64 for x in _flat([a]))
        and len(_flat([a]))
    ]


def _as_tensors(case: Case) -> tuple[list[Tensor], Any]:
    """Leaves for the differentiable inputs, and the op as a function of them."""
    positions = differentiable(case)
    arrays = list(case.sample.arrays)
    leaves: list[Tensor] = []
    for k in positions:
        leaves += [make(a.copy()).requires_grad_() for a in _flat([arrays[k]])]

    def function(*values: Tensor) -> Any:
        rest = iter(values)
        args = []
        for k, a in enumerate(arrays):
            if k in positions:
                args.append([next(rest) for _ in a] if isinstance(a, list) else next(rest))
            else:
                args.append(mapped((a,), make)[0])
        return case.op.function(*args, **case.sample.params)

    return leaves, function


def check_gradient(case: Case) -> bool:
    """First derivatives against central differences. False if there is nothing to check."""
    leaves, function = _as_tensors(case)
    if not leaves:
        return False
    gradcheck(function, leaves, rtol=_relative(function, leaves))
    return True


def check_double_gradient(case: Case) -> bool:
    """Second derivatives against central differences of the first. False if nothing to check."""
    leaves, function = _as_tensors(case)
    if not leaves:
        return False
    gradgradcheck(function, leaves, directions=2, rtol=_relative(function, leaves))
    return True


def _relative(function: Any, leaves: list[Tensor]) -> float:
    """What a central difference can show: less where the op rounds its output to another dtype."""
    result = function(*leaves)
    outputs = result if isinstance(result, tuple) else (result,)
    eps = max(epsilon(o.dtype) for o in outputs)
    return max(1e-6, 16 * eps / STEP) if eps > epsilon(dtypes.float64) else 1e-6


def _flat(values: Any) -> list[np.ndarray]:
    out: list[np.ndarray] = []
    for v in values:
        if isinstance(v, (list, tuple)):
            out += v
        elif v is not None:
            out.append(v)
    return out


def mapped(values: tuple, function: Any) -> tuple:
    """``function`` of every array, also inside lists; ``None`` stays."""
    return tuple(
        None
        if v is None
        else [function(a) for a in v]
        if isinstance(v, (list, tuple))
        else function(v)
        for v in values
    )


def check_op(op: Any) -> int:
    """Runs every check on every sample of an op (a record, or a function with ``.op``).

    Returns:
        How many checks ran.

    Raises:
        AssertionError, AutogradError: on the first that fails.

    >>> import numpy as np, pyframe
    >>> from pyframe.op.samples import unary
    >>> cube = pyframe.pointwise(
    ...     "doc_cube", lambda x: x * x * x, reference=lambda x: x**3, samples=unary()
    ... )
    >>> check_op(cube) > 20
    True
    """
    op = getattr(op, "op", op)
    count = 0
    for dtype in op.dtypes:
        for case in cases(op, dtype):
            check_forward(case)
            check_layouts(case)
            count += 2
            for kernel in op.kernels.get("cpu", ()):
                count += check_kernel(case, kernel.name)
    for case in cases(op, dtypes.float64):
        count += check_gradient(case) + check_double_gradient(case)
    return count
