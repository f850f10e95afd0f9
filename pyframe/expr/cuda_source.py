"""Scalar functions as CUDA kernels over arrays: the loops are in kernels/pyframe/pointwise.cuh."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import get_default_dtype
from .c_source import c_name, c_source, c_type, preamble
from .node import Index, PhiloxBits
from .trace import ScalarFunction
from .typing import Program, program

_STORAGE = {
    "bool": "bool",
    "uint8": "unsigned char",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "float16": "pf::float16",
    "bfloat16": "pf::bfloat16",
    "float32": "float",
    "float64": "double",
}
_CODES = {"bool": "?", "int64": "q", "float64": "d"}


@cache
def storage_type(dtype: Any) -> str:
    """The CUDA type in which values of ``dtype`` lie in memory.

    >>> storage_type(np.dtype("float16")), storage_type(np.dtype("int64"))
    ('pf::float16', 'long long')
    """
    return _STORAGE[np.dtype(dtype).name]


def scalar_codes(typed: Program) -> str:
    """The struct codes of the runtime scalars."""
    return "".join(_CODES[d.name] for d in typed.scalars)


def uses_index(typed: Program) -> bool:
    """Whether the value depends on the element's place."""
    return any(isinstance(s.node, (Index, PhiloxBits)) for s in typed.steps)


class Body(NamedTuple):
    """An expression for given dtypes, ready for entries of any layout.

    ``text`` defines a namespace called ``name``; ``parameters`` and ``codes`` are those of the
    operands (outputs first) and runtime scalars, in an entry's declaration and as struct codes.
    """

    name: str
    text: str
    parameters: tuple[str, ...]
    arguments: tuple[str, ...]
    codes: str
    storage: tuple[np.dtype, ...]
    operands: int
    pack: int
    uses_index: bool


def prelude() -> str:
    """What the texts of bodies need before them, once per file."""
    return f'#include "pyframe/pointwise.cuh"\n{preamble("cuda")}'


def body(function: ScalarFunction, dtypes: tuple[np.dtype, ...], kinds: tuple[type, ...]) -> Body:
    """The :class:`Body` of a function for inputs of ``dtypes``; cached on the function."""
    key = ("cuda", dtypes, kinds, get_default_dtype())
    found = function.cache.get(key)
    if found is None:
        found = function.cache[key] = _body(function, dtypes, kinds)
    return found


