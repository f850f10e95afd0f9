"""A strict array module: NumPy underneath, CuPy at its strictest on the surface.

``strict`` is used as ``xp`` and :class:`StrictArray` as its array. Whatever runs through them uses
only names and keywords that CuPy and NumPy both have, keeps 0-d results as arrays, never looks at a
value on the host, and never mixes in a NumPy array. Every breach raises :class:`StrictError`, which
no ``except TypeError`` of the code under test can swallow.

The surface is that of the installed CuPy if one can be imported, else of ``cupy_names.json`` beside
this file (CuPy 14.2; written by ``python -m tests.doubles.strict``, run where CuPy is installed).

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

import contextlib
import contextvars
import inspect
import json
import pathlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

_FILE = pathlib.Path(__file__).with_name("cupy_names.json")


class StrictError(Exception):
    """Something that CuPy does not do, or does only by synchronising with the host."""


class StrictNameError(StrictError, AttributeError):
    """A name that CuPy or NumPy does not have."""


# ---------------------------------------------------------------------------------------- names


def _compact(signature: str) -> str:
    """``(self, axis=None, *, dtype: T = None) -> X`` as ``axis=,*,dtype=``."""
    depth, current, parts = 0, "", []
    for char in signature[signature.index("(") + 1 :]:
        if depth == 0 and char in ",)":
            parts.append(current.strip())
            current = ""
            if char == ")":
                break
            continue
        depth += (char in "([{") - (char in ")]}")
        current += char
    names = []
    for part in filter(None, parts):
        if part in ("/", "*"):
            names.append(part)
            continue
        head, equals, _ = part.partition("=")
        name = head.split(":")[0].split()[-1]
        names.append(name + ("=" if equals else ""))
    return ",".join(name for name in names if name != "self")


def names_of(cupy: Any) -> dict[str, Any]:
    """The public surface of an imported CuPy, in the form of ``cupy_names.json``."""

    def functions(module: Any) -> dict[str, str]:
        result = {}
        for name in dir(module):
            value = getattr(module, name)
            if not name.startswith("_") and inspect.isfunction(value):
                result[name] = ",".join(_parameters(inspect.signature(value)))
        return result

    ufuncs, types, constants = {}, [], []
    for name in dir(cupy):
        value = getattr(cupy, name)
        if name.startswith("_"):
            continue
        if isinstance(value, cupy.ufunc):
            ufuncs[name] = [value.nin, value.nout, int(value._scatter_op is not None)]
        elif isinstance(value, type) and issubclass(value, np.generic):
            types.append(name)
        elif isinstance(value, float):
            constants.append(name)
    methods, attributes = {}, []
    for name in dir(cupy.ndarray):
        value = getattr(cupy.ndarray, name)
        if name.startswith("_"):
            continue
        if inspect.isgetsetdescriptor(value) or isinstance(value, property):
            attributes.append(name)
        elif callable(value):
            try:
                text = str(inspect.signature(value))
            except ValueError:
                text = value.__doc__.splitlines()[0]
            methods[name] = _compact(text)
    return {
        "version": cupy.__version__,
        "functions": functions(cupy) | {"size": "a,axis="},
        "ufuncs": ufuncs,
        "types": types,
        "constants": constants,
        "methods": methods,
        "attributes": attributes,
        "linalg": functions(cupy.linalg),
        "fft": functions(cupy.fft),
        "lib.stride_tricks": functions(cupy.lib.stride_tricks),
    }


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    kinds = inspect.Parameter
    seen_star = False
    parameters = list(signature.parameters.values())
    for i, p in enumerate(parameters):
        if p.kind is kinds.KEYWORD_ONLY and not seen_star:
            seen_star = True
            yield "*"
        star = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}.get(p.kind, "")
        seen_star = seen_star or star == "*"
        yield star + p.name + ("" if p.default is p.empty else "=")
        last = i + 1 == len(parameters) or parameters[i + 1].kind is not kinds.POSITIONAL_ONLY
        if p.kind is kinds.POSITIONAL_ONLY and last:
            yield "/"


def _signature(spec: str) -> inspect.Signature:
    kinds = inspect.Parameter
    kind, parameters = kinds.POSITIONAL_OR_KEYWORD, []
    for item in filter(None, spec.split(",")):
        if item == "/":
            parameters = [p.replace(kind=kinds.POSITIONAL_ONLY) for p in parameters]
        elif item == "*":
            kind = kinds.KEYWORD_ONLY
        elif item.startswith("**"):
            parameters.append(inspect.Parameter(item[2:], kinds.VAR_KEYWORD))
        elif item.startswith("*"):
            parameters.append(inspect.Parameter(item[1:], kinds.VAR_POSITIONAL))
            kind = kinds.KEYWORD_ONLY
        else:
            default = None if item.endswith("=") else inspect.Parameter.empty
            parameters.append(inspect.Parameter(item.rstrip("="), kind, default=default))
    return inspect.Signature(parameters)


def _load() -> dict[str, Any]:
    try:
        import cupy

        return names_of(cupy)
    except Exception:  # not installed, or installed without its libraries
        return json.loads(_FILE.read_text())


NAMES = _load()

# ---------------------------------------------------------------------- synchronisation and values

_sync = contextvars.ContextVar("strict_sync", default=False)


@contextlib.contextmanager
def allow_sync() -> Iterator[None]:
    """Inside the block, calls that wait for the device are allowed.

    >>> with allow_sync():
    ...     to_strict(np.ones(3)).sum().item()
    3.0
    """
    token = _sync.set(True)
    try:
        yield
    finally:
        _sync.reset(token)


def _needs_sync(what: str) -> None:
    if not _sync.get():
        raise StrictError(f"{what} synchronises the host with the device")


_SCALARS = (bool, int, float, complex, np.bool_, np.number, ml_dtypes.bfloat16)
_DTYPES = frozenset(map(np.dtype, "?bhilqBHILQefdFD")) | {np.dtype(ml_dtypes.bfloat16)}

# Functions whose results have a shape that depends on values, or that inspect values on the host.
_SYNCHRONISING = frozenset(
    """argwhere asnumpy array2string array_repr array_str bincount choose compress digitize
    extract flatnonzero histogram histogram2d histogramdd intersect1d nonzero
    piecewise place ravel_multi_index save savez savetxt savez_compressed setdiff1d setxor1d
    trim_zeros union1d unique unique_all unique_counts unique_inverse unique_values""".split()
)
_SYNCHRONISING_METHODS = frozenset("choose compress get item nonzero tobytes tolist".split())
_ABSENT_METHODS = frozenset("dump dumps tofile byteswap".split())  # files and rarities: keep out
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
# Parameters that CuPy reads on the host.
_HOST = frozenset(
    """shape axis axes newshape N M k reps shift source destination pad_width decimals ddof axis1
    axis2 minlength order kind side mode indices_or_sections num offset dtype keepdims strides
    repeats num_rows window_shape n kth""".split()
)


def _root(array: Any) -> Any:
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _unwrap(value: Any, where: str, sources: list[StrictArray], host: bool = False) -> Any:
    """``value`` with every StrictArray replaced by its NumPy array, which go into ``sources``."""
    if isinstance(value, StrictArray):
        sources.append(value)
        return value._a
    if isinstance(value, np.ndarray):
        if host:
            return value
        raise StrictError(f"{where}: implicit use of a numpy.ndarray; pass xp.asarray(...)")
    if isinstance(value, (list, tuple)):
        items = [_unwrap(item, where, sources, host) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if (
        value is None
        or value is Ellipsis
        or value is np._NoValue
        or isinstance(value, (*_SCALARS, str, slice, np.dtype, type, np.finfo, np.iinfo))
        or inspect.isfunction(value)
    ):
        return value
    raise StrictError(f"{where}: cannot take a {type(value).__name__}")


def _has_array(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_array, value))
    return isinstance(value, StrictArray)


def _wrap(value: Any, sources: list[StrictArray]) -> Any:
    """NumPy results as CuPy would give them; what is or views a source keeps its identity."""
    if isinstance(value, np.ndarray):
        root = None
        for source in sources:
            if value is source._a:
                return source
            if value.base is not None:
                root = _root(value) if root is None else root
                if _root(source._a) is root:
                    return StrictArray(value, source if source.base is None else source.base)
        return StrictArray(value)
    if isinstance(value, np.generic):
        return StrictArray(np.asarray(value))
    if isinstance(value, tuple) and not all(isinstance(item, int) for item in value):
        return tuple(_wrap(item, sources) for item in value)
    if isinstance(value, list):
        return [_wrap(item, sources) for item in value]
    return value


class _Function:
    """A function of the module: CuPy's signature, NumPy's arithmetic."""

    def __init__(self, name: str, spec: str, function: Callable[..., Any]) -> None:
        self.__name__ = name
        self._signature = _signature(spec)
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
            if (parameter in _HOST or short == "arange") and _has_array(value):
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
            _needs_sync(name)
        if short == "einsum" and not kwargs.keys() <= {"dtype", "optimize"}:
            raise StrictError(f"{name}: keywords {sorted(kwargs)}; CuPy has dtype and optimize")
        sources: list[StrictArray] = []
        host = short in _CONVERTERS
        plain = [_unwrap(value, name, sources, host) for value in args]
        named = {key: _unwrap(value, name, sources, host) for key, value in kwargs.items()}
        result = self._function(*plain, **named)
        if short == "asnumpy":
            return result
        if short in _ARRAY_RESULT:
            result = np.asarray(result)
        if short in ("empty", "empty_like"):
            _poison(result)
        if host and isinstance(args[0] if args else None, np.ndarray):
            result = result.copy(order="K")  # a transfer never shares memory
        return _wrap(result, sources)


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
        plain = [_unwrap(value, name, sources) for value in args]
        named = {key: _unwrap(value, name, sources) for key, value in kwargs.items()}
        return _wrap(self._function(*plain, **named), sources)

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
        index, value = _index(indices, name), _unwrap(b, name, [])
        if isinstance(value, (list, tuple)):
            raise StrictError(f"{name}: a list is not an operand in CuPy")
        self._function.at(a._a, index, value)


def _index(index: Any, what: str) -> Any:
    items = []
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, StrictArray):
            if item.dtype.kind == "b":
                _needs_sync(f"{what} with a boolean mask")
            items.append(item._a)
        elif isinstance(item, (bool, np.bool_)):
            raise StrictError(f"{what} with a bool")
        elif isinstance(item, slice):
            if any(map(_has_array, (item.start, item.stop, item.step))):
                raise StrictError(f"{what}: an array as a slice's bound is read on the host")
            items.append(item)
        elif item is None or item is Ellipsis or isinstance(item, (int, np.integer)):
            items.append(item)
        else:
            raise StrictError(f"{what} with a {type(item).__name__}; use an array of the device")
    return tuple(items) if isinstance(index, tuple) else items[0]


# ---------------------------------------------------------------------------------------- the array


class _Flags:
    """CuPy's flags: contiguity and ownership only (no ``writeable``)."""

    _NAMES = {"C_CONTIGUOUS": "c_contiguous", "F_CONTIGUOUS": "f_contiguous", "OWNDATA": "owndata"}

    def __init__(self, array: StrictArray) -> None:
        self.c_contiguous = array._a.flags.c_contiguous
        self.f_contiguous = array._a.flags.f_contiguous
        self.owndata = array.base is None
        self.fnc = self.f_contiguous and not self.c_contiguous
        self.forc = self.f_contiguous or self.c_contiguous

    def __getattr__(self, name: str) -> Any:
        raise StrictNameError(f"flags.{name}: CuPy's flags do not have it")

    def __getitem__(self, name: str) -> bool:
        if name not in self._NAMES:
            raise StrictError(f"flags[{name!r}]: CuPy's flags do not have it")
        return getattr(self, self._NAMES[name])


