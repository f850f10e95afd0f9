"""Products of matrices on a real GPU: every kernel of ours, the chosen one, and cuBLAS in torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.device_time import Call, device_ms, torch
from benchmarks.gpu.runner import Box

# Cubes, and the projections of GPT-2 small at batch 8 × 1024 with a weight's gradient.
_SHAPES = [(n, n, n) for n in (4096, 8192)]
_SHAPES += [(8192, 2304, 768), (8192, 3072, 768), (8192, 768, 3072), (768, 3072, 8192)]
_MODES = [
    ("bfloat16", "bfloat16", "highest", _SHAPES),
    ("tf32", "float32", "high", _SHAPES[:3]),
    ("float32", "float32", "highest", _SHAPES[:3]),
    ("float16", "float16", "highest", _SHAPES[:1]),
]


def _cases() -> Iterator[tuple[str, str, str, tuple[int, int, int]]]:
    for name, dtype, precision, shapes in _MODES:
        for shape in shapes:
            yield f"{name} {'×'.join(map(str, shape))}", dtype, precision, shape


def matrix_products(box: Box) -> dict[str, Any]:
    """Milliseconds and TFLOP/s per product, and how many times cuBLAS's speed that is."""
    other, rows = torch(), {}
    rng = np.random.default_rng(0)
    for title, dtype, precision, (m, n, k) in _cases():
        if box.left < 30:
            rows[title] = "no time"
            continue
        values = [rng.standard_normal(s, np.float32) for s in ((m, k), (k, n))]
        a, b = (pf.tensor(v, device="cuda").to(getattr(pf, dtype)) for v in values)
        cases: dict[str, Call] = {"chosen": lambda a=a, b=b: a @ b}
        for kernel in pf.matmul.op.kernels["cuda"]:
            if not (kernel.available() or kernel.supports(a.array, b.array)):
                cases[kernel.name] = lambda r=kernel.run, a=a.array, b=b.array: r(a, b)
        if other is not None:
            x, y = (other.tensor(v, device="cuda").to(getattr(other, dtype)) for v in values)
            cases["cuBLAS"] = lambda x=x, y=y: x @ y
        pf.set_float32_matmul_precision(precision)
        if other is not None:
            other.backends.cuda.matmul.allow_tf32 = precision == "high"
        try:
            took = device_ms(cases, calls=2 if m * n * k > 1 << 37 else 8)
        finally:
            pf.set_float32_matmul_precision("highest")
            if other is not None:
                other.backends.cuda.matmul.allow_tf32 = False
        row = {f"{name} ms": round(ms, 4) for name, ms in took.items()}
        row |= {f"{name} TFLOP/s": round(2e-9 * m * n * k / ms, 1) for name, ms in took.items()}
        if "cuBLAS" in took:
            own = {name: ms for name, ms in took.items() if name != "cuBLAS"}
            row |= {f"{name} of cuBLAS": round(took["cuBLAS"] / ms, 3) for name, ms in own.items()}
        rows[title] = row
        print(f"  {title}: {row}", flush=True)
    return rows


ITEMS = (matrix_products,)
