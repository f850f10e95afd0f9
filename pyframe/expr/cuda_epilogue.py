"""Scalar functions as the epilogues of CUDA products: what becomes of a sum before it is written.

The function's first input is the sum; the others are arrays that broadcast to the result (a bias, a
residual, a saved activation). Its outputs are written in one go, so that a layer with bias,
activation, dropout and residual reads and writes each array once.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from ..dtypes import compute_dtype
from .c_source import c_name, c_source, c_type, preamble
from .cuda_source import scalar_codes, storage_type, uses_index
from .trace import ScalarFunction
from .typing import program

DROPOUT = "PQQQd"
"""Codes of dropout's stream: words on the device or nothing, seed, offset, threshold and scale."""

_COMMON = """int m, int n, int k, int inner, long long line_a, long long outer_a, long long inner_a,
    long long line_b, long long outer_b, long long inner_b, unsigned tiles, unsigned steps,
    unsigned per_unit, unsigned vector"""
_WORK = """  const GemmWork work{m, n, k, inner, line_a, outer_a, inner_a, line_b, outer_b, inner_b,
                      tiles, steps, per_unit, vector};
"""


class Epilogue(NamedTuple):
    """The text of a file with the kernels of a product that ends in one function.

    Entries are ``name::gemm_mma<…>``, ``name::gemm_simt<…>`` and ``name::gemm_reduce<T, M, N>``, or
    ``name::conv_gather_mma<…>`` and ``name::conv_gather_simt<…>``, with the template parameters of
    those in ``kernels/``. ``codes`` are the struct codes of the epilogue's arguments: a pointer per
    output; a pointer and four strides per operand; of dropout, what :data:`DROPOUT` says; scalars;
    with column sums, the pointer to their parts and how many rows of those a tile has.
    """

    name: str
    text: str
    codes: str
    storage: tuple[np.dtype, ...]


def epilogue(
    function: ScalarFunction,
    dtypes: tuple[np.dtype, ...],
    kinds: tuple[type, ...],
    family: str,
    sums: bool = False,
    dropout: bool = False,
) -> Epilogue:
    """The :class:`Epilogue` of a function whose inputs have ``dtypes``, the sum's first.

    Args:
        function: what is computed per element.
        dtypes: of the sum (the product's) and of the operands.
        kinds: ``bool``, ``int`` or ``float`` per runtime scalar.
        family: ``"mma"``, ``"simt"`` or ``"hopper"``, or ``"conv_mma"`` or ``"conv_simt"``.
        sums: whether the first output is added up along the columns too (``"mma"``, ``"hopper"``).
        dropout: whether the last input is no array but the factors of dropout, which the kernel
            makes of their stream; ``dtypes`` has that of the sum for it. Of products only.
    """
    key = ("cuda epilogue", dtypes, kinds, family, sums, dropout)
    found = function.cache.get(key)
    if found is None:
        found = function.cache[key] = _epilogue(function, dtypes, kinds, family, sums, dropout)
    return found


