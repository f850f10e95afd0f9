"""Pointwise ops: one scalar expression gives the op, its gradient and its higher gradients (L3).

The expression is traced once. Its derivative is another pointwise op, made when it is first needed.
Small float arrays on the CPU take a short path that calls the NumPy ufunc or the compiled NumPy
evaluation directly; everything else goes through :func:`pyframe.tensor.dispatch.general`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import config, dtypes
from ..backend import backends
from ..codegen import define
from ..errors import ShapeError, fail
from ..expr import Call, ScalarFunction, compile_numpy, ufunc_of, vjp
from ..op.choice import LARGE
from ..op.record import Cost, Input, Op, Param
from . import dispatch, pointwise_cuda, pointwise_device
from .lazy import lazy_function
from .pointwise_native import kernel_of, machine, run_on
from .pointwise_template import Template, check_names, shared_globals, takes_floats
from .template_plan import Rule
from .tensor import make, tensor_types


def build(function: ScalarFunction, **fields: Any) -> Op:
    """The record of a pointwise op, with its public function; not registered.

    Deriving and compiling the function takes 0.5 to 2 ms, so the first call does it.
    """
    check_names(function)
    inputs = tuple(Input(name) for name in function.inputs)
    params = tuple(
        Param(n, function.defaults[n]) if n in function.defaults else Param(n)
        for n in function.scalars
    )
    fields.setdefault("promote", function.inputs)
    fields.setdefault("cost", _cost)
    fields.setdefault("kernels_from", LARGE + 1)
    fields["kernels"] = _with_generated(fields.get("kernels"), function)
    forward: Any = _forward_of(function)
    op = Op(
        function.name,
        forward=forward,
        vjp={} if _has_gradient(function) else None,
        inputs=inputs,
        params=params,
        expr=function,
        **fields,
    )
    forward.op = op
    op.function = lazy_function(op, _compile_into, spread=False)
    return op


def _with_generated(kernels: dict | None, function: ScalarFunction) -> dict:
    """``kernels`` and, after the op's own, its expression: on the vector machine, and as CUDA."""
    kernels = dict(kernels or {})
    kernels["cpu"] = [*kernels.get("cpu", ()), kernel_of(function)]
    kernels["cuda"] = [*kernels.get("cuda", ()), pointwise_cuda.kernel_of(function)]
    return kernels


# Elements from which the vector machine wins, the longer way to it included, where NumPy needs more
# than one pass (for one pass it is choice.LARGE).
_SEVERAL_PASSES = 2048

# Typing rules of primitives whose result is bool or an integer (inferring it costs 80 µs per op).
_DISCRETE = frozenset({"compare", "test", "logical", "bits", "shift"})


def _has_gradient(function: ScalarFunction) -> bool:
    """Whether the result for floating inputs is floating."""
    root = function.roots[0]
    if not isinstance(root, Call):
        return True
    if root.primitive.dtype_rule == "cast":
        assert root.primitive.dtype is not None
        return dtypes.is_floating(root.primitive.dtype)
    return root.primitive.dtype_rule not in _DISCRETE


def bad_shapes(op: Op, arrays: tuple) -> None:
    """Raises ShapeError if ``arrays`` do not broadcast; called when NumPy refused them."""
    shapes = [getattr(a, "shape", ()) for a in arrays]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        named = dict(zip([i.name for i in op.inputs], arrays, strict=True))
        fail(
            ShapeError,
            op.name,
            "the shapes do not broadcast",
            "Aligned from the last one, dimensions must be equal or 1.",
            **named,
        )


shared_globals["bad_shapes"] = bad_shapes


