"""Scalar functions as C, C++ or CUDA source.

Everything that C leaves open is defined here: integer ``+ - * <<`` and negation wrap around;
integer division and remainder by 0 give 0 and INT_MIN / -1 is INT_MIN; a float that does not fit
an integer type (or is nan) converts as on x86: to the type's minimum for int32 and int64, and
through int32 for narrower types. Half types are float: the caller converts on load and store.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import is_floating
from ..errors import ArgumentError, fail
from .node import Call, Const, Expr, Index, Input, PhiloxBits, Scalar
from .numpy_eval import code_for
from .trace import ScalarFunction
from .typing import Program, Step, program, wrap

_TYPES = {
    "bool": "bool",
    "uint8": "unsigned char",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "float16": "float",
    "bfloat16": "float",
    "float32": "float",
    "float64": "double",
}


def c_type(dtype: Any) -> str:
    """The C type in which values of ``dtype`` are computed.

    >>> c_type(np.dtype("int64")), c_type(np.dtype("float16"))
    ('long long', 'float')
    """
    return _TYPES[np.dtype(dtype).name]


_HEAD = {
    "c": """\
#include <math.h>
#include <stdbool.h>
#define PF_FUNCTION static inline
#define PF_INF ((double)INFINITY)
#define PF_NAN ((double)NAN)
""",
    "cuda": """\
