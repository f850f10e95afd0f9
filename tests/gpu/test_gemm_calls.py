"""Products that were made before: what is launched again, and what makes another plan.

Launches are written down here, not run; ``test_gemm_kernels.py`` and ``test_hopper_gemm.py`` run
the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import backends
from pyframe.backend.cuda_file import CudaFile
from pyframe.backend.cuda_geometry import address
from pyframe.backend.tensor_map import TensorMap
from pyframe.ops import _cuda_gemm as gemm
from pyframe.ops import _cuda_gemm_calls as calls
from pyframe.ops import _cuda_gemm_hopper as hopper

BF16 = pf.bfloat16


class Written:
    """Launches, and how many plans were made."""

    def __init__(self) -> None:
        self.launches: list[tuple] = []
        self.plans = 0

    def taken(self) -> list[tuple]:
        """The launches since the last time."""
        found, self.launches = self.launches, []
        return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    found = Written()

    def launch(self: CudaFile, instance: str, codes: str, grid: Any, block: Any, *rest: Any) -> Any:
        found.launches.append((self.name, instance, codes, grid, block, *rest))

    def counted(prepared: Callable) -> Callable:
        def count(*args: Any) -> Any:
            found.plans += 1
            return prepared(*args)

        return count

    monkeypatch.setattr(calls, "_known", {})
    monkeypatch.setattr(CudaFile, "launch", launch)
    for module in (gemm, hopper):
        monkeypatch.setattr(module, "prepared", counted(module.prepared))
    yield found
    pf.set_float32_matmul_precision("highest")


def x(*shape: int, dtype: Any = "float32", off: int = 0) -> Any:
    """An array that begins ``off`` elements after a multiple of 16 bytes."""
    dtype = pf.dtypes.as_dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.zeros(size + 32, np.uint8)
    start = -address(room) % 16 + off * dtype.itemsize
    return room[start : start + size].view(dtype).reshape(shape)


def readable(launch: tuple, operands: tuple) -> tuple:
    """A launch with operands by their numbers, and other arrays by their shapes."""
    places = {address(v): i for i, v in enumerate(operands) if v is not None}

    def name(value: Any) -> Any:
        if isinstance(value, TensorMap):
            return name(value.array), value.dims, value.strides, value.box
        if isinstance(value, np.ndarray):
            return places.get(address(value), ("new", value.shape, value.dtype, value.strides))
        return value

    file, instance, codes, grid, block, args, *shared = launch
    return file, instance, codes, grid, block, tuple(map(name, args)), shared


CASES: dict[str, Callable[[], tuple]] = {
    "matrices": lambda: (x(70, 90), x(90, 40), None),
    "transposed": lambda: (x(90, 70).T, x(40, 90).T, x(40)),
    "cut along k": lambda: (x(64, 9000), x(9000, 64), x(64, 1)),
    "one product of a batch": lambda: (x(4, 5, 16), x(16, 24), x(24)),
    "batch": lambda: (x(4, 5, 16), x(4, 16, 24), x(4, 1, 24)),
    "broadcast batch": lambda: (x(2, 1, 5, 16), x(3, 16, 24), x(5, 24)),
    "slices": lambda: (x(20, 40)[2:9, 4:20], x(16, 30)[:, 3:9], x(14, 12)[::2, ::2]),
    "off 16 bytes": lambda: (x(8, 16, off=1), x(16, 8, off=3), x(8, off=2)),
    "no depth": lambda: (x(8, 0), x(0, 8), x(8)),
    "float64": lambda: (x(8, 16, dtype="float64"), x(16, 8, dtype="float64"), None),
    "bfloat16": lambda: (x(136, 72, dtype=BF16), x(200, 72, dtype=BF16).T, x(200, dtype=BF16)),
    "half batch": lambda: (x(3, 8, 16, dtype=BF16), x(2, 1, 16, 8, dtype=BF16), None),
}
PRODUCTS = [
    pytest.param(multiply, case, id=f"{name}-{case}")
    for name, multiply in (("cuda", gemm.multiply), ("hopper", hopper.multiply))
    for case in CASES
    if name == "cuda" or case in ("bfloat16", "half batch")
]


@pytest.mark.parametrize(("multiply", "case"), PRODUCTS)
def test_launched_again_as_at_first(multiply: Callable, case: str, written: Written) -> None:
    """Other arrays of the same layouts, other numbers: the launches are those of a new plan."""
    for alpha, beta in ((1, 1), (0.5, -2.0)):
        given = CASES[case]()
        calls._known.clear()
        first = multiply(*given, alpha, beta)
        expected = [readable(v, given) for v in written.taken()]
        assert expected and written.plans
        written.plans = 0
        for again in (given, CASES[case]()):
            y = multiply(*again, alpha, beta)
            assert [readable(v, again) for v in written.taken()] == expected
            assert (y.shape, y.dtype, y.strides) == (first.shape, first.dtype, first.strides)
        assert not written.plans


def test_through_the_ops(written: Written) -> None:
    a, w, bias = x(6, 16), x(8, 16), x(8)
    with pf.kernels("cuda"):
        for _ in range(3):
            pf.matmul(a, w.T)
            pf.nn.functional.linear(a, w, bias)
            pf.matmul(a[0], w.T)
    assert len(written.launches) == 9 and written.plans == 3


CHANGED: dict[str, Callable[[], tuple]] = {
    "alignment of a factor": lambda: (x(8, 16, off=1), x(16, 8), x(8)),
    "alignment of the other": lambda: (x(8, 16), x(16, 8, off=2), x(8)),
    "alignment of what is added": lambda: (x(8, 16), x(16, 8), x(8, off=3)),
    "strides": lambda: (x(8, 32)[:, :16], x(16, 8), x(8)),
    "layout": lambda: (x(8, 16), x(8, 16).T, x(8)),
    "strides of what is added": lambda: (x(8, 16), x(16, 8), x(16)[::2]),
    "shape of what is added": lambda: (x(8, 16), x(16, 8), x(8, 1)),
    "nothing is added": lambda: (x(8, 16), x(16, 8), None),
    "shape": lambda: (x(9, 16), x(16, 8), x(8)),
    "dtype": lambda: tuple(x(*s, dtype="float64") for s in ((8, 16), (16, 8), (8,))),
}


@pytest.mark.parametrize("change", CHANGED)
def test_what_makes_another_plan(change: str, written: Written) -> None:
    given, other = (x(8, 16), x(16, 8), x(8)), CHANGED[change]()
    gemm.multiply(*given)
    before = readable(written.taken()[0], given)
    gemm.multiply(*other)
    assert written.plans == 2
    assert readable(written.taken()[0], other) != before
    gemm.multiply(*given)
    assert written.plans == 2
    assert readable(written.taken()[0], given) == before


def test_the_other_half_type_makes_another_plan(written: Written) -> None:
    """Its arrays have the same strides."""
    for dtype, plans in ((BF16, 1), (pf.float16, 2), (BF16, 2)):
        y = gemm.multiply(x(8, 16, dtype=dtype), x(16, 8, dtype=dtype))
        name = "pf::bfloat16" if dtype == BF16 else "pf::float16"
        assert y.dtype == dtype and f"<{name}," in written.taken()[0][1]
        assert written.plans == plans


@pytest.mark.parametrize("multiply", [gemm.multiply, hopper.multiply], ids=["cuda", "hopper"])
def test_without_an_operand_its_factor_is_zero(multiply: Callable, written: Written) -> None:
    for _ in range(2):
        multiply(x(8, 16, dtype=BF16), x(16, 8, dtype=BF16), None, 2, 3)
        assert written.taken()[0][5][-2:] == (2, 0)


def test_the_precision_makes_another_plan(written: Written) -> None:
    given = (x(8, 16), x(16, 8))
    for precision, kernel, plans in (
        ("highest", "gemm_simt.cu", 1),
        ("high", "gemm_mma.cu", 2),
        ("medium", "gemm_mma.cu", 2),  # as "high"
        ("highest", "gemm_simt.cu", 2),
    ):
        pf.set_float32_matmul_precision(precision)
        gemm.multiply(*given)
        assert (written.taken()[0][0], written.plans) == (kernel, plans)


def test_a_given_cut_makes_another_plan(written: Written) -> None:
    a, b = x(8, 640), x(640, 8)
    cut = gemm.plan(a.dtype, 8, 8, 640)
    for per_unit, launches in ((cut.steps, 1), (1, 2), (cut.steps, 1)):
        gemm.multiply(a, b, cut=cut._replace(per_unit=per_unit))
        assert len(written.taken()) == launches
    assert written.plans == 2


def test_a_given_tile_makes_another_plan(written: Written) -> None:
    a, b = x(256, 64, dtype=BF16), x(64, 256, dtype=BF16)
    for columns, blocks in ((128, 2), (256, 2), (128, 1), (128, 2)):
        hopper.multiply(a, b, columns=columns, blocks=blocks)
        _, instance, _, grid, *_ = written.taken()[0]
        assert f", {columns}, " in instance and grid == (blocks,)
    assert written.plans == 3
    gemm.multiply(a, b)
    assert written.taken()[0][0] == "gemm_mma.cu"


def test_copies_are_made_anew(written: Written) -> None:
    """Neither axis of the factor has neighbours next to each other: the kernel reads a copy."""
    a, b = x(16, 32)[::2, ::2], x(16, 8)
    for _ in range(2):
        gemm.multiply(a, b)
        factor = written.taken()[0][5][0]
        assert factor.flags.c_contiguous and not np.shares_memory(factor, a)
    assert written.plans == 2 and not calls._known


def test_a_result_elsewhere_makes_another_plan(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that some allocator gives off 16 bytes cannot be written 16 bytes at a time."""
    given = (x(8, 16), x(16, 8))
    vector = 16  # the position of the bits; 4 are for the result
    monkeypatch.setattr(backends[np.ndarray], "empty", lambda s, d: x(*s, dtype=d))
    gemm.multiply(*given)
    assert written.taken()[0][5][vector] & 4
    with monkeypatch.context() as patch:
        patch.setattr(backends[np.ndarray], "empty", lambda s, d: x(*s, dtype=d, off=1))
        gemm.multiply(*given)
        assert not written.taken()[0][5][vector] & 4
    gemm.multiply(*given)
    assert written.taken()[0][5][vector] & 4
    assert written.plans == 2


def test_few_are_kept(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_MOST", 4)
    for n in range(1, 20):
        gemm.multiply(x(n, 16), x(16, 8))
        assert 1 <= len(calls._known) <= 4
    assert written.plans == 19


def test_an_empty_product_launches_nothing(written: Written) -> None:
    for _ in range(2):
        assert gemm.multiply(x(0, 16), x(16, 8)).shape == (0, 8)
    assert not written.launches