def _epilogue(
    function: ScalarFunction, dtypes: tuple, kinds: tuple, family: str, sums: bool, dropout: bool
) -> Epilogue:
    typed = program(function, dtypes, kinds)
    outs = [storage_type(d) for d in typed.storage]
    ins = [storage_type(d) for d in dtypes[1 : len(dtypes) - dropout]]
    scalars = [c_type(d) for d in typed.scalars]

    fields = [f"{t}* y{i};" for i, t in enumerate(outs)]
    fields += [f"GemmOperand<{t}> x{i};" for i, t in enumerate(ins)]
    factor = c_type(compute_dtype(dtypes[0]))
    fields += [f"GemmDropout<{factor}> kept;"] * dropout
    fields += [f"{t} v{i};" for i, t in enumerate(scalars)]
    fields += ["float* column_sums;", "int rows;"] * sums
    given = ["sums[j]"] + [f"widen(a{i}.values[j])" for i in range(len(ins))]
    given += ["factors.values[j]"] * dropout
    given += [f"v{i}" for i in range(len(scalars))]
    if uses_index(typed):
        given.append("at.index + j")
    several = isinstance(function.root, tuple)
    if several:
        given += [f"&o{i}" for i in range(len(outs))]
        results = [f"{c_type(d)} o{i};" for i, d in enumerate(typed.outputs)] + [""]
    else:
        results = [f"const {c_type(typed.outputs[0])} o0 = "]
    call = f"{results[-1]}{c_name(function.name)}({', '.join(given)});"
    takes = [f"const auto a{i} = x{i}.template take<V>(at);" for i in range(len(ins))]
    takes += ["const auto factors = kept.template take<V>(at);"] * dropout
    makes = [f"Pack<{t}, V> r{i};" for i, t in enumerate(outs)]
    each = [*results[:-1], call]
    each += [f"r{i}.values[j] = narrow<{t}>(o{i});" for i, t in enumerate(outs)]
    puts = [f"put(y{i}, at, r{i}, vector);" for i in range(len(outs))]
    result = "void"
    if sums:
        result = "Pack<C, V>"
        makes += ["Pack<C, V> exact;"]
        each += ["exact.values[j] = o0;"]
        puts += ["return exact;"]
    body = _lines(2, *takes, *makes, "#pragma unroll", "for (int j = 0; j < V; ++j) {")
    body += _lines(3, *each) + _lines(2, "}", *puts)

    parameters = [f"{t}* y{i}" for i, t in enumerate(outs)]
    starts = ["vector & 4", *(f"y{i}" for i in range(len(outs)))]
    for i, t in enumerate(ins):
        parameters += [f"const {t}* x{i}"]
        parameters += [f"long long {w}_{i}" for w in ("outer", "inner", "row", "column")]
        flag = f"(vector & {8 << i}) != 0"
        starts += [f"{{x{i}, outer_{i}, inner_{i}, row_{i}, column_{i}, {flag}}}"]
    if dropout:
        parameters += ["const unsigned long long* stream"]
        parameters += [f"unsigned long long {w}" for w in ("seed", "offset", "threshold")]
        parameters += ["double scale"]
        starts += [f"{{stream, seed, offset, threshold, static_cast<{factor}>(scale)}}"]
    parameters += [f"{t} v{i}" for i, t in enumerate(scalars)]
    starts += [f"v{i}" for i in range(len(scalars))]
    starts[0] = f"({starts[0]}) != 0"
    if sums:
        parameters += ["float* column_sums", "int rows"]
        starts += ["column_sums", "rows"]
    source = c_source(function, dtypes, "cuda", kinds)
    struct = f"""{source}
struct Function {{
  static constexpr bool kSums = {str(sums).lower()};
  bool vector;
{_lines(1, *fields)}
  template <int V, class C>
  __device__ __forceinline__ {result} operator()(const GemmPlace& at, const C (&sums)[V]) const {{
{body}  }}
}};
"""
    made = f"  const Function function{{{', '.join(starts)}}};\n"
    rest = ", ".join(parameters)
    entries = _FAMILIES[family](rest, made)
    if family in ("mma", "simt"):
        entries += _reduce(rest, made)
    digest = hashlib.sha256((struct + entries).encode()).hexdigest()[:10]
    name = f"{c_name(function.name)}_{digest}"
    headers = ["conv_gemm" if family.startswith("conv") else f"gemm_{family}"]
    headers += ["gemm_dropout"] * dropout
    head = "".join(f'#include "pyframe/{h}.cuh"\n' for h in headers) + preamble("cuda")
    codes = "P" * len(outs) + "Pqqqq" * len(ins) + DROPOUT * dropout + scalar_codes(typed)
    codes += "Pi" * sums
    text = f"{head}namespace {name} {{\nusing namespace pf;\n{struct}{entries}}}\n"
    return Epilogue(name, text, codes, typed.storage)


def _lines(depth: int, *lines: str) -> str:
    return "".join(f"{'  ' * depth}{line}\n" for line in lines)