def _body(function: ScalarFunction, dtypes: tuple, kinds: tuple) -> Body:
    typed = program(function, dtypes, kinds)
    indexed = uses_index(typed)
    several = isinstance(function.root, tuple)
    outs = [(f"y{i}", storage_type(d)) for i, d in enumerate(typed.storage)]
    ins = [(f"x{i}", storage_type(d)) for i, d in enumerate(dtypes)]
    scalars = [(f"s{i}", c_type(d)) for i, d in enumerate(typed.scalars)]
    fields = [f"{t}* {n}" for n, t in outs] + [f"const {t}* {n}" for n, t in ins]
    parameters = tuple(fields + [f"{t} {n}" for n, t in scalars])

    count = len(outs) + len(ins)

    def loop(places: list[str]) -> str:
        """Loads, computes and stores V elements; ``places`` has the operands' offsets."""
        lines = [
            f"const auto a{i} = pf::take<V>(x{i} + {place}, splat >> {i + len(outs)} & 1);"
            for i, place in enumerate(places[len(outs) :])
        ]
        lines += [f"pf::Pack<{t}, V> r{i};" for i, (_, t) in enumerate(outs)]
        given = [f"pf::widen(a{i}.values[j])" for i in range(len(ins))] + [n for n, _ in scalars]
        if indexed:
            given.append("index + j")
        if several:
            inner = [f"{c_type(d)} o{i};" for i, d in enumerate(typed.outputs)]
            given += [f"&o{i}" for i in range(len(outs))]
            results = [f"o{i}" for i in range(len(outs))]
        else:
            inner, results = [f"const {c_type(typed.outputs[0])} o0 ="], ["o0"]
        inner.append(f"{c_name(function.name)}({', '.join(given)});")
        inner += [
            f"r{i}.values[j] = pf::narrow<{t}>({r});"
            for i, ((_, t), r) in enumerate(zip(outs, results, strict=True))
        ]
        lines += ["#pragma unroll", "for (int j = 0; j < V; ++j) {", *inner, "}"]
        # All loads come before the stores, so that an output may be one of the inputs.
        lines += [
            f"pf::store(y{i} + {place}, r{i});" for i, place in enumerate(places[: len(outs)])
        ]
        return "\n".join(f"    {line}" for line in lines)

    at = [f"at[{k}]" for k in range(count)]
    flat = [f"(splat >> {k} & 1 ? 0 : index)" for k in range(count)]
    text = f"""{c_source(function, dtypes, "cuda", kinds)}
struct Body {{
{"".join(f"  {p};{chr(10)}" for p in parameters)}
  template <int V>
  __device__ __forceinline__ void flat(long long index, [[maybe_unused]] unsigned splat) const {{
{loop(flat)}
  }}
  template <int V, class Index>
  __device__ __forceinline__ void strided([[maybe_unused]] long long index, const Index* at,
                                          [[maybe_unused]] unsigned splat) const {{
{loop(at)}
  }}
}};
"""
    name = f"{c_name(function.name)}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    return Body(
        name,
        f"namespace {name} {{\n{text}}}\n",
        parameters,
        tuple(n for n, _ in (*outs, *ins, *scalars)),
        "P" * count + scalar_codes(typed),
        typed.storage,
        count,
        16 // max(d.itemsize for d in (*typed.storage, *dtypes)),
        indexed,
    )


def flat_entry(body: Body, pack: int) -> tuple[str, str, str]:
    """Name, text and signature of an entry for contiguous operands: ``(n, splat, *operands)``."""
    entry = f"flat{pack}"
    text = f"""namespace {body.name} {{
__global__ void __launch_bounds__(256, 2) {entry}(long long n, unsigned splat, {_join(body)}) {{
  pf::pointwise_flat<{pack}>(Body{{{", ".join(body.arguments)}}}, n, splat);
}}
}}
"""
    return f"{body.name}::{entry}", text, "qI" + body.codes


def strided_entry(body: Body, pack: int, dims: int, wide: bool) -> tuple[str, str, str]:
    """The same for any strides: ``(count, *shape, *multipliers, *shifts, *strides, splat, …)``.

    The strides of an operand are next to each other. With ``wide``, indices have 64 bits.
    """
    index = "long long" if wide else "int"
    entry = f"strided{pack}_{dims}{'_wide' if wide else ''}"
    each, operands = range(dims), range(body.operands)
    strides = [[f"t{k}_{d}" for d in each] for k in operands]
    given = [f"{index} count"]
    given += [f"{index} n{d}" for d in each]
    given += [f"unsigned m{d}" for d in each] + [f"int h{d}" for d in each]
    given += [f"{index} {t}" for row in strides for t in row]
    divisors = ", ".join(f"{{static_cast<unsigned>(n{d}), m{d}, h{d}}}" for d in each)
    shape = ", ".join(f"n{d}" for d in each)
    rows = ", ".join(f"{{{', '.join(row)}}}" for row in strides)
    text = f"""namespace {body.name} {{
__global__ void __launch_bounds__(256, 2)
    {entry}({", ".join(given)}, unsigned splat, {_join(body)}) {{
  const pf::Geometry<{dims}, {body.operands}, {index}> geometry{{
      count, {{{shape}}}, {{{divisors}}}, {{{rows}}}}};
  pf::pointwise_strided<{pack}>(Body{{{", ".join(body.arguments)}}}, geometry, splat);
}}
}}
"""
    code = "q" if wide else "i"
    codes = code * (1 + dims) + "I" * dims + "i" * dims + code * dims * body.operands + "I"
    return f"{body.name}::{entry}", text, codes + body.codes


def _join(body: Body) -> str:
    return ", ".join(body.parameters)
