"""Op records, their registry and the choice of kernels (L2). Imported by L3 and up."""

from .choice import kernels
from .record import Cost, Failing, Input, Kernel, Op, Param, Sample

__all__ = ["Cost", "Failing", "Input", "Kernel", "Op", "Param", "Sample", "kernels"]