def _mma(rest: str, made: str) -> str:
    return f"""
template <class T, int M, int N, int WARPS_M, int WARPS_N, int STAGES, bool A_K, bool B_K>
__global__ void __launch_bounds__(WARPS_M* WARPS_N * 32, WARPS_M * WARPS_N > 4 ? 1 : 2)
gemm_mma(const T* a, const T* b, float* partial, {_COMMON}, {rest}) {{
{_WORK}{made}  pf::gemm_mma<MmaGemm<T, M, N, WARPS_M, WARPS_N, STAGES, A_K, B_K>>(
      a, b, partial, work, function);
}}
"""


def _simt(rest: str, made: str) -> str:
    return f"""
template <class T, int M, int N, int ROWS, int COLUMNS, int STAGES>
__global__ void __launch_bounds__(M* N / ROWS / COLUMNS, kSimtResident<T>)
gemm_simt(const T* a, const T* b, T* partial, {_COMMON}, unsigned layout, {rest}) {{
{_WORK}{made}  pf::gemm_simt<SimtGemm<T, M, N, ROWS, COLUMNS, STAGES>>(
      a, b, partial, work, layout, function);
}}
"""


def _hopper(rest: str, made: str) -> str:
    return f"""
template <class T, int N, int STAGES, bool A_K, bool B_K>
__global__ void __launch_bounds__(384, 1)
gemm_hopper(const __grid_constant__ tensor_map a, const __grid_constant__ tensor_map b, int m,
            int n, int k, int inner, unsigned tiles, unsigned batched, unsigned vector, {rest}) {{
  const HopperWork work{{m, n, k, inner, tiles, batched}};
{made}  pf::gemm_hopper<HopperGemm<T, N, STAGES, A_K, B_K>>(a, b, work, function);
}}
"""


_CONVOLUTION = """
    int images, int groups, int channels, int outs, int transposed, int channels_last,
    unsigned vector, PF_CONV_GEOMETRY"""
_GATHER = """  const ConvGeometry g PF_CONV_GIVEN;
  const GatherWork work{images, groups, channels, outs, transposed != 0, channels_last != 0,
                        (vector & 4) != 0};
"""


def _conv_mma(rest: str, made: str) -> str:
    return f"""
template <class T, int M, int N, int WARPS_M, int WARPS_N, int STAGES, int BYTES>
__global__ void __launch_bounds__(WARPS_M* WARPS_N * 32, 1)
conv_gather_mma(const T* x, const T* w, {_CONVOLUTION}, {rest}) {{
{_GATHER}{made}  conv_gather<MmaEngine<T, M, N, WARPS_M, WARPS_N, STAGES, true, BYTES>>(
      x, w, work, g, function);
}}
"""


def _conv_simt(rest: str, made: str) -> str:
    return f"""
template <class T, int M, int N, int ROWS, int COLUMNS, int STAGES, int BYTES>
__global__ void __launch_bounds__(M* N / ROWS / COLUMNS, 1)
conv_gather_simt(const T* x, const T* w, {_CONVOLUTION}, {rest}) {{
{_GATHER}{made}  conv_gather<SimtEngine<T, M, N, ROWS, COLUMNS, STAGES, true, BYTES>>(
      x, w, work, g, function);
}}
"""


_FAMILIES = {
    "mma": _mma,
    "simt": _simt,
    "hopper": _hopper,
    "conv_mma": _conv_mma,
    "conv_simt": _conv_simt,
}


def _reduce(rest: str, made: str) -> str:
    return f"""
template <class T, int M, int N>
__global__ void __launch_bounds__(256)
gemm_reduce(const compute_t<T>* partial, int m, int n, int inner, unsigned steps,
            unsigned per_unit, unsigned vector, {rest}) {{
{made}  reduce_tile<M, N, sizeof(compute_t<T>) == 8 ? 2 : 4>(partial, m, n, inner, steps, per_unit,
                                                       function);
}}
"""