#define PF_FUNCTION static __device__ __forceinline__
#define PF_INF (__longlong_as_double(0x7ff0000000000000LL))
#define PF_NAN (__longlong_as_double(0x7ff8000000000000LL))
""",
}

_INTEGER = """\
PF_FUNCTION long long pf_truncdiv_i(long long a, long long b) {
    return b == 0 ? 0 : b == -1 ? (long long)(0 - (unsigned long long)a) : a / b;
}
PF_FUNCTION long long pf_fmod_i(long long a, long long b) {
    return b == 0 || b == -1 ? 0 : a % b;
}
PF_FUNCTION long long pf_remainder_i(long long a, long long b) {
    long long r = pf_fmod_i(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
PF_FUNCTION long long pf_floordiv_i(long long a, long long b) {
    return pf_truncdiv_i(a, b) - (pf_fmod_i(a, b) != 0 && (a < 0) != (b < 0));
}
PF_FUNCTION long long pf_pow_i(long long a, long long b) {
    unsigned long long r = 1, f = (unsigned long long)a;
    if (b < 0) return a == 1 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : 0;
    for (; b; b >>= 1, f *= f) if (b & 1) r *= f;
    return (long long)r;
}
PF_FUNCTION long long pf_to_i64(double x) {
    return x >= -9223372036854775808.0 && x < 9223372036854775808.0
        ? (long long)x : -9223372036854775807LL - 1;
}
PF_FUNCTION int pf_to_i32(double x) {
    return x > -2147483649.0 && x < 2147483648.0 ? (int)x : -2147483647 - 1;
}
PF_FUNCTION unsigned pf_philox_bits(unsigned long long key, unsigned long long offset,
                                    unsigned long long index) {
@PHILOX@
}
"""

_FLOAT = """\
PF_FUNCTION T pf_remainderS(T a, T b) {
    T r = fmodS(a, b);
    return r != 0 && (b < 0) != (r < 0) ? r + b : r;
}
PF_FUNCTION T pf_floordivS(T a, T b) {
    T r, q, f;
    if (b == 0) return a / b;
    r = fmodS(a, b);
    q = (a - r) / b;
    if (r != 0 && (b < 0) != (r < 0)) q -= 1;
    if (q == 0) return copysignS((T)0, a / b);
    f = floorS(q);
    return q - f > (T)0.5 ? f + 1 : f;
}
PF_FUNCTION T pf_softplusS(T x) {
    return (x != x || x > 0 ? x : 0) + log1pS(expS(-fabsS(x)));
}
PF_FUNCTION T pf_logaddexpS(T a, T b) {
    T d = a - b;
    if (a == b) return a + (T)0.693147180559945309417;
    return d > 0 ? a + log1pS(expS(-d)) : d <= 0 ? b + log1pS(expS(d)) : d;
}
PF_FUNCTION T pf_erfinvS(T given) {
    double x = fabs((double)given), rest = 1 - x, w, y, error;
    int i;
    if (!(x < 1)) return x == 1 ? copysignS((T)PF_INF, given) : (T)PF_NAN;
    w = -log(rest * (2 - rest));
    if (w < 5) {
        const double c[9] = {@CENTRAL@};
        w -= 2.5;
        for (y = c[0], i = 1; i < 9; i++) y = y * w + c[i];
    } else {
        const double c[9] = {@TAIL@};
        w = sqrt(w) - 3;
        for (y = c[0], i = 1; i < 9; i++) y = y * w + c[i];
    }
    y *= x;
    for (i = 0; i < 3; i++) {
        error = y < 0.46875 ? erf(y) - x : rest - erfc(y);
        error /= 1.12837916709551257390 * exp(-y * y);
        y -= error / (1 + y * error);
    }
    return copysignS((T)y, given);
}
"""

# Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011): Philox4x32-10. Block
# index / 4 of the stream, word index % 4; the counter is (block, offset), the key is the key.
_PHILOX = """\
    unsigned long long block = index >> 2;
    unsigned c0 = (unsigned)block, c1 = (unsigned)(block >> 32);
    unsigned c2 = (unsigned)offset, c3 = (unsigned)(offset >> 32);
    unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
    int round;
    for (round = 0; round < 10; round++) {
        unsigned long long p0 = 0xD2511F53ULL * c0, p1 = 0xCD9E8D57ULL * c2;
        c0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned)p1;
        c2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned)p0;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return index & 2 ? (index & 1 ? c3 : c2) : (index & 1 ? c1 : c0);"""


def preamble(lang: str = "c") -> str:
    """The helper functions that :func:`c_source` calls; once per file, ``lang`` "c" or "cuda".

    The C text is C99 and C++. The CUDA text needs no header.
    """
    from .arrays import _CENTRAL, _TAIL

    if lang not in _HEAD:
        fail(ArgumentError, "preamble", f"lang must be 'c' or 'cuda', not {lang!r}")
    text = _HEAD[lang] + _INTEGER.replace("@PHILOX@", _PHILOX)
    for ctype, suffix in (("float", "f"), ("double", "")):
        part = _FLOAT
        for name in (
            "pf_remainder",
            "pf_floordiv",
            "pf_softplus",
            "pf_logaddexp",
            "pf_erfinv",
            "fmod",
            "copysign",
            "floor",
            "log1p",
            "exp",
            "fabs",
        ):
            part = part.replace(f"{name}S(", f"{name}{suffix}(")
        part = part.replace("@CENTRAL@", ", ".join(map(repr, _CENTRAL)))
        part = part.replace("@TAIL@", ", ".join(map(repr, _TAIL)))
        text += _replace_word(part, "T", ctype)
    return text


def _replace_word(text: str, word: str, new: str) -> str:
    return re.sub(rf"\b{word}\b", new, text)


def c_source(
    function: ScalarFunction,
    dtypes: Sequence[Any],
    lang: str = "c",
    scalars: Sequence[type] | None = None,
) -> str:
    """A scalar C function of the same name: ``OUT name(IN x, ..., scalars[, index])``.

    Scalars are ``bool``, ``long long`` or ``double``; a function of the linear index takes it as
    its last parameter, a ``long long``. With several outputs it returns nothing and has a pointer
    per output (``out0``, ``out1``, ...) at the end.

    >>> from pyframe.expr import exp, trace
    >>> print(c_source(trace(lambda x, *, a: exp(a * x), "f"), ["float32"]))
    PF_FUNCTION float f(float x, double a) {
        const float t0 = (float)a;
        const float t1 = (t0 * x);
        const float t2 = expf(t1);
        return t2;
    }
    <BLANKLINE>
    """
    if lang not in _HEAD:
        fail(ArgumentError, "c_source", f"lang must be 'c' or 'cuda', not {lang!r}")
    typed = program(function, dtypes, scalars)
    return _Emitter(function, typed).source()


class _Emitter:
    def __init__(self, function: ScalarFunction, typed: Program) -> None:
        self.function = function
        self.typed = typed
        self.names: dict[Expr, str] = {}

    def source(self) -> str:
        typed, function = self.typed, self.function
        parameters = []
        safe = {n: c_name(n) for n in (*function.inputs, *function.scalars)}
        for names, dtypes in ((function.inputs, typed.inputs), (function.scalars, typed.scalars)):
            parameters += [f"{c_type(d)} {safe[n]}" for n, d in zip(names, dtypes, strict=True)]
        if any(isinstance(s.node, (Index, PhiloxBits)) for s in typed.steps):
            parameters.append("long long index")
        lines: list[str] = []
        for step in typed.steps:
            node = step.node
            if isinstance(node, (Input, Scalar)):
                self.names[node] = safe[node.name]
            elif isinstance(node, Index):
                self.names[node] = "index"
            else:
                name = f"t{len(lines)}"
                lines.append(f"const {c_type(step.dtype)} {name} = {self.step(step)};")
                self.names[node] = name
        results = [self.operand(r, d) for r, d in zip(typed.roots, typed.outputs, strict=True)]
        if isinstance(function.root, tuple):
            out = "void"
            for i, (result, dtype) in enumerate(zip(results, typed.outputs, strict=True)):
                parameters.append(f"{c_type(dtype)} *out{i}")
                lines.append(f"*out{i} = {result};")
        else:
            out = c_type(typed.outputs[0])
            lines.append(f"return {results[0]};")
        body = "".join(f"    {line}\n" for line in lines)
        head = ", ".join(parameters) or "void"
        return f"PF_FUNCTION {out} {c_name(function.name)}({head}) {{\n{body}}}\n"

    def operand(self, node: Expr, dtype: np.dtype) -> str:
        return literal(node.value, dtype) if isinstance(node, Const) else self.names[node]

    def step(self, step: Step) -> str:
        node = step.node
        operands = [self.operand(a, d) for a, d in zip(node.args, step.operands, strict=True)]
        if isinstance(node, PhiloxBits):
            key, offset = [f"(unsigned long long){o}" for o in operands]
            return f"pf_philox_bits({key}, {offset}, (unsigned long long)index)"
        assert isinstance(node, Call)
        if node.primitive.dtype_rule == "cast":
            return cast_code(operands[0], step.operands[0], step.dtype)
        if step.weak:  # operands have their own Python kinds
            own = [self.own(a) for a in node.args]
            operands = [
                literal(a.value, d) if isinstance(a, Const) else cast_code(o, have, d)
                for a, o, have, d in zip(node.args, operands, own, step.operands, strict=True)
            ]
        dtype = step.operands[-1]
        code = code_for(node.primitive.c, dtype)
        return code.format(
            *operands,
            T=c_type(dtype),
            U="unsigned long long" if dtype.itemsize == 8 else "unsigned",
            f="f" if dtype.itemsize == 4 else "",
        )

    def own(self, node: Expr) -> np.dtype:
        for step in self.typed.steps:
            if step.node is node:
                return step.dtype
        return np.dtype(np.float64)


def cast_code(value: str, have: np.dtype, want: np.dtype) -> str:
    """C code that converts ``value``."""
    if have == want:
        return value
    if want.kind == "b":
        return f"({value} != 0)"
    if is_floating(have) and not is_floating(want):
        through = "pf_to_i64" if want.itemsize == 8 else "pf_to_i32"
        return f"({c_type(want)}){through}({value})"
    return f"({c_type(want)}){value}"


def literal(value: bool | int | float, dtype: np.dtype) -> str:
    """A C literal of the compute dtype.

    >>> literal(1, np.dtype("float32")), literal(-1, np.dtype("uint8"))
    ('1.0f', '((unsigned char)255)')
    """
    if is_floating(dtype):
        value = float(value)
        if math.isnan(value) or math.isinf(value):
            name = "PF_NAN" if math.isnan(value) else ("PF_INF" if value > 0 else "-PF_INF")
            return f"(({c_type(dtype)}){name})"
        if dtype.itemsize == 4:
            with np.errstate(over="ignore"):
                if math.isinf(np.float32(value)):
                    return literal(math.copysign(math.inf, value), dtype)
            text = f"{value!r}f"
        else:
            text = repr(value)
        return f"({text})" if text[0] == "-" else text
    if dtype.kind == "b":
        return str(int(bool(value)))
    value = wrap(int(value), dtype)
    if dtype.itemsize == 8:
        return "(-9223372036854775807LL - 1)" if value == -(2**63) else f"({value}LL)"
    return f"(({c_type(dtype)}){value})" if value >= 0 else f"(({c_type(dtype)})({value}))"


def c_name(name: str) -> str:
    """The C name of a function or parameter: ``name``, or ``name_`` where C has that name.

    >>> c_name("silu"), c_name("exp"), c_name("a-b")
    ('silu', 'exp_', 'a_b')
    """
    text = "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
    taken = text in _KEYWORDS or (text[:1] == "t" and text[1:].isdigit()) or text[:3] == "out"
    return f"{text}_" if taken or text[:1].isdigit() else text


_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """auto break case char const continue default do double else enum extern float for goto if
        inline int long register restrict return short signed sizeof static struct switch typedef
        union unsigned void volatile while bool true false class delete new template this index
        namespace exp exp2 expm1 log log2 log10 log1p sqrt sin cos tan asin acos atan sinh cosh
        tanh asinh acosh atanh atan2 hypot copysign erf erfc floor ceil rint trunc round pow fmod
        fmax fmin abs fabs gamma y0 y1 j0 j1 jn yn div""",
    )
)
