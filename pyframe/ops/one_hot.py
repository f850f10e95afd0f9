"""one_hot: classes as rows of zeros with a one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import backend_of
from ..dtypes import int64
from ..errors import DtypeError, ShapeError, fail
from ..op.native_kernel import native_kernel
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..tensor.register import register
from . import _cuda_gather as cuda
from .segments import native_put_elements, zeros


def _check(input: Any, *, num_classes: int) -> tuple:
    op = "one_hot"
    if input.dtype != int64:
        # The class that PyTorch raises here.
        fail(DtypeError, op, f"needs int64 classes, not {input.dtype}", "Use .long().")
    if backend_of(input).checks_values and input.size:
        if input.min() < 0:
            fail(ShapeError, op, "classes must not be negative", input=input)
        if 0 <= num_classes <= input.max():
            fail(
                ShapeError,
                op,
                f"class {int(input.max())} is out of range for num_classes={num_classes}",
                input=input,
            )
    if num_classes == -1:
        if not input.size:
            fail(ShapeError, op, "cannot infer the number of classes of an empty tensor")
        num_classes = int(input.max()) + 1
    elif num_classes < 1 and not (num_classes == 0 and not input.size):
        fail(ShapeError, op, "num_classes must be positive", num_classes=num_classes)
    cuda.note_portable(cuda.ONE_HOT, input, 0, int(num_classes))
    return (int(num_classes),)


def _forward(xp: Any, input: Any, *, num_classes: int = -1) -> Any:
    return (input[..., None] == xp.arange(num_classes)).astype(int64)


def _native(input: Any, *, num_classes: int = -1) -> Any:
    out = zeros((*input.shape, num_classes), int64)
    if input.ndim:
        one = np.ones((), np.int64)
        native_put_elements(out, input[..., None], one, input.ndim, False)
    else:
        out[input] = 1
    return out


def _samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make.ints(4, high=3), num_classes=5)
    yield Sample(make.ints(2, 3, high=3), num_classes=3)
    yield Sample(make.ints(high=3), num_classes=3)


def _errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "out of range", np.array([0, 3]), num_classes=3)
    yield Failing(ShapeError, "negative", np.array([0, -3]))
    yield Failing(DtypeError, "needs int64", make(3))


one_hot = register(
    Op(
        "one_hot",
        _forward,
        vjp=None,
        check=_check,
        check_values=True,
        half="native",
        kernels={"cpu": [native_kernel(_native, source="csrc/scatter.cpp")]},
        kernels_from=257,
        reference=lambda input, num_classes: np.eye(num_classes)[input],
        samples=_samples,
        errors=_errors,
        cost=lambda input, num_classes: Cost(0, 8 * input.size * (num_classes + 1)),
        export=("functional",),
        doc="""1 at the class of each element, else 0, along a new last dimension.

    Args:
        input: classes, int64 [...].
        num_classes: number of classes; -1: the largest class + 1 (looks at the values).

    Raises:
        ShapeError: for a class out of range (PyTorch's RuntimeError); at once on the CPU.
        DtypeError: if the classes are not int64.

    >>> import pyframe
    >>> pyframe.nn.functional.one_hot(pyframe.tensor([1, 0]), 2)
    tensor([[0, 1],
            [1, 0]])
    """,
    )
)
