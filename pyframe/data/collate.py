"""Putting samples together into a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, NoReturn

import numpy as np

from ..dtypes import get_default_dtype
from ..errors import ArgumentError, ArgumentTypeError, ShapeError, fail
from ..tensor import Tensor, from_numpy

CollateMap = dict[type | tuple[type, ...], Callable[..., Any]]


class _MismatchError(Exception):
    """Found inside a batch: on its way out it collects where (``["image"][0]``)."""

    def __init__(self, error: type, what: str, fix: str) -> None:
        super().__init__(what)
        self.error = error
        self.what = what
        self.fix = fix
        self.where = ""

    def fail(self) -> NoReturn:
        place = f"at sample{self.where}: " if self.where else ""
        fail(self.error, "default_collate", place + self.what, self.fix)


_PAD = "Pad or crop the samples to one shape, or pass your own collate_fn."


def _stack_arrays(arrays: Sequence[np.ndarray]) -> np.ndarray:
    first = arrays[0]
    for index, array in enumerate(arrays):
        if array.shape != first.shape:
            raise _MismatchError(
                ShapeError,
                f"sample {index} has shape {list(array.shape)} but sample 0 has shape "
                f"{list(first.shape)}",
                _PAD,
            )
    return np.stack(arrays)


def collate_tensors(batch: Sequence[Tensor], *, collate_fn_map: CollateMap | None = None) -> Tensor:
    """Stacks tensors along a new first dimension (on their device, recording if they do)."""
    if all(_is_plain(tensor) for tensor in batch):
        return from_numpy(_stack_arrays([tensor.array for tensor in batch]))
    for index, tensor in enumerate(batch):
        if tuple(tensor.shape) != tuple(batch[0].shape):
            raise _MismatchError(
                ShapeError,
                f"sample {index} has shape {list(tensor.shape)} but sample 0 has shape "
                f"{list(batch[0].shape)}",
                _PAD,
            )
    import pyframe

    return pyframe.stack(list(batch))  # type: ignore[attr-defined]


def _is_plain(tensor: Tensor) -> bool:
    array = getattr(tensor, "array", None)
    return type(array) is np.ndarray and not tensor.requires_grad and str(tensor.device) == "cpu"


def collate_arrays(
    batch: Sequence[np.ndarray], *, collate_fn_map: CollateMap | None = None
) -> Tensor:
    """Stacks NumPy arrays into a tensor."""
    _refuse_objects(batch[0])
    return from_numpy(_stack_arrays(batch))


def collate_numpy_scalars(
    batch: Sequence[Any], *, collate_fn_map: CollateMap | None = None
) -> Tensor:
    """A tensor of NumPy scalars, with their dtype."""
    _refuse_objects(batch[0])
    return from_numpy(np.asarray(batch))


def collate_floats(batch: Sequence[float], *, collate_fn_map: CollateMap | None = None) -> Tensor:
    """A float64 tensor of Python floats (float64 as in PyTorch)."""
    return from_numpy(np.asarray(batch, np.float64))


def collate_ints(batch: Sequence[int], *, collate_fn_map: CollateMap | None = None) -> Tensor:
    """An int64 tensor of Python integers, or a bool tensor of bools."""
    array = np.asarray(batch)
    if array.dtype.kind == "f":
        array = array.astype(get_default_dtype())
    elif array.dtype.kind != "b":
        array = np.asarray(batch, np.int64)
    return from_numpy(array)


def collate_strings(batch: Sequence[Any], *, collate_fn_map: CollateMap | None = None) -> Any:
    """Strings and bytes stay a sequence."""
    return batch


def _refuse_objects(value: Any) -> None:
    if value.dtype.kind in "SUOV":
        raise _MismatchError(
            ArgumentTypeError,
            f"cannot make a tensor of dtype {value.dtype}",
            "Return numbers, or pass your own collate_fn.",
        )


default_collate_fn_map: CollateMap = {
    Tensor: collate_tensors,
    np.ndarray: collate_arrays,
    (np.bool_, np.number, np.object_): collate_numpy_scalars,
    float: collate_floats,
    int: collate_ints,
    str: collate_strings,
    bytes: collate_strings,
}


def collate(batch: Sequence[Any], *, collate_fn_map: CollateMap | None = None) -> Any:
    """Collates by a map from element type to function; containers are walked through.

    Args:
        batch: the samples.
        collate_fn_map: type (or tuple of types) to ``fn(batch, *, collate_fn_map)``; the exact
            type is looked up first, then the keys in their order by ``isinstance``.

    Raises:
        TypeError: an element's type is neither in the map nor a container.
        RuntimeError: unequal shapes or lengths, with the sample's index and both shapes.
    """
    try:
        return _collate(batch, collate_fn_map)
    except _MismatchError as mismatch:
        problem = mismatch
    return problem.fail()


def _find(kind: type, functions: CollateMap | None) -> Callable[..., Any] | None:
    if not functions:
        return None
    if kind in functions:
        return functions[kind]
    for key, function in functions.items():
        if issubclass(kind, key):
            return function
    return None


def _field(samples: Sequence[Any], label: str, functions: CollateMap | None) -> Any:
    try:
        return _collate(samples, functions)
    except _MismatchError as mismatch:
        mismatch.where = label + mismatch.where
        raise


def _collate(batch: Sequence[Any], functions: CollateMap | None) -> Any:
    first = batch[0]
    function = _find(type(first), functions)
    if function is not None:
        return function(batch, collate_fn_map=functions)
    if isinstance(first, Mapping):
        return _collate_mapping(batch, functions)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        columns = zip(*batch, strict=True)
        named = zip(first._fields, columns, strict=True)
        return type(first)(*(_field(c, f".{name}", functions) for name, c in named))
    if isinstance(first, Sequence):
        return _collate_sequence(batch, functions)
    raise _MismatchError(
        ArgumentTypeError,
        f"cannot put {type(first).__module__}.{type(first).__qualname__} into a batch",
        "Samples may hold tensors, arrays, numbers, strings, dicts, tuples and lists; for other "
        "types pass your own collate_fn.",
    )


def _collate_mapping(batch: Sequence[Any], functions: CollateMap | None) -> Any:
    first = batch[0]
    for index, sample in enumerate(batch):
        missing = [key for key in first if key not in sample]
        if missing:
            raise _MismatchError(
                _SampleKeyError,
                f"sample {index} lacks the keys {missing}, which sample 0 has",
                "Return the same keys for every sample.",
            )
    fields = {
        key: _field([sample[key] for sample in batch], f"[{key!r}]", functions) for key in first
    }
    if type(first) is dict:
        return fields
    try:  # keep the mapping's type, and its other attributes where it can be copied
        if isinstance(first, MutableMapping):
            clone = copy.copy(first)
            clone.update(fields)
            return clone
        return type(first)(fields)  # type: ignore[call-arg]
    except TypeError:
        return fields


class _SampleKeyError(ArgumentError, KeyError):
    """A sample without a key that sample 0 has."""

    __str__ = Exception.__str__


def _collate_sequence(batch: Sequence[Any], functions: CollateMap | None) -> Any:
    first = batch[0]
    for index, sample in enumerate(batch):
        if len(sample) != len(first):
            raise _MismatchError(
                ShapeError,
                f"each element in list of batch should be of equal size, but sample {index} has "
                f"{len(sample)} elements and sample 0 has {len(first)}",
                _PAD,
            )
    columns = zip(*batch, strict=True)
    fields = [_field(c, f"[{place}]", functions) for place, c in enumerate(columns)]
    if isinstance(first, (tuple, list)) and type(first) in (tuple, list):
        return fields  # a tuple becomes a list, as in PyTorch
    try:
        if isinstance(first, MutableSequence):
            clone = copy.copy(first)
            clone[:] = fields
            return clone
        if isinstance(first, tuple):
            return fields
        return type(first)(fields)  # type: ignore[call-arg]
    except TypeError:
        return fields


def default_collate(batch: Sequence[Any]) -> Any:
    """Stacks samples into a batch, the DataLoader's default.

    Tensors, arrays and numbers become tensors with a new first dimension; strings and bytes stay
    lists; dicts, named tuples, tuples (as lists) and lists are collated field by field.

    Raises:
        RuntimeError: unequal shapes or lengths; the message has the sample's index, the field and
            both shapes.
        TypeError: an element that cannot be put into a tensor.

    >>> batch = default_collate([{"x": 1, "name": "a"}, {"x": 2, "name": "b"}])
    >>> batch["x"].numpy().tolist(), batch["name"]
    ([1, 2], ['a', 'b'])
    >>> import numpy as np
    >>> default_collate([(np.zeros(3), 0), (np.zeros(4), 1)])
    Traceback (most recent call last):
    pyframe.errors.ShapeError: default_collate: at sample[0]: sample 1 has shape [4] but sample 0 \
