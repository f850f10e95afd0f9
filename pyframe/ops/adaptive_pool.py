"""Adaptive pooling: the output's size is given, windows follow from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ..dtypes import is_floating
from ..errors import DtypeError, ShapeError, fail
from ..op.windows import product, spatial
from ..tensor.register import composite
from .adaptive_max_pool import adaptive_max_pool_with_indices
from .avg_pool import avg_pool1d, avg_pool2d, avg_pool3d
from .interpolate import resample
from .max_pool import max_pool1d, max_pool2d, max_pool3d

_AVERAGE = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
_MAXIMUM = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}


@lru_cache(maxsize=1024)  # the same tuple each time, which ops recognise at once
def _even_windows(size: tuple, out: tuple) -> tuple | None:
    """The windows' lengths if all are of one, else ``None``."""
    if any(s % o for s, o in zip(size, out, strict=True)):
        return None
    return tuple(s // o for s, o in zip(size, out, strict=True))


def _sizes(name: str, n: int, input: Any, output_size: Any) -> tuple[tuple, tuple]:
    """The image's lengths before and after."""
    if len(input.shape) not in (n + 1, n + 2):
        fail(
            ShapeError,
            name,
            f"expected input with {n + 2} dimensions (batched) or {n + 1} (unbatched)",
            input=input,
        )
    size = tuple(input.shape[-n:])
    if isinstance(output_size, (tuple, list)):
        if len(output_size) == n:
            pairs = zip(output_size, size, strict=True)
            output_size = tuple(s if o is None else o for o, s in pairs)
        elif len(output_size) != 1:
            fail(
                ShapeError, name, f"output_size must be one integer or {n}", output_size=output_size
            )
    elif output_size is None:
        output_size = size
    if not product(size):
        fail(ShapeError, name, "only the batch dimension of input may be empty", input=input)
    return size, spatial(name, "output_size", output_size, n, 0)


def _average(n: int) -> Callable:
    name = f"adaptive_avg_pool{n}d"

    def adaptive_avg_pool(input: Any, output_size: Any) -> Any:
        size, out = _sizes(name, n, input, output_size)
        if not is_floating(input.dtype):
            fail(DtypeError, name, "input must be floating point", "Use .float().", input=input)
        if not product(out):
            return input[..., *(slice(0, o) for o in out)] * 0
        kernel = _even_windows(size, out)
        if kernel is not None:
            return _AVERAGE[n](input, kernel)
        return resample(input, out, "area", False, (None,) * n)

    adaptive_avg_pool.__name__ = adaptive_avg_pool.__qualname__ = name
    adaptive_avg_pool.__doc__ = f"""Mean over the windows that cut {n}-D images into so many parts.

    Window i of a dimension goes from ⌊i · s / o⌋ to ⌈(i + 1) · s / o⌉.

    Args:
        input: (batch, channels, {n} dimensions), or without the batch; floating point.
        output_size: lengths of the output, one or {n}; ``None`` keeps a dimension.

    Raises:
        ShapeError: if input or output_size does not fit.
        DtypeError: if input is not floating point.
    """
    export = ("pyframe", "functional") if n == 1 else ("functional",)
    return composite(export=export)(adaptive_avg_pool)


adaptive_avg_pool1d = _average(1)
adaptive_avg_pool2d = _average(2)
adaptive_avg_pool3d = _average(3)


def _maximum(n: int) -> Callable:
    name = f"adaptive_max_pool{n}d"

    def adaptive_max_pool(input: Any, output_size: Any, return_indices: bool = False) -> Any:
        size, out = _sizes(name, n, input, output_size)
        if not product(out):
            fail(ShapeError, name, "output_size must be at least 1", output_size=output_size)
        kernel = _even_windows(size, out)
        if kernel is not None:
            return _MAXIMUM[n](input, kernel, return_indices=return_indices)
        y, indices = adaptive_max_pool_with_indices(input, out)
        return (y, indices) if return_indices else y

    adaptive_max_pool.__name__ = adaptive_max_pool.__qualname__ = name
    adaptive_max_pool.__doc__ = f"""Maximum over windows that cut {n}-D images into so many parts.

    Args:
        input: (batch, channels, {n} dimensions), or without the batch.
        output_size: lengths of the output, one or {n}; ``None`` keeps a dimension.
        return_indices: also return the maxima's indices in the flat images.

    Raises:
        ShapeError: if input or output_size does not fit.
    """
    export = ("pyframe", "functional") if n == 1 else ("functional",)
    return composite(export=export)(adaptive_max_pool)


adaptive_max_pool1d = _maximum(1)
adaptive_max_pool2d = _maximum(2)
adaptive_max_pool3d = _maximum(3)