class _Device:
    """Stands for ``cupy.cuda.Device``."""

    id = 0

    def __repr__(self) -> str:
        return "<CUDA Device 0>"


_device = _Device()


class StrictArray:
    """An array of the strict module; holds a NumPy array and shows only what CuPy's has.

    Made by :func:`to_strict` or by functions of ``strict``, not by its constructor.

    >>> a = to_strict(np.arange(4.0))
    >>> (a * 2).sum()
    StrictArray(shape=(), dtype=float64)
    """

    __slots__ = ("__weakref__", "_a", "_base")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: np.ndarray, base: StrictArray | None = None) -> None:
        if not isinstance(array, np.ndarray):
            raise StrictError("make arrays with xp.asarray or to_strict")
        if array.dtype not in _DTYPES:
            raise StrictError(f"CuPy has no arrays of dtype {array.dtype}")
        object.__setattr__(self, "_a", array)
        object.__setattr__(self, "_base", base)

    shape = property(lambda self: self._a.shape)  # CuPy lets one set it; NumPy 2.5 warns
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    strides = property(lambda self: self._a.strides)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    flags = property(_Flags)
    base = property(lambda self: self._base)
    device = property(lambda self: _device)
    data = property(lambda self: SimpleNamespace(ptr=self._a.ctypes.data))
    T = property(lambda self: _wrap(self._a.T, [self]))
    mT = property(lambda self: _wrap(self._a.mT, [self]))
    real = property(lambda self: _wrap(self._a.real, [self]))
    imag = property(lambda self: _wrap(self._a.imag, [self]))

    def __getattr__(self, name: str) -> Any:
        raise StrictNameError(f"ndarray.{name}: cupy.ndarray and numpy.ndarray do not both have it")

    def __setattr__(self, name: str, value: Any) -> None:
        raise StrictNameError(f"ndarray.{name} cannot be set")

    def __repr__(self) -> str:
        return f"StrictArray(shape={self.shape}, dtype={self.dtype})"

    __str__ = __repr__

    def __len__(self) -> int:
        if not self.ndim:
            raise StrictError("len() of a 0-d array")
        return len(self._a)

    def __iter__(self) -> Iterator[StrictArray]:
        if not self.ndim:
            raise StrictError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        raise StrictError("`in` reads values on the host")

    def __getitem__(self, index: Any) -> StrictArray:
        plain = _index(index, "indexing")
        result = self._a[plain]
        if isinstance(result, np.generic):
            # NumPy copies the element; in CuPy it is a view unless an array was the index.
            result = self._a[(*plain, ...) if isinstance(plain, tuple) else (plain, ...)]
        if _has_array(index) and np.may_share_memory(result, self._a):
            result = result.copy()
        return _wrap(result, [self])

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(value, (StrictArray, *_SCALARS)):
            raise StrictError(f"assigning a {type(value).__name__}; use an array of the device")
        self._a[_index(index, "assignment")] = _unwrap(value, "assignment", [])

    def __delitem__(self, index: Any) -> None:
        raise StrictError("items of an array cannot be deleted")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise StrictError("implicit conversion to a numpy.ndarray; use xp.asnumpy or .get()")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # Reached by np.float32(2) * a, and by np.sin(a), which cannot be told apart by CuPy either.
        scalars = all(isinstance(x, (StrictArray, *_SCALARS)) for x in inputs)
        if method != "__call__" or kwargs or not scalars or len(inputs) != 2:
            raise StrictError(f"np.{ufunc.__name__} on arrays of the device; use xp's")
        return getattr(strict, ufunc.__name__)(*inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise StrictError(f"np.{func.__name__} on an array of the device; use xp's")

    def __copy__(self) -> StrictArray:
        return StrictArray(self._a.copy())

    def __deepcopy__(self, memo: Any) -> StrictArray:
        return StrictArray(self._a.copy())

    def __reduce__(self) -> Any:
        raise StrictError("pickling copies the values to the host")


def _host(name: str, convert: Callable[[np.ndarray], Any]) -> Callable[[StrictArray], Any]:
    def method(self: StrictArray) -> Any:
        _needs_sync(name)
        return convert(self._a)

    return method


for _name, _convert in {
    "__bool__": bool,
    "__int__": int,
    "__float__": float,
    "__complex__": complex,
    "__index__": lambda a: a.__index__(),
    "__bytes__": bytes,
}.items():
    setattr(StrictArray, _name, _host(f"{_name}()", _convert))


def _operator(name: str, reflected: bool, inplace: bool) -> Callable[[StrictArray, Any], Any]:
    def method(self: StrictArray, other: Any, *rest: Any) -> Any:
        if isinstance(other, np.ndarray):
            raise StrictError(f"{name} of an array of the device and a numpy.ndarray")
        if not isinstance(other, (StrictArray, *_SCALARS)):
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


def _array_method(name: str, spec: str) -> Callable[..., Any]:
    signature = _signature(spec)

    def method(self: StrictArray, *args: Any, **kwargs: Any) -> Any:
        where = f"ndarray.{name}"
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise StrictError(f"{where} of CuPy {NAMES['version']}: {error}") from None
        if name in _SYNCHRONISING_METHODS:
            _needs_sync(where)
        for parameter, value in bound.arguments.items():
            if parameter in _HOST and _has_array(value):
                raise StrictError(f"{where}: {parameter} is read on the host")
            if parameter in ("indices", "v", "b", "values", "out") and not isinstance(
                value, (StrictArray, int, type(None))
            ):
                raise StrictError(f"{where}: {parameter} must be an array of the device")
            if parameter == "value" and not isinstance(value, (StrictArray, *_SCALARS)):
                raise StrictError(f"{where}: cannot take a {type(value).__name__}")
        if name == "get":
            return self._a.copy(order="K")
        sources = [self]
        plain = [_unwrap(value, where, sources) for value in args]
        named = {key: _unwrap(value, where, sources) for key, value in kwargs.items()}
        result = getattr(self._a, name)(*plain, **named)
        return result if name in ("item", "tolist", "tobytes") else _wrap(result, sources)

    method.__name__ = name
    return method


for _name, _spec in NAMES["methods"].items():
    if _name not in _ABSENT_METHODS and (hasattr(np.ndarray, _name) or _name == "get"):
        setattr(StrictArray, _name, _array_method(_name, _spec))


# --------------------------------------------------------------------------------------- the module


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


def install(register: Callable[..., Any], device_type: str = "strict") -> None:
    """Makes StrictArray known to a backend: calls ``register(StrictArray, strict, device_type)``.

    ``register`` is the backend's registration function for array types.
    """
    register(StrictArray, strict, device_type)


if __name__ == "__main__":
    import cupy

    _FILE.write_text(json.dumps(names_of(cupy), separators=(",", ":"), sort_keys=True) + "\n")
    print(f"{_FILE}: names of CuPy {cupy.__version__}")
