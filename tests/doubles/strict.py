"""A strict array module: NumPy underneath, CuPy at its strictest on the surface.

``strict`` is used as ``xp`` and :class:`StrictArray` as its array. Whatever runs through them uses
only names and keywords that CuPy and NumPy both have, keeps 0-d results as arrays, never looks at a
value on the host, and never mixes in a NumPy array. Every breach raises :class:`StrictError`, which
no ``except TypeError`` of the code under test can swallow.

The surface is that of the installed CuPy if one can be imported, else of CuPy 14.2 (see
``cupy_names.py``).

Where it is stricter than CuPy, on purpose:

* synchronising calls (values to the host, shapes that depend on values, boolean masks as indices)
  raise unless inside :func:`allow_sync`, since they stall the stream and cannot be captured;
* lists as indices or operands raise: CuPy copies them from the host, or refuses them;
* functions of NumPy applied to a StrictArray raise (CuPy forwards some);
* an out-of-range index raises, where CuPy wraps it around silently;
* ``empty`` and ``empty_like`` fill with NaN or the most negative integer;
* ``repr`` shows shape and dtype only, and does not synchronise.

Where it is laxer: memory layout, streams and asynchrony are NumPy's. bfloat16 (of ml_dtypes) is
admitted, as in CuPy 14 (its ufuncs have ``E`` loops); longer floats and objects are not.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.doubles.cupy_names import NAMES, signature_of
from tests.doubles.strict_array import (
    HOST,
    SCALARS,
    StrictArray,
    StrictError,
    StrictNameError,
    has_array,
    needs_sync,
    plain_index,
    unwrap,
    wrap,
)

# Functions whose results have a shape that depends on values, or that inspect values on the host.
_SYNCHRONISING = frozenset(
    """argwhere asnumpy array2string array_repr array_str bincount choose compress digitize
    extract flatnonzero histogram histogram2d histogramdd intersect1d nonzero
    piecewise place ravel_multi_index save savez savetxt savez_compressed setdiff1d setxor1d
    trim_zeros union1d unique unique_all unique_counts unique_inverse unique_values""".split()
)


# NumPy gives a Python or NumPy scalar, CuPy a 0-d array.
_ARRAY_RESULT = frozenset("allclose array_equal array_equiv count_nonzero".split())


# Explicit copies from the host, which may be given NumPy arrays and lists.
_CONVERTERS = frozenset("array asarray asanyarray ascontiguousarray asfortranarray".split())


# First parameters that must be arrays of the device, except in these functions.
_DATA = frozenset("a A ar arr array ary m x x1 condition".split())


_SCALAR_DATA = _CONVERTERS | frozenset(
    """allclose can_cast isclose iscomplexobj isrealobj isscalar ndim shape size where""".split()
)


# Lists of arrays: every element must be one.
_LISTS = frozenset("tup arrays arys".split())


class _Function:
    """A function of the module: CuPy's signature, NumPy's arithmetic."""

    def __init__(self, name: str, spec: str, function: Callable[..., Any]) -> None:
        self.__name__ = name
        self._signature = signature_of(spec)
        self._function = function

    def __repr__(self) -> str:
        return f"<strict {self.__name__}{self._signature}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name, short = f"xp.{self.__name__}", self.__name__.rpartition(".")[2]
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise StrictError(f"{name} of CuPy {NAMES['version']}: {error}") from None
        for position, (parameter, value) in enumerate(bound.arguments.items()):
            if (parameter in HOST or short == "arange") and has_array(value):
                raise StrictError(
                    f"{name}: {parameter} is read on the host; it must not be an array"
                )
            if parameter in _LISTS:
                items = value if isinstance(value, (list, tuple)) else [value]
                if not all(isinstance(item, StrictArray) for item in items):
                    raise StrictError(f"{name}: {parameter} must be arrays of the device")
            if position == 0 and parameter in _DATA and short not in _SCALAR_DATA:
                if not isinstance(value, StrictArray):
                    raise StrictError(
                        f"{name}: {parameter} must be an array of the device, "
                        f"not {type(value).__name__}"
                    )
            if parameter == "out" and not isinstance(value, (StrictArray, tuple, type(None))):
                raise StrictError(f"{name}: out must be an array of the device")
        if short in _SYNCHRONISING or (short == "where" and len(bound.arguments) == 1):
            needs_sync(name)
        if short == "einsum" and not kwargs.keys() <= {"dtype", "optimize"}:
            raise StrictError(f"{name}: keywords {sorted(kwargs)}; CuPy has dtype and optimize")
        sources: list[StrictArray] = []
        host = short in _CONVERTERS
        plain = [unwrap(value, name, sources, host) for value in args]
        named = {key: unwrap(value, name, sources, host) for key, value in kwargs.items()}
        result = self._function(*plain, **named)
        if short == "asnumpy":
            return result
        if short in _ARRAY_RESULT:
            result = np.asarray(result)
        if short in ("empty", "empty_like"):
            _poison(result)
        if host and isinstance(args[0] if args else None, np.ndarray):
            result = result.copy(order="K")  # a transfer never shares memory
        return wrap(result, sources)


def _poison(array: np.ndarray) -> None:
    kind = array.dtype.kind
    if kind in "iu":
        array.fill(np.iinfo(array.dtype).min if kind == "i" else np.iinfo(array.dtype).max)
    else:
        array.fill(True if kind == "b" else np.nan)


class _Ufunc:
    """A ufunc: ``out``, ``dtype`` and ``casting`` are its only keywords."""

    def __init__(self, name: str, nin: int, nout: int, scatter: int) -> None:
        self.__name__ = name
        self.nin, self.nout, self.nargs = nin, nout, nin + nout
        self._scatter = bool(scatter)
        self._function = getattr(np, name)

    def __repr__(self) -> str:
        return f"<strict ufunc {self.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = f"xp.{self.__name__}"
        unknown = kwargs.keys() - {"out", "dtype", "casting"}
        if unknown:
            raise StrictError(f"{name}: CuPy's ufuncs have no keyword {sorted(unknown)}")
        if not self.nin <= len(args) <= self.nargs:
            raise StrictError(f"{name}: takes {self.nin} inputs, {len(args)} arguments given")
        for value in args[: self.nin]:
            if isinstance(value, (list, tuple)):
                raise StrictError(f"{name}: a list is not an operand in CuPy")
        outs = kwargs.get("out", args[self.nin :])
        for out in outs if isinstance(outs, tuple) else (outs,):
            if out is not None and not isinstance(out, StrictArray):
                raise StrictError(f"{name}: out must be an array of the device")
        sources: list[StrictArray] = []
        plain = [unwrap(value, name, sources) for value in args]
        named = {key: unwrap(value, name, sources) for key, value in kwargs.items()}
        return wrap(self._function(*plain, **named), sources)

    def _method(self, method: str, only: tuple[str, ...], spec: str, args: Any, kwargs: Any) -> Any:
        name = f"{self.__name__}.{method}"
        if only and self.__name__ not in only:
            raise StrictError(f"xp.{name} is not implemented in CuPy")
        return _Function(name, spec, getattr(self._function, method))(*args, **kwargs)

    def reduce(self, *args: Any, **kwargs: Any) -> Any:
        spec = "array,axis=,dtype=,out=,keepdims="
        return self._method("reduce", ("add", "multiply"), spec, args, kwargs)

    def accumulate(self, *args: Any, **kwargs: Any) -> Any:
        spec = "array,axis=,dtype=,out="
        return self._method("accumulate", ("add", "multiply"), spec, args, kwargs)

    def reduceat(self, *args: Any, **kwargs: Any) -> Any:
        return self._method("reduceat", ("add",), "array,indices,axis=,dtype=,out=", args, kwargs)

    def outer(self, *args: Any, **kwargs: Any) -> Any:
        return self._method("outer", (), "A,B,**kwargs", args, kwargs)

    def at(self, a: StrictArray, indices: Any, b: Any = None) -> None:
        name = f"xp.{self.__name__}.at"
        if not self._scatter:
            raise StrictError(f"{name} is not implemented in CuPy")
        if not isinstance(a, StrictArray):
            raise StrictError(f"{name}: a must be an array of the device")
        index, value = plain_index(indices, name), unwrap(b, name, [])
        if isinstance(value, (list, tuple)):
            raise StrictError(f"{name}: a list is not an operand in CuPy")
        self._function.at(a._a, index, value)


class _Namespace:
    """``xp.linalg``, ``xp.fft``, ``xp.lib.stride_tricks``."""

    def __init__(self, name: str, module: Any) -> None:
        self.__name__ = name
        for key, spec in NAMES[name].items():
            if hasattr(module, key):
                setattr(self, key, _Function(f"{name}.{key}", spec, getattr(module, key)))

    def __getattr__(self, name: str) -> Any:
        raise StrictNameError(f"xp.{self.__name__}.{name}: CuPy and NumPy do not both have it")


class _Module:
    """The strict array module; see the docstring of this file."""

    __name__ = "strict"
    ndarray = StrictArray
    newaxis = None
    dtype = np.dtype
    finfo = np.finfo
    iinfo = np.iinfo
    promote_types = staticmethod(np.promote_types)
    min_scalar_type = staticmethod(np.min_scalar_type)

    def __init__(self) -> None:
        for name, spec in NAMES["functions"].items():
            if name == "asnumpy":
                self.asnumpy = _Function(name, spec, lambda a, *_, **__: np.array(a, order="K"))
            elif name == "get_array_module":
                self.get_array_module = lambda *_: self
            elif callable(getattr(np, name, None)):
                setattr(self, name, _Function(name, spec, getattr(np, name)))
        for name, (nin, nout, scatter) in NAMES["ufuncs"].items():
            if hasattr(np, name):
                setattr(self, name, _Ufunc(name, nin, nout, scatter))
        self.matmul = _Ufunc("matmul", 2, 1, 0)
        for name in NAMES["types"] + NAMES["constants"]:
            if hasattr(np, name):
                setattr(self, name, getattr(np, name))
        self.linalg = _Namespace("linalg", np.linalg)
        self.fft = _Namespace("fft", np.fft)
        self.lib = SimpleNamespace(
            stride_tricks=_Namespace("lib.stride_tricks", np.lib.stride_tricks)
        )

    def __getattr__(self, name: str) -> Any:
        if name == "random":
            raise StrictNameError("xp.random: random numbers come from pyframe.philox only")
        raise StrictNameError(f"xp.{name}: CuPy {NAMES['version']} and NumPy do not both have it")

    def __repr__(self) -> str:
        return f"<strict array module, names of CuPy {NAMES['version']}>"


strict = _Module()


# The operators of arrays, which are ufuncs of the module.


def _array_ufunc(self: StrictArray, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    # Reached by np.float32(2) * a, and by np.sin(a), which cannot be told apart by CuPy either.
    scalars = all(isinstance(x, (StrictArray, *SCALARS)) for x in inputs)
    if method != "__call__" or kwargs or not scalars or len(inputs) != 2:
        raise StrictError(f"np.{ufunc.__name__} on arrays of the device; use xp's")
    return getattr(strict, ufunc.__name__)(*inputs)


StrictArray.__array_ufunc__ = _array_ufunc


def _operator(name: str, reflected: bool, inplace: bool) -> Callable[[StrictArray, Any], Any]:
    def method(self: StrictArray, other: Any, *rest: Any) -> Any:
        if isinstance(other, np.ndarray):
            raise StrictError(f"{name} of an array of the device and a numpy.ndarray")
        if not isinstance(other, (StrictArray, *SCALARS)):
            return NotImplemented
        ufunc = getattr(strict, name)
        if inplace:
            return ufunc(self, other, out=self)
        return ufunc(other, self) if reflected else ufunc(self, other)

    return method


for _symbol, _name in {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "divmod": "divmod",
    "pow": "power",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "matmul": "matmul",
}.items():
    setattr(StrictArray, f"__{_symbol}__", _operator(_name, False, False))
    setattr(StrictArray, f"__r{_symbol}__", _operator(_name, True, False))
    if _symbol not in ("divmod", "matmul"):
        setattr(StrictArray, f"__i{_symbol}__", _operator(_name, False, True))


for _symbol, _name in {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}.items():
    setattr(StrictArray, f"__{_symbol}__", _operator(_name, False, False))


for _symbol, _name in {
    "neg": "negative",
    "pos": "positive",
    "abs": "absolute",
    "invert": "invert",
}.items():
    setattr(StrictArray, f"__{_symbol}__", lambda self, _n=_name: getattr(strict, _n)(self))


def to_strict(array: Any, copy: bool = True) -> StrictArray:
    """A StrictArray with the values of a NumPy array or scalar.

    Args:
        array: what NumPy converts; the dtype must be one of CuPy's.
        copy: if false, memory and strides are shared with ``array`` (for tests of layouts).

    Raises:
        StrictError: a dtype that CuPy does not have.

    >>> to_strict(np.zeros((2, 3), np.float32))
    StrictArray(shape=(2, 3), dtype=float32)
    """
    return StrictArray(np.array(array, order="K") if copy else np.asarray(array))


def from_strict(value: Any) -> Any:
    """NumPy arrays (copies) from a StrictArray or a nest of lists, tuples and dicts of them.

    Anything else is returned as it is. Never counts as a synchronisation: it is for tests.

    >>> from_strict(to_strict(np.arange(3)))
    array([0, 1, 2])
    """
    if isinstance(value, StrictArray):
        return value._a.copy(order="K")
    if isinstance(value, (list, tuple)):
        return type(value)(map(from_strict, value))
    if isinstance(value, dict):
        return {key: from_strict(item) for key, item in value.items()}
    return value
