"""Bad input: every mistake is a documented error that names the op and, where known, the fix.

Each row runs with pyframe and, unless it says otherwise, with PyTorch: the error is also an
instance of a built-in that PyTorch raises, so that the ``except`` of a ported program still works.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe.errors import (
    ArgumentTypeError,
    AutogradError,
    DeviceError,
    DtypeError,
    PyframeError,
    ShapeError,
)
from tests.core.bad_calls import TABLE, Row

nan = float("nan")
BUILTIN = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AssertionError,
    AttributeError,
)


def run(row: Row, lib: Any) -> Any:
    names = {
        "lib": lib,
        "F": lib.nn.functional,
        "D": lib.utils.data,
        "np": np,
        "nan": nan,
        "t": lib.tensor,
        "ones": lib.ones,
        "zeros": lib.zeros,
        "leaf": lambda *shape: lib.ones(*shape, requires_grad=True),
    }
    return eval(row.call, names)


@pytest.mark.filterwarnings("ignore:.*target.*size:UserWarning")  # of losses, before the error
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.call)
def test_bad_call(row: Row) -> None:
    with pytest.raises(row.error, match=re.compile(row.pattern, re.DOTALL)) as caught:
        run(row, pf)
    assert isinstance(caught.value, PyframeError)
    assert ": " in str(caught.value), "the message begins with the op's name"
    if row.parity:
        with pytest.raises(BUILTIN) as theirs:
            run(row, torch)
        shared = [b for b in BUILTIN if isinstance(theirs.value, b) and isinstance(caught.value, b)]
        assert shared, f"{caught.value!r} where PyTorch raises {theirs.value!r}"


def test_the_table_is_long() -> None:
    assert len(TABLE) >= 200
    assert len({row.call for row in TABLE}) == len(TABLE)


# ---- what is no error

EMPTY = [
    "F.conv2d(zeros(0,3,8,8),ones(4,3,3,3))",
    "F.max_pool2d(zeros(0,1,4,4),2)",
    "F.linear(zeros(0,3),ones(4,3))",
    "F.softmax(zeros(0,3),dim=1)",
    "F.cross_entropy(zeros(0,3),zeros(0).long())",
    "F.cross_entropy(zeros(0,3),zeros(0).long(),reduction='sum')",
    "F.cross_entropy(ones(2,3),t([-100,-100]))",
    "F.mse_loss(zeros(0),zeros(0))",
    "F.binary_cross_entropy_with_logits(ones(2),t([nan,0.]))",
    "F.batch_norm(zeros(0,3),ones(3),ones(3))",
    "F.layer_norm(zeros(0,3),(3,))",
    "F.embedding(zeros(0).long(),ones(3,2))",
    "zeros(0).sum()",
    "zeros(0,3).mean(dim=0)",
    "zeros(0).mean()",
    "zeros(0,3)@ones(3,2)",
    "ones(2,0)@ones(0,3)",
    "lib.cat([zeros(0),ones(2)])",
    "zeros(0)[zeros(0).long()]",
    "lib.nn.LSTM(3,4)(zeros(5,0,3))[0]",
    "t([nan,1.]).max()",
    "lib.sqrt(-ones(1))",
    "ones(2)/0",
]


@pytest.mark.parametrize("call", EMPTY)
def test_empty_batches_and_nan_work_as_in_pytorch(call: str) -> None:
    ours, theirs = run(Row(call, Exception, ""), pf), run(Row(call, Exception, ""), torch)
    assert tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(np.asarray(ours.detach()), theirs.detach().numpy(), rtol=1e-5)


def test_nan_labels_reach_the_loss() -> None:
    x = pf.zeros(3, requires_grad=True)
    loss = pf.nn.functional.mse_loss(x, pf.tensor([0.0, nan, 1.0]))
    loss.backward()
    assert np.isnan(loss.item())
    assert np.isnan(x.grad.numpy()).tolist() == [False, True, False]


# ---- devices (PyTorch has no virtual ones)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: a + b,
        lambda a, b: pf.cat([a, b]),
        lambda a, b: pf.nn.functional.linear(a, b),
        lambda a, b: pf.nn.functional.mse_loss(a, b),
        lambda a, b: pf.nn.functional.conv2d(a.reshape(1, 1, 2, 2), b.reshape(1, 1, 2, 2)),
        lambda a, b: pf.nn.functional.embedding(a.long(), b),
        lambda a, b: pf.nn.functional.cross_entropy(a, b),
        lambda a, b: a.__setitem__(0, b[0]),
        lambda a, b: (a.requires_grad_() * 1).backward(b),
    ],
)
def test_mixed_devices(call: Callable) -> None:
    with pytest.raises(DeviceError, match=r"^\w+: .*device.*\.to\("):
        call(pf.ones(2, 2, device="cpu:0"), pf.ones(2, 2, device="cpu:1"))


def test_an_assigned_gradient_that_does_not_fit() -> None:
    x = pf.ones(2, requires_grad=True)
    for bad, error, word in (
        (3, ArgumentTypeError, "must be a Tensor or None, not int"),
        (pf.ones(3), ShapeError, "shape"),
        (pf.ones(1, 2), ShapeError, "shape"),
        (pf.ones(2).double(), DtypeError, "dtype"),
        (pf.ones(2, device="cpu:1"), DeviceError, "device"),
        (x, AutogradError, "its own gradient"),
    ):
        with pytest.raises(error, match=f"^grad: .*{word}"):
            x.grad = bad
        assert x.grad is None
    x.grad = pf.ones(2)
    x.grad.data = pf.ones(3)
    with pytest.raises(AutogradError, match=r"backward: what was assigned to tensor\.grad"):
        (x * 2).sum().backward()


@pytest.mark.filterwarnings("ignore:.*target.*size:UserWarning")  # of losses, before the error
def test_messages_of_one_form() -> None:
    """What all of the table shares: no sentence ends in two full stops."""
    for row in TABLE[::7]:
        with pytest.raises(PyframeError) as caught:
            run(row, pf)
        text = str(caught.value)
        assert not re.search(r"\.\.(?!\.)(?<!\.\.\.)", text), text
