"""The array of the strict module (see ``strict.py``), and what may go into it.

Its operators are ufuncs of the module, which adds them.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from tests.doubles.cupy_names import NAMES, signature_of


class StrictError(Exception):
    """Something that CuPy does not do, or does only by synchronising with the host."""


class StrictNameError(StrictError, AttributeError):
    """A name that CuPy or NumPy does not have."""


_sync = contextvars.ContextVar("strict_sync", default=False)


@contextlib.contextmanager
def allow_sync() -> Iterator[None]:
    """Inside the block, calls that wait for the device are allowed.

    >>> from tests.doubles.strict import to_strict
    >>> with allow_sync():
    ...     to_strict(np.ones(3)).sum().item()
    3.0
    """
    token = _sync.set(True)
    try:
        yield
    finally:
        _sync.reset(token)


def needs_sync(what: str) -> None:
    """Raises unless inside :func:`allow_sync`."""
    if not _sync.get():
        raise StrictError(f"{what} synchronises the host with the device")


SCALARS = (bool, int, float, complex, np.bool_, np.number, ml_dtypes.bfloat16)


_DTYPES = frozenset(map(np.dtype, "?bhilqBHILQefdFD")) | {np.dtype(ml_dtypes.bfloat16)}


_SYNCHRONISING_METHODS = frozenset("choose compress get item nonzero tobytes tolist".split())


_ABSENT_METHODS = frozenset("dump dumps tofile byteswap".split())  # files and rarities: keep out


# Parameters that CuPy reads on the host.
HOST = frozenset(
    """shape axis axes newshape N M k reps shift source destination pad_width decimals ddof axis1
    axis2 minlength order kind side mode indices_or_sections num offset dtype keepdims strides
    repeats num_rows window_shape n kth""".split()
)


def _root(array: Any) -> Any:
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def unwrap(value: Any, where: str, sources: list[StrictArray], host: bool = False) -> Any:
    """``value`` with every StrictArray replaced by its NumPy array, which go into ``sources``."""
    if isinstance(value, StrictArray):
        sources.append(value)
        return value._a
    if isinstance(value, np.ndarray):
        if host:
            return value
        raise StrictError(f"{where}: implicit use of a numpy.ndarray; pass xp.asarray(...)")
    if isinstance(value, (list, tuple)):
        items = [unwrap(item, where, sources, host) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if (
        value is None
        or value is Ellipsis
        or value is np._NoValue
        or isinstance(value, (*SCALARS, str, slice, np.dtype, type, np.finfo, np.iinfo))
        or inspect.isfunction(value)
    ):
        return value
    raise StrictError(f"{where}: cannot take a {type(value).__name__}")


def has_array(value: Any) -> bool:
    """Whether ``value`` is a StrictArray or a nest of lists with one."""
    if isinstance(value, (list, tuple)):
        return any(map(has_array, value))
    return isinstance(value, StrictArray)


def wrap(value: Any, sources: list[StrictArray]) -> Any:
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
        return tuple(wrap(item, sources) for item in value)
    if isinstance(value, list):
        return [wrap(item, sources) for item in value]
    return value


def plain_index(index: Any, what: str) -> Any:
    """``index`` for the NumPy array; raises where CuPy refuses it or would synchronise."""
    items = []
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, StrictArray):
            if item.dtype.kind == "b":
                needs_sync(f"{what} with a boolean mask")
            items.append(item._a)
        elif isinstance(item, (bool, np.bool_)):
            raise StrictError(f"{what} with a bool")
        elif isinstance(item, slice):
            if any(map(has_array, (item.start, item.stop, item.step))):
                raise StrictError(f"{what}: an array as a slice's bound is read on the host")
            items.append(item)
        elif item is None or item is Ellipsis or isinstance(item, (int, np.integer)):
            items.append(item)
        else:
            raise StrictError(f"{what} with a {type(item).__name__}; use an array of the device")
    return tuple(items) if isinstance(index, tuple) else items[0]


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

    >>> from tests.doubles.strict import to_strict
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
    T = property(lambda self: wrap(self._a.T, [self]))
    mT = property(lambda self: wrap(self._a.mT, [self]))
    real = property(lambda self: wrap(self._a.real, [self]))
    imag = property(lambda self: wrap(self._a.imag, [self]))

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
        plain = plain_index(index, "indexing")
        result = self._a[plain]
        if isinstance(result, np.generic):
            # NumPy copies the element; in CuPy it is a view unless an array was the index.
            result = self._a[(*plain, ...) if isinstance(plain, tuple) else (plain, ...)]
        if has_array(index) and np.may_share_memory(result, self._a):
            result = result.copy()
        return wrap(result, [self])

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(value, (StrictArray, *SCALARS)):
            raise StrictError(f"assigning a {type(value).__name__}; use an array of the device")
        self._a[plain_index(index, "assignment")] = unwrap(value, "assignment", [])

    def __delitem__(self, index: Any) -> None:
        raise StrictError("items of an array cannot be deleted")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise StrictError("implicit conversion to a numpy.ndarray; use xp.asnumpy or .get()")

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
        needs_sync(name)
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


def _array_method(name: str, spec: str) -> Callable[..., Any]:
    signature = signature_of(spec)

    def method(self: StrictArray, *args: Any, **kwargs: Any) -> Any:
        where = f"ndarray.{name}"
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise StrictError(f"{where} of CuPy {NAMES['version']}: {error}") from None
        if name in _SYNCHRONISING_METHODS:
            needs_sync(where)
        for parameter, value in bound.arguments.items():
            if parameter in HOST and has_array(value):
                raise StrictError(f"{where}: {parameter} is read on the host")
            if parameter in ("indices", "v", "b", "values", "out") and not isinstance(
                value, (StrictArray, int, type(None))
            ):
                raise StrictError(f"{where}: {parameter} must be an array of the device")
            if parameter == "value" and not isinstance(value, (StrictArray, *SCALARS)):
                raise StrictError(f"{where}: cannot take a {type(value).__name__}")
        if name == "get":
            return self._a.copy(order="K")
        sources = [self]
        plain = [unwrap(value, where, sources) for value in args]
        named = {key: unwrap(value, where, sources) for key, value in kwargs.items()}
        result = getattr(self._a, name)(*plain, **named)
        return result if name in ("item", "tolist", "tobytes") else wrap(result, sources)

    method.__name__ = name
    return method


for _name, _spec in NAMES["methods"].items():
    if _name not in _ABSENT_METHODS and (hasattr(np.ndarray, _name) or _name == "get"):
        setattr(StrictArray, _name, _array_method(_name, _spec))
