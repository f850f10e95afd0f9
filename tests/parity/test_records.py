"""Ops that torch has under the same name, on the records' own samples: values, dtype, gradients.

Derived from the records: a new op with a name of torch's is compared without a line here. What
torch writes otherwise is mapped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe import testing
from pyframe.op.registry import ops
from pyframe.testing.accuracy import condition, epsilon, tolerance, widen

# Ops whose function in torch has another name or another form.
CALLS: dict[str, Any] = {
    "cumsum": lambda x, dim, reverse=False, **rest: _scan(torch.cumsum, x, dim, reverse, **rest),
    "cumprod": lambda x, dim, reverse=False, **rest: _scan(torch.cumprod, x, dim, reverse, **rest),
    **{
        name: lambda x, dim=None, keepdim=False, name=name, **rest: _reduce(
            name, x, dim, keepdim, **rest
        )
        for name in ("sum", "mean", "prod")
    },
}


def _scan(function: Any, x: torch.Tensor, dim: int, reverse: bool, **rest: Any) -> torch.Tensor:
    return function(x.flip(dim), dim, **rest).flip(dim) if reverse else function(x, dim, **rest)


def _reduce(name: str, x: torch.Tensor, dim: Any, keepdim: bool, **rest: Any) -> torch.Tensor:
    """torch takes keepdim only together with dim."""
    if dim is not None:
        return getattr(torch, name)(x, dim, keepdim, **rest)
    total = getattr(torch, name)(x, **rest)
    return total.reshape((1,) * x.ndim) if keepdim else total


def torch_function(name: str) -> Any:
    """torch's function of that name: in torch, nn.functional or a Tensor method."""
    if name in CALLS:
        return CALLS[name]
    for place in (torch, torch.nn.functional, torch.Tensor):
        found = getattr(place, name, None)
        if callable(found):
            return found
    return None


# What torch says about its own calls (degrees of freedom, 'same' padding) is not at issue here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

OWN = [op for op in ops.values() if op.module.startswith("pyframe.ops")]
COMPARED = [op for op in OWN if op.export and not op.random and torch_function(op.name)]


def _to_torch(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_to_torch(v) for v in value]
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.astype(np.float32)).bfloat16()
    return torch.from_numpy(value.copy())


