"""Op records, their registry and the choice of kernels (L2). Imported by L3 and up.

What is exported here is what an op of one's own with kernels of one's own is made of; see
``examples/own_cuda_kernel.py`` and ``examples/own_numba_kernel.py``.
"""

from ..backend import backend_of
from ..backend.cuda_file import CudaFile
from .choice import kernels
from .cuda_kernel import cuda_kernel
from .numba_kernel import launch as launch_numba
from .numba_kernel import numba_kernel
from .record import Cost, Failing, Input, Kernel, Op, Param, Sample

__all__ = [
    "Cost",
    "CudaFile",
    "Failing",
    "Input",
    "Kernel",
    "Op",
    "Param",
    "Sample",
    "backend_of",
    "cuda_kernel",
    "kernels",
    "launch_numba",
    "numba_kernel",
]