has shape [3]. Pad or crop the samples to one shape, or pass your own collate_fn.
    """
    if len(batch) == 0:
        fail(ArgumentError, "default_collate", "the batch is empty")
    return collate(batch, collate_fn_map=default_collate_fn_map)


def map_leaves(function: Callable[[Any], Any], data: Any) -> Any:
    """Applies ``function`` to everything in ``data`` that is not a container or string.

    >>> map_leaves(lambda v: v + 1, {"a": [1, 2], "b": "text"})
    {'a': [2, 3], 'b': 'text'}
    """
    if isinstance(data, (str, bytes, Tensor, np.ndarray)):
        return data if isinstance(data, (str, bytes)) else function(data)
    if isinstance(data, Mapping):
        fields = {key: map_leaves(function, value) for key, value in data.items()}
        if type(data) is dict:
            return fields
        try:
            if isinstance(data, MutableMapping):
                clone = copy.copy(data)
                clone.update(fields)
                return clone
            return type(data)(fields)  # type: ignore[call-arg]
        except TypeError:
            return fields
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(map_leaves(function, value) for value in data))
    if isinstance(data, tuple):
        return [map_leaves(function, value) for value in data]
    if isinstance(data, Sequence):
        values = [map_leaves(function, value) for value in data]
        try:
            return values if type(data) is list else type(data)(values)  # type: ignore[call-arg]
        except TypeError:
            return values
    return function(data)


def default_convert(data: Any) -> Any:
    """Makes tensors of the NumPy arrays and scalars in a sample, and leaves the rest as it is.

    The DataLoader's default when ``batch_size=None``.

    >>> import numpy as np
    >>> type(default_convert([np.zeros(2), "a", 3])[0]).__name__, default_convert("a")
    ('Tensor', 'a')
    """
    return map_leaves(_convert_leaf, data)


def _convert_leaf(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "SUOV":
        return from_numpy(np.asarray(value))
    return value