def _parameters(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters as torch spells them: dtypes and memory formats are its own objects."""

    def spelled(name: str, value: Any) -> Any:
        if name == "dtype":
            return getattr(torch, str(np.dtype(value)))
        return getattr(torch, value.name) if isinstance(value, pf.memory_format) else value

    return {k: spelled(k, v) for k, v in params.items() if not (k == "dtype" and v is None)}


def _call_torch(op: Any, arrays: list, params: dict[str, Any]) -> list:
    function = torch_function(op.name)
    arrays = list(arrays)
    while arrays and arrays[-1] is None:
        arrays.pop()
    defaults = {p.name: p.default for p in op.params}
    given = {k: v for k, v in _parameters(params).items() if k not in defaults or v != defaults[k]}
    try:
        result = function(*arrays, **given)
    except TypeError:
        # Parameters that torch takes by position only (shapes of views, say).
        result = function(*arrays, *given.values())
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _cases(dtype: str) -> list:
    return [
        pytest.param(case, id=case.id)
        for op in COMPARED
        if pf.dtypes.as_dtype(dtype) in op.dtypes
        for case in testing.cases(op, dtype)
    ]


def _numpy(value: torch.Tensor) -> np.ndarray:
    if value.dtype == torch.bfloat16:
        return value.detach().float().numpy()
    return value.detach().numpy()


@pytest.mark.parametrize(
    "case", [c for d in ("float32", "float64", "int64", "bool", "bfloat16") for c in _cases(d)]
)
def test_values_and_dtypes(case: testing.Case) -> None:
    op, sample = case.op, case.sample
    tensors = [pf.testing.op_checks.mapped((a,), pf.from_numpy)[0] for a in sample.arrays]
    ours = op.function(*tensors, **sample.params)
    ours = list(ours) if isinstance(ours, (tuple, list)) else [ours]
    try:
        theirs = _call_torch(op, [_to_torch(a) for a in sample.arrays], sample.params)
    except NotImplementedError as error:
        pytest.skip(f"torch has no such kernel: {error}")
    exact = tuple(widen(a) for a in sample.arrays)
    moved = condition(
        op.reference, exact, sample.params, epsilon(pf.dtypes.compute_dtype(case.dtype))
    )
    for k, (o, t) in enumerate(zip(ours, theirs, strict=False)):
        assert str(t.dtype).removeprefix("torch.") == o.dtype.name, f"output {k}"
        mine, other = o.numpy(force=True), _numpy(t)
        assert mine.shape == other.shape
        if not pf.dtypes.is_floating(o.dtype):
            np.testing.assert_array_equal(mine, other)
            continue
        if pf.dtypes.is_half(o.dtype):
            continue  # torch rounds in between; the generic tests compare with float64
        mine, other = mine.astype(np.float64), other.astype(np.float64)
        allowed = 2 * tolerance(other, moved[k], case.dtype, o.dtype)
        wrong = ~((np.abs(mine - other) <= allowed) | (mine == other))
        assert not (wrong & ~(np.isnan(mine) & np.isnan(other))).any(), (mine, other)


def _gradients(fw: Any, function: Any, arrays: list, make: Any, cotangents: list) -> list:
    """First gradients, then those of Σ g·u for a fixed u (second derivatives)."""
    leaves = [make(a).requires_grad_() for a in arrays]
    outputs = [o for o in function(leaves) if o.requires_grad]
    if not outputs:
        return []
    seeds = [make(c) for c, _ in zip(cotangents, outputs, strict=False)]
    first = fw.autograd.grad(outputs, leaves, seeds, create_graph=True, allow_unused=True)
    live = [g for g in first if g is not None and g.requires_grad]
    second: Any = []
    if live:
        weights = [
            make(np.cos(np.arange(g.numel(), dtype=np.float64)).reshape(g.shape)) for g in live
        ]
        second = fw.autograd.grad(live, leaves, weights, allow_unused=True)
    return [None if g is None else np.array(g.detach().numpy()) for g in [*first, *second]]


@pytest.mark.parametrize(
    "case", [c for c in _cases("float64") if testing.op_checks.differentiable(c.values[0])]
)
def test_first_and_second_gradients(case: testing.Case) -> None:
    op, sample = case.op, case.sample
    positions = testing.op_checks.differentiable(case)
    if any(isinstance(sample.arrays[k], list) for k in positions):
        flat = list(sample.arrays[positions[0]])

        def args(leaves: list, convert: Any) -> list:
            return [leaves]

    else:
        flat = [sample.arrays[k] for k in positions]

        def args(leaves: list, convert: Any) -> list:
            rest = iter(leaves)
            return [
                next(rest) if k in positions else convert(a) for k, a in enumerate(sample.arrays)
            ]

    random = np.random.default_rng(5)

    def mine(leaves: list) -> list:
        result = op.function(*args(leaves, _to_ours), **sample.params)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    def other(leaves: list) -> list:
        return _call_torch(op, args(leaves, _to_torch), sample.params)

    shapes = [
        o.shape for o in mine([pf.from_numpy(a.copy()) for a in flat]) if o.is_floating_point()
    ]
    cotangents = [random.standard_normal(s) for s in shapes]
    ours = _gradients(pf, mine, flat, lambda a: pf.from_numpy(np.array(a)), cotangents)
    theirs = _gradients(torch, other, flat, lambda a: torch.from_numpy(np.array(a)), cotangents)
    count = min(len(ours), len(theirs))
    for k, (o, t) in enumerate(zip(ours[:count], theirs[:count], strict=True)):
        o, t = (np.zeros(()) if v is None else v for v in (o, t))
        scale = max(1.0, float(np.abs(t).max(initial=0)))
        np.testing.assert_allclose(o, t, rtol=1e-9, atol=1e-10 * scale, err_msg=f"gradient {k}")


def _to_ours(value: Any) -> Any:
    return pf.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def test_most_public_ops_are_compared() -> None:
    public = [op for op in OWN if op.export]
    assert len(COMPARED) >= 0.8 * len(public), sorted(
        op.name for op in public if op not in COMPARED
    )