def fallback(op: Op, mode: config.Mode, inputs: tuple, params: tuple) -> Any:
    """What the compiled function leaves over: small integer and bool Tensors here, or the rest."""
    lead = inputs[0]
    if not mode.plain or (op.check is not None and params):
        return dispatch.general(op, mode, inputs, params)
    kind = (lead.array if lead.__class__ in tensor_types else lead).__class__
    if kind is not np.ndarray and kind in backends and backends[kind].name == "cuda":
        found = pointwise_device.call(op, mode, inputs, params)
        return dispatch.general(op, mode, inputs, params) if found is None else found
    if lead.__class__ not in tensor_types:
        if lead.__class__ is np.ndarray and (lead.dtype.kind in "fV" or lead.size > LARGE):
            found = _large(op, mode, inputs, params)
            if found is not None:
                return found
        return dispatch.general(op, mode, inputs, params)
    array, device = lead.array, lead.device
    if array.__class__ is np.ndarray and (array.dtype.kind in "fV" or array.size > LARGE):
        found = _large(op, mode, inputs, params)
        return dispatch.general(op, mode, inputs, params) if found is None else found
    dtype = array.dtype
    if dtype.kind not in "biu" or array.__class__ is not np.ndarray or array.size > LARGE:
        return dispatch.general(op, mode, inputs, params)
    arrays = [array]
    for value in inputs[1:]:
        if value.__class__ in tensor_types and value.device is device:
            array = value.array
            if array.dtype is not dtype or array.size > LARGE:
                return dispatch.general(op, mode, inputs, params)
        elif value.__class__ is int and dtype.itemsize > 2 and -(2**31) <= value < 2**31:
            array = np.asarray(value, dtype)
        else:
            return dispatch.general(op, mode, inputs, params)
        arrays.append(array)
    if op.check is not None:  # of values alone
        op.check(*arrays)
    if params:
        y = op.forward(np, *arrays, **dict(zip([p.name for p in op.params], params, strict=True)))
    else:
        y = op.forward(np, *arrays)
    return make(y if y.__class__ is np.ndarray else np.asarray(y), device)


shared_globals["general"] = fallback

_numbers = frozenset({bool, int, float})


def _large(op: Op, mode: config.Mode, inputs: tuple, params: tuple) -> Any:
    """A call that needs no conversion, on the vector machine; None for any other.

    What :func:`pyframe.tensor.dispatch.general` and the choice of a kernel would come to, in a
    fifth of the time (10 µs, as much as a sum of 50,000 numbers takes).
    """
    kernels = op.kernels["cpu"]
    if machine is None or len(kernels) != 1:
        return None
    lead = inputs[0]
    device = lead.device if lead.__class__ in tensor_types else None
    dtype = (lead if device is None else lead.array).dtype
    if dtype.kind not in "fiubV" or len(op.promote) != len(inputs):
        return None
    for value in params:
        if value.__class__ not in _numbers:
            return None
    arrays, tensors = [], []
    for value in inputs:
        if value.__class__ in tensor_types:
            if value.device is not device or value.array.__class__ is not np.ndarray:
                return None
            array = value.array
        elif value.__class__ is np.ndarray and device is None:
            array = value
        elif value.__class__ is float and dtype.kind in "fV":
            array = np.asarray(value, dtype)
            value = array if device is None else make(array, device)
        else:
            return None
        if array.dtype is not dtype:
            return None
        arrays.append(array)
        tensors.append(value)
    if op.check is not None:  # of values alone
        op.check(*arrays)
    try:
        y = run_on(op.expr, tuple(arrays), params)
    except ValueError:
        bad_shapes(op, tuple(arrays))
        raise
    if y is None or device is None:
        return y
    out = make(y, device)
    if mode.grad and op.vjp is not None:
        op.record(tuple(tensors), tuple(arrays), params, (out,))
    return out


def _cost(*arrays: Any, **params: Any) -> Cost:
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    elements = int(np.prod(shape))
    size = max(a.dtype.itemsize for a in arrays)
    return Cost(elements, sum(a.size * a.dtype.itemsize for a in arrays) + elements * size)


