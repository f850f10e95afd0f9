"""Generated C, compiled by the system's compiler, against the NumPy evaluation."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess

import numpy as np
import pytest

from pyframe import expr as e
from pyframe.dtypes import as_dtype, compute_dtype
from pyframe.errors import ArgumentError
from pyframe.expr import c_source, c_type, compile_numpy, preamble, program, trace, vjp
from tests.expr.cases import BINARY, UNARY, VALUE_ONLY, VALUE_ONLY_UNARY, points

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc, gcc, clang)")


def build(folder, jobs, language="c"):
    """Compiles [(function, dtypes, scalars)], each with a loop around it, into one library."""
    parts = [preamble("c")]
    for i, (function, dtypes, _) in enumerate(jobs):
        function.name = f"f{i}"
        typed = program(function, dtypes)
        parts.append(c_source(function, dtypes))
        arrays = [f"{c_type(d)} *x{k}" for k, d in enumerate(typed.inputs)]
        scalars = [f"{c_type(d)} s{k}" for k, d in enumerate(typed.scalars)]
        arguments = [f"x{k}[i]" for k in range(len(arrays))]
        arguments += [f"s{k}" for k in range(len(scalars))]
        if "long long index)" in parts[-1]:
            arguments.append("i")
        head = ", ".join(["long long n", *arrays, *scalars, f"{c_type(typed.outputs[0])} *out"])
        head = (
            'extern "C" void' * (language != "c") + "void" * (language == "c") + f" loop{i}({head})"
        )
        loop = f"for (long long i = 0; i < n; i++) out[i] = f{i}({', '.join(arguments)});"
        parts.append(f"{head} {{ {loop} }}\n")
    suffix = "c" if language == "c" else "cpp"
    source = folder / f"generated.{suffix}"
    source.write_text("\n".join(parts))
    library = folder / f"generated_{suffix}.so"
    compiler = COMPILER if language == "c" else shutil.which("c++")
    flags = ["-std=c99"] if language == "c" else ["-std=c++17"]
    command = [compiler, *flags, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w"]
    subprocess.run([*command, str(source), "-o", str(library), "-lm"], check=True)
    return ctypes.CDLL(str(library))


def call(library, i, job, arrays):
    function, dtypes, scalars = job
    typed = program(function, dtypes)
    out = np.zeros(arrays[0].shape, typed.outputs[0])
    kinds = {"b": ctypes.c_bool, "i": ctypes.c_longlong, "f": ctypes.c_double}
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in arrays]
    values = [kinds[d.kind](v) for d, v in zip(typed.scalars, scalars)]
    result = out.ctypes.data_as(ctypes.c_void_p)
    getattr(library, f"loop{i}")(ctypes.c_longlong(out.size), *pointers, *values, result)
    return out


def same(ours, theirs, ulps, name, slack=0.0):
    assert ours.dtype == theirs.dtype, name
    if ours.dtype.kind != "f":
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        return
    rtol = ulps * np.finfo(ours.dtype).eps
    tiny = float(np.finfo(ours.dtype).tiny)
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=max(tiny, slack * rtol), err_msg=name)


def floating_jobs():
    for dtype in ("float32", "float64"):
        for table, count in ((UNARY, 1), (VALUE_ONLY_UNARY, 1), (BINARY, 2), (VALUE_ONLY, 2)):
            for name, (fn, _, values) in table.items():
                f = trace(lambda x: fn(x)) if count == 1 else trace(lambda x, w: fn(x, w))
                xs = [p.astype(dtype) for p in points(count, values)]
                yield f"{name} {dtype}", (f, [dtype] * count, ()), xs
                if table is UNARY and (d := vjp(f, "x")) is not None:
                    known = {"g": np.ones_like(xs[0]), "x": xs[0]}
                    yield (
                        f"{name} {dtype} vjp",
                        (d, [dtype] * len(d.inputs), ()),
                        [known[n] for n in d.inputs],
                    )


def integer_jobs():
    functions = "add sub mul floordiv truncdiv remainder fmod pow maximum minimum eq lt".split()
    functions += "bit_and bit_or bit_xor shift_left shift_right div".split()
    for dtype in ("uint8", "int8", "int16", "int32", "int64"):
        info = np.iinfo(dtype)
        values = [v for v in (info.min, -7, -2, -1, 0, 1, 2, 3, 7, 64, info.max) if v >= info.min]
        pairs = np.array(list(itertools.product(values, values)), dtype).T
        xs = [np.ascontiguousarray(p) for p in pairs]
        for name in functions:
            fn = getattr(e, name)
            f = trace(lambda x, w: fn(x, w))
            yield f"{name} {dtype}", (f, [dtype] * 2, ()), xs
        for name in ("neg", "abs", "sign", "bit_not", "floor", "isnan", "isfinite", "exp"):
            f = trace(getattr(e, name))
            yield f"{name} {dtype}", (f, [dtype], ()), [np.array(values, dtype)]
    both = [np.array([True, True, False, False]), np.array([True, False, True, False])]
    for name in "add mul maximum minimum bit_and bit_xor logical_or lt div".split():
        fn = getattr(e, name)
        yield f"{name} bool", (trace(lambda x, w: fn(x, w)), ["bool"] * 2, ()), both
    for name in ("bit_not", "sign"):
        yield f"{name} bool", (trace(getattr(e, name)), ["bool"], ()), both[:1]


def other_jobs():
    odd = np.array([np.nan, np.inf, -np.inf, 1e10, -1e10, 1e30, 2.9, -2.9, 0.0, 2.0**31])
    for have in ("float32", "float64"):
        for want in ("bool", "int32", "int64", "float32", "float64"):
            f = trace(lambda x: e.cast(x, want))
            yield f"cast {have} {want}", (f, [have], ()), [odd.astype(have)]
    x = np.linspace(-3, 3, 7)
    f = trace(lambda x, n, *, a=0.5, k=3, b=True: e.where(b, x * (1 - a) + n // k, a))
    arrays = [x.astype(np.float32), np.arange(7, dtype=np.int32)]
    yield "mixed", (f, ["float16", "int32"], (0.9, 2, True)), arrays
    yield "index", (trace(lambda x: x * e.index()), ["float32"], ()), arrays[:1]
    random = trace(lambda x, *, key, offset: x + e.uniform(key, offset))
    yield "random", (random, ["float64"], (2**40 + 5, 7)), [x]
    limits = trace(lambda x: e.where(x > 0, float("inf"), -float("inf")) + 1e300 + float("nan"))
    yield "constants", (limits, ["float32"], ()), arrays[:1]
    smallest = trace(lambda x: x + -(2**63))
    yield "smallest", (smallest, ["int64"], ()), [np.array([1, 2])]


@needs_compiler
@pytest.mark.parametrize("make", [floating_jobs, integer_jobs, other_jobs])
def test_compiled_source_agrees_with_numpy(make, tmp_path):
    names, jobs, inputs = zip(*make())
    expected = []
    for (f, dtypes, scalars), xs in zip(jobs, inputs):
        run = compile_numpy(f, dtypes)
        expected.append(run(np, *xs, *scalars))
    library = build(tmp_path, jobs)
    for i, (name, job, xs) in enumerate(zip(names, jobs, inputs)):
        theirs = np.broadcast_to(expected[i], xs[0].shape)
        loose = "vjp" in name or "gelu" in name  # 1 - y * y and 1 + erf(x) cancel
        same(call(library, i, job, xs), theirs, 64 if loose else 8, name, 0.1 * loose)


@needs_compiler
def test_source_is_also_cpp(tmp_path):
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler (c++)")
    job = (trace(lambda x: e.sigmoid(x) // 0.3), ["float32"], ())
    library = build(tmp_path, [job], "c++")
    x = np.linspace(-3, 3, 7).astype(np.float32)
    got = call(library, 0, job, [x])
    np.testing.assert_array_equal(got, compile_numpy(job[0], job[1])(np, x))


def test_cuda_text():
    text = preamble("cuda") + c_source(trace(lambda x: e.exp(x) * 2), ["bfloat16"], "cuda")
    assert "#include" not in text
    assert "__device__" in text
    assert "float pointwise(float x)" in text
    assert "@" not in text
    assert compute_dtype(as_dtype("bfloat16")) == np.float32
    with pytest.raises(ArgumentError, match="lang"):
        preamble("fortran")


def test_several_outputs():
    text = c_source(trace(lambda x: (x + 1, x > 0), "pair"), ["float32"])
    assert "void pair(float x, float *out0, bool *out1)" in text
