"""Scalar expressions of pointwise ops: tracing, derivatives, typing, NumPy and C code (L2)."""

from typing import TYPE_CHECKING, Any

from .c_source import c_name, c_source, c_type, preamble
from .derivative import vjp
from .functions import *
from .functions import __all__ as _functions
from .node import (
    Call,
    Const,
    Expr,
    Index,
    Input,
    PhiloxBits,
    Scalar,
    as_expr,
    const,
    index,
    input_,
    philox_bits,
    scalar,
    topological,
)
from .numpy_eval import compile_numpy, numpy_source, ufunc_of
from .primitives import PRIMITIVES, Primitive
from .simplify import count
from .trace import ScalarFunction, trace
from .typing import Program, Step, infer, program, scalar_kinds, typed

__all__ = [
    "PRIMITIVES",
    "Call",
    "Const",
    "Expr",
    "Index",
    "Input",
    "PhiloxBits",
    "Primitive",
    "Program",
    "Scalar",
    "ScalarFunction",
    "Step",
    "as_expr",
    "c_name",
    "c_source",
    "c_type",
    "compile_numpy",
    "const",
    "count",
    "index",
    "infer",
    "input_",
    "numpy_source",
    "philox_bits",
    "preamble",
    "program",
    "scalar",
    "scalar_kinds",
    "topological",
    "trace",
    "typed",
    "ufunc_of",
    "vjp",
    *_functions,
]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # those of functions.py come from a table