def _forward_of(function: ScalarFunction) -> Callable:
    """The portable forward: the NumPy evaluation, compiled per combination of dtypes."""
    evaluators: dict[tuple, Callable] = {}

    def evaluated(xp: Any, *arrays: Any, **scalars: Any) -> Any:
        key = (tuple(a.dtype for a in arrays), tuple(type(v) for v in scalars.values()))
        evaluate = evaluators.get(key)
        if evaluate is None:
            evaluate = evaluators[key] = compile_numpy(function, *key)
        try:
            return evaluate(xp, *arrays, *scalars.values())
        except FloatingPointError:  # the user made NumPy strict
            with np.errstate(all="ignore"):
                return evaluate(xp, *arrays, *scalars.values())
        except ValueError:
            bad_shapes(forward.op, arrays)
            raise

    forward: Any = evaluated  # build() gives it its op
    return forward


def _is_quotient(function: ScalarFunction) -> bool:
    """Whether it is a quotient of inputs: as in PyTorch, its result may be overwritten."""
    root = function.roots[0]
    return isinstance(root, Call) and root.primitive.name == "div"


def _ufunc(function: ScalarFunction) -> Callable | None:
    """The NumPy ufunc that is all of ``function`` for floats, if there is one."""
    name = ufunc_of(function) if takes_floats(function) else None
    return getattr(np, name) if name is not None else None


def _swapped_ufunc(function: ScalarFunction) -> Callable | None:
    """The same for two inputs that are its arguments the other way round, as in ``rsub``."""
    if len(function.inputs) != 2 or function.scalars:
        return None
    swapped = ScalarFunction(function.name, function.inputs[::-1], (), {}, function.root)
    ufunc = _ufunc(swapped)
    return None if ufunc is None else lambda a, b: ufunc(b, a)


class _LazyRule:
    """Builds the derivative's op when backward first needs it, then is replaced by its function."""

    def __init__(
        self, namespace: dict, key: str, derivative: ScalarFunction, conditions: set[str]
    ) -> None:
        self.namespace, self.key, self.derivative = namespace, key, derivative
        self.promote = tuple(n for n in derivative.inputs if n not in conditions)

    def __call__(self, *args: Any) -> Any:
        if self.namespace[self.key] is self:
            built = build(self.derivative, promote=self.promote)
            self.namespace[self.key] = built.function
        return self.namespace[self.key](*args)


def _compile_into(op: Op, namespace: dict[str, Any]) -> str:
    """Defines ``call``, ``record`` and the rule's functions of an op in ``namespace``."""
    function: ScalarFunction = op.expr
    direct = _ufunc(function) or _swapped_ufunc(function)
    # Inputs that keep their own dtype: conditions, which are bool and have no gradient.
    conditions = set(function.inputs) - set(op.promote)
    namespace.update(shared_globals, op=op)
    if direct is None and machine is not None and len(op.kernels["cpu"]) == 1:
        namespace["LARGE"] = _SEVERAL_PASSES
        op.kernels_from = _SEVERAL_PASSES + 1

    def lazily(dtype: np.dtype, key: str) -> Callable:
        def evaluate(*args: Any) -> Any:
            given = [dtypes.bool_ if n in conditions else dtype for n in function.inputs]
            compiled = compile_numpy(function, given)
            namespace[key] = short = partial(compiled, np)
            return short(*args)

        return evaluate

    namespace["fast32"] = direct or lazily(dtypes.float32, "fast32")
    namespace["fast64"] = direct or lazily(dtypes.float64, "fast64")

    differentiable = op.vjp is not None
    derivatives: dict[str, ScalarFunction | None] = {}
    if differentiable:
        for wrt in function.inputs:
            if wrt in conditions:
                derivatives[wrt] = None
            else:
                derivatives[wrt] = vjp(function, wrt, use_output=not _is_quotient(function))
        op.vjp = derivatives
    template = Template(function, derivatives, conditions, direct is not None)
    if differentiable:
        rule = Rule(op.name, template.saved + template.params, template.saved)
        namespace["rule"] = rule
        for wrt, derivative in derivatives.items():
            if derivative is not None:
                key = f"rule_{wrt}"
                namespace[key] = _LazyRule(namespace, key, derivative, conditions)
    source = template.source()
    define(source, op.name, namespace)
    if differentiable:
        rule.backward, rule.backward_graph = namespace["backward"], namespace["backward_graph"]
        op.record = namespace["record"]
    return source
