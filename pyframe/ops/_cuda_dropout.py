"""The CUDA kernel of dropout: kernels/dropout.cu."""

from __future__ import annotations

import math
from typing import Any

from ..backend import backend_of
from ..backend.capture import philox_arguments
from ..backend.cuda_file import CudaFile
from ..backend.cuda_geometry import address
from ..op.cuda_arrays import TYPES, ceil_div, instances, not_cuda_floats
from ._cuda_copy import packed
from ._dropped import keep_threshold, kept_scale

DROPOUT = CudaFile("dropout.cu", instances("dropout<{}>", TYPES.values()))


def not_cuda_dropout(input: Any, **params: Any) -> str:
    """Why :func:`dropout` cannot run."""
    return not_cuda_floats(input)


def dropout(
    input: Any,
    *,
    p: float = 0.5,
    lead: int | None = None,
    seed: Any = None,
    offset: Any = None,
) -> Any:
    """See ``masked_dropout``."""
    x = packed(input)
    y = backend_of(x).empty(x.shape, x.dtype)
    if x.size:
        inner = 1 if lead is None else math.prod(x.shape[lead:])
        threads = min(256, 32 * ceil_div(x.size, 128))
        words, key, first = philox_arguments(seed, offset)
        args = (
            *(x, y, words, x.size, inner, key, first),
            *(keep_threshold(p), kept_scale(p)),
            int(address(x) % 16 == 0 and address(y) % 16 == 0),
        )
        grid, block = (ceil_div(x.size, 4 * threads),), (threads,)
        DROPOUT.launch(f"dropout<{TYPES[x.dtype]}>", "PPPqqQQQdi", grid, block, args)
    return y
