"""All that an op of one's own with kernels of one's own is made of (L2).

See ``examples/own_cuda_kernel.py`` and ``examples/own_numba_kernel.py``. The finished record is
entered by ``pyframe.register``.
"""

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from .cuda_kernel import cuda_kernel
from .numba_kernel import launch as launch_numba
from .numba_kernel import numba_kernel
from .record import Cost, Failing, Kernel, Op, Sample

__all__ = [
    "Cost",
    "CudaFile",
    "Failing",
    "Kernel",
    "Op",
    "Sample",
    "backend_of",
    "cuda_kernel",
    "launch_numba",
    "numba_kernel",
]
