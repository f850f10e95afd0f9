"""pyframe: tensors with gradients on NumPy and CuPy, PyTorch's names, kernels of its own."""

from __future__ import annotations

import importlib as _importlib
import warnings as _warnings
from typing import Any as _Any

# Overflow to inf and 0/0 are ordinary results here, as in PyTorch. np.errstate would cost 1.2 µs
# per op, so NumPy's warnings are dropped where they come from our own frames.
_warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"pyframe(\.|$)")

from . import dtypes, errors
from .backend.native import num_threads as get_num_threads
from .backend.native import set_num_threads
from .config import get_float32_matmul_precision, set_float32_matmul_precision
from .device import Device as device
from .device import get_default_device, set_default_device
from .dtypes import (
    bfloat16,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    result_type,
    set_default_dtype,
    uint8,
)
from .memory_formats import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    memory_format,
    preserve_format,
)
from .op.autotune import is_autotune_enabled, set_autotune
from .op.choice import kernels
from .random import (
    Generator,
    default_generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from .tensor import (
    Size,
    Tensor,
    as_tensor,
    from_dlpack,
    from_numpy,
    make,
    pointwise,
    register,
    to_dlpack,
)
from .tensor.printing import set_printoptions

from . import autograd, ops  # isort: skip
from .autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .autograd.explain import explain
from .op.registry import exported as _exported

__version__ = "0.1.0"

dtype = dtypes.np.dtype
tensor_on = make
is_tensor = lambda value: isinstance(value, Tensor)  # noqa: E731

# Imported when first used: together they cost as much as the rest.
_LAZY = (
    "amp",
    "nn",
    "optim",
    "data",
    "utils",
    "testing",
    "io",
    "cuda",
    "train",
    "cli",
    "interop",
    "parallel",
)
_LAZY_NAMES = {
    "load": "io",
    "save": "io",
    "autocast": "amp",
    "get_autocast_dtype": "amp",
    "is_autocast_cache_enabled": "amp",
    "is_autocast_enabled": "amp",
}


def __getattr__(name: str) -> _Any:
    if name in _LAZY:
        return _importlib.import_module(f".{name}", __name__)
    if name in _LAZY_NAMES:
        return getattr(_importlib.import_module(f".{_LAZY_NAMES[name]}", __name__), name)
    raise AttributeError(f"module 'pyframe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_LAZY_NAMES})


globals().update(_exported("pyframe"))

# PyTorch's short names of dtypes; last, since they shadow Python's own.
globals().update(
    {
        "bool": dtypes.bool_,
        "float": float32,
        "double": float64,
        "half": float16,
        "int": int32,
        "long": int64,
        "short": int16,
    }
)
