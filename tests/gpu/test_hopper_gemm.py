"""Products by TMA and wgmma: in the emulator against float64, and their machine code."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import driver, launch, nvrtc
from pyframe.backend.tensor_map import TensorMap
from pyframe.errors import KernelError
from pyframe.expr import trace
from pyframe.op import choice, cuda_kernel
from pyframe.op.registry import ops
from pyframe.ops import _cuda_gemm_hopper as hopper
from pyframe.ops._cuda_gemm_fused import fused_hopper
from tests.doubles.gpu import Driver, Host
from tests.gpu.disassembly import disassembled

BF16, F16 = pf.bfloat16, pf.float16
random = np.random.default_rng(11)


def integers(*shape: int, dtype: Any = BF16) -> Any:
    """Small ones: all sums are exact, in any order."""
    return random.integers(-4, 5, shape).astype(dtype)


def turned(x: Any) -> Any:
    return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)


def exact(a: Any, b: Any) -> Any:
    return a.astype(np.float64) @ b.astype(np.float64)


def check(a: Any, b: Any, columns: int = 128, blocks: int = 2) -> None:
    y = hopper.multiply(a, b, columns=columns, blocks=blocks)
    np.testing.assert_array_equal(y.astype(np.float64), exact(a, b).astype(a.dtype))


@pytest.mark.parametrize("turn_b", [False, True])
@pytest.mark.parametrize("turn_a", [False, True])
def test_layouts_and_edges(turn_a: bool, turn_b: bool) -> None:
    """Four tiles on two blocks, the last of each dimension cut off, the second step too."""
    a, b = integers(136, 72), integers(72, 200)
    check(turned(a) if turn_a else a, turned(b) if turn_b else b)


@pytest.mark.parametrize(("columns", "dtype"), [(256, F16), (192, BF16)])
def test_larger_tiles(columns: int, dtype: Any) -> None:
    check(integers(64, 136, dtype=dtype), turned(integers(136, 264, dtype=dtype)), columns, 1)


@pytest.mark.parametrize("blocks", [1, 3])
def test_more_steps_than_stages(blocks: int) -> None:
    """The ring goes round within a tile and from tile to tile."""
    check(integers(130, 520), turned(integers(520, 130)), 128, blocks)


def test_odd_sizes_where_k_is_contiguous() -> None:
    """Rows of the result do not begin at multiples of 16 bytes then."""
    check(integers(131, 64), turned(integers(64, 133)))


@pytest.mark.parametrize(
    ("first", "second"), [((2,), (2,)), ((), (3,)), ((2, 1), (1, 2)), ((2, 2), ()), ((1,), (2, 1))]
)
def test_batches(first: tuple, second: tuple) -> None:
    check(integers(*first, 16, 64), turned(integers(*second, 64, 24)), blocks=3)


def test_slices_of_larger_arrays() -> None:
    a, b = integers(40, 160)[3:35, 16:96], turned(integers(160, 48))[32:112, 8:40]
    check(a, b)


def test_sums_with_other_arrays() -> None:
    a, b = integers(2, 20, 64), turned(integers(64, 24))
    for c in (integers(24), integers(2, 20, 24), integers(20, 1), integers(2, 1, 24)):
        y = hopper.multiply(a, b, c, 0.5, -2.0, columns=128, blocks=2)
        expected = 0.5 * exact(a, b) - 2.0 * c.astype(np.float64)
        np.testing.assert_array_equal(y.astype(np.float64), expected.astype(BF16))


def test_a_function_of_the_product() -> None:
    from pyframe.expr import maximum

    function = trace(lambda s, bias: maximum(s + bias, 0.0), "relu_of_sum_for_hopper")
    a, b, bias = integers(72, 64), turned(integers(64, 40)), integers(40)
    y = fused_hopper(a, b, function, (bias,), columns=128, blocks=2)
    expected = np.maximum(exact(a, b) + bias.astype(np.float64), 0)
    np.testing.assert_array_equal(y.astype(np.float64), expected.astype(BF16))


@pytest.mark.parametrize("columns", [128, 192])
def test_sums_along_the_columns(columns: int) -> None:
    """Of three tiles down, the last of them with 20 rows, by blocks that take several."""
    function = trace(lambda s, factor: s * factor, "times_factor_for_hopper")
    a, b = integers(276, 64), turned(integers(64, 200))
    factor = np.sign(integers(276, 200))
    y, sums = fused_hopper(a, b, function, (factor,), columns=columns, blocks=2, sums=True)
    expected = exact(a, b) * factor.astype(np.float64)
    np.testing.assert_array_equal(y.astype(np.float64), expected.astype(BF16))
    np.testing.assert_array_equal(sums, expected.sum(0).astype(BF16))


def test_accuracy_against_float64() -> None:
    """Half an ulp of the result, and an ulp of float32 for each addition."""
    a, b = (random.standard_normal(s).astype(BF16) for s in ((64, 512), (96, 512)))
    y = hopper.multiply(a, b.T, columns=128, blocks=2).astype(np.float64)
    expected = exact(a, b.T)
    most = np.abs(a.astype(np.float64)) @ np.abs(b.T.astype(np.float64))
    allowed = np.abs(expected) * 2.0**-8 + 512 * 2.0**-24 * most
    assert (np.abs(y - expected) <= allowed).all()


def test_infinities_and_nan_stay_in_their_rows() -> None:
    a, b = integers(24, 64), turned(integers(64, 16))
    a[3, 5], a[7, 1] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        expected = exact(a, b)
    y = hopper.multiply(a, b, columns=128, blocks=2).astype(np.float64)
    np.testing.assert_array_equal(y, expected.astype(BF16).astype(np.float64))


def test_what_cannot_be_copied_runs_elsewhere() -> None:
    room = np.zeros(64 * 64 + 1, BF16)
    a = room[1:].reshape(64, 64)  # lines begin 2 bytes after multiples of 16
    a[...] = integers(64, 64)
    b = integers(64, 64)
    before = set(hopper.gemm.FILES)
    y = hopper.multiply(a, b)
    assert before == set(hopper.gemm.FILES)
    np.testing.assert_array_equal(y.astype(np.float64), exact(a, b).astype(BF16))


# ---- the choice


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ((2048, 64), (64, 2048), ""),
        ((64, 2048, 64), (64, 64), ""),
        ((256, 64), (64, 256), "too few"),
        ((2048, 60), (60, 2048), "lines or matrices do not begin at multiples of 16 bytes"),
        ((2048, 64), (64, 2044), "lines or matrices do not begin at multiples of 16 bytes"),
        ((2048, 0), (0, 2048), "there is nothing to add up"),
        ((2048, 64), (64,), "a factor is a vector"),
    ],
)
def test_what_it_takes(a: tuple, b: tuple, why: str) -> None:
    arrays = np.zeros(a, F16), np.zeros(b, F16)
    found = hopper.not_hopper(*arrays)
    assert why in found and bool(why) == bool(found)
    assert hopper.not_hopper(*(x.astype(np.float32) for x in arrays)) in (
        "only float16 and bfloat16",
        found,
    )


@pytest.mark.parametrize("name", ["matmul", "linear", "addmm", "baddbmm"])
def test_ops_name_it_before_the_other_kernel(name: str) -> None:
    assert [k.name for k in ops[name].kernels["cuda"]][:2] == ["hopper", "cuda"]


def test_forced_through_the_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "LEAST_TILES", 1)
    x, w, bias = integers(16, 64), integers(24, 64), integers(24)
    product = exact(x, w.T)
    with pf.kernels("hopper"):
        np.testing.assert_array_equal(pf.matmul(x, w.T), product.astype(BF16))
        y = pf.nn.functional.linear(x, w, bias)
        np.testing.assert_array_equal(y, (product + bias.astype(np.float64)).astype(BF16))
        y = pf.addmm(bias, x, w.T, beta=2, alpha=-1)
        np.testing.assert_array_equal(y, (2 * bias.astype(np.float64) - product).astype(BF16))
    choice.clear_choices()


def test_a_small_product_cannot_be_forced() -> None:
    with pf.kernels("hopper"), pytest.raises(KernelError, match="1 tiles of 128 × 128: too few"):
        pf.matmul(integers(16, 64), integers(64, 16))


def test_tiles_fit_the_shared_memory_and_the_waves() -> None:
    assert all(hopper.shared_bytes(n) <= 227 << 10 for n in hopper.STAGES)
    assert hopper.cut(4096, 4096).columns == 256
    assert hopper.cut(8192, 768).tiles == 256  # two full waves of 128 × 192
    assert hopper.cut(128, 128).blocks == 1


# ---- kernels that no emulator runs


def test_a_kernel_is_trusted_where_it_was_checked(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"check": {"items": {"environment": {"arch": "sm_90a", "status": "ok"},'
        ' "kernels/x.cu": {"status": "ok"}, "kernels/y.cu": {"status": "1 failed"}}}}'
    )
    (tmp_path / "b.json").write_text('{"bench": {}}')
    assert cuda_kernel.checked_on("kernels/x.cu", tmp_path) == {"sm_90a"}
    assert cuda_kernel.checked_on("kernels/y.cu", tmp_path) == frozenset()


def test_others_are_not_chosen_but_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    monkeypatch.setattr(launch, "host", lambda: host)
    untried = cuda_kernel.cuda_kernel(lambda x: x, source="kernels/untried.cu", emulated=False)
    array = SimpleNamespace(data=SimpleNamespace(device_id=0))
    why = untried.trusted(array)
    assert "not passed `make gpu-check` on sm_90a" in why
    monkeypatch.setattr(cuda_kernel, "checked_on", lambda source: {"sm_90a"})
    assert untried.trusted(array) == ""
    host._capability = (8, 0)
    assert "on sm_80" in untried.trusted(array)

    ran = []
    kernel = cuda_kernel.cuda_kernel(
        lambda x, **params: ran.append(1) or x, source="kernels/untried.cu", emulated=False
    )
    op = ops["relu"]
    monkeypatch.setitem(op.kernels, "cpu", [kernel])
    x = np.ones(3, np.float32)
    assert choice.choose(op, (x,), {}) is None
    assert choice.candidates(op, (x,), {})[0][1]
    assert choice.choose(op, (x,), {}, "cuda") is kernel
    choice.clear_choices()


# ---- launching


def test_a_tensor_map_is_encoded_once_and_passed_by_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = """#include "pyframe/hopper.cuh"
    __global__ void look(const __grid_constant__ pf::tensor_map map, int n, float* y) {
      y[n] = map.bytes[n];
    }"""
    from pyframe.backend.cuda_file import CudaFile

    file = CudaFile("look.cu", ["look"], text)
    array = SimpleNamespace(
        data=SimpleNamespace(ptr=0x7000, device_id=0), shape=(8, 64), dtype=np.dtype(F16)
    )
    y = SimpleNamespace(data=SimpleNamespace(ptr=0x9000, device_id=0), shape=(4,), dtype="float32")
    found = TensorMap(array, (64, 8), (128,), (64, 8))
    with driver.using(Driver([128, 4, 8])) as calls:
        monkeypatch.setattr(launch, "host", Host)
        for _ in range(2):
            file.launch("look", "TiP", (1,), (32,), (found, 7, y))
    encoded = [args for name, args in calls.calls if name == "cuTensorMapEncodeTiled"]
    # Aligned to 128 bytes; 16-bit values (1), swizzle of 128 bytes (3), 256 bytes into L2 (3).
    assert encoded == [(0, 1, 2, 0x7000, [64, 8], [128], [64, 8], [1, 1], 0, 3, 3, 0)]
    for made in calls.launches:
        assert made["arguments"] == [Driver.MAP, struct.pack("=i", 7), struct.pack("=Q", 0x9000)]


# ---- machine code


@pytest.fixture(scope="module")
def machine_code(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The disassembly of the largest tile's kernel, and what the compiler said."""
    name = hopper.instance(BF16, 256, (True, True))
    source = hopper.FILES[BF16, 256, (True, True)].source
    compiled = nvrtc.compile_verbosely(source, "gemm_hopper.cu", name, "sm_90a")
    return disassembled(compiled.cubin, tmp_path_factory.mktemp("sass")), compiled.log


def test_machine_code_uses_the_units_of_hopper(machine_code: tuple[str, str]) -> None:
    sass, _ = machine_code
    for instruction in ("HGMMA.64x256x16.F32.BF16", "UTMALDG.4D", "SYNCS.PHASECHK", "USETMAXREG"):
        assert instruction in sass, instruction
    assert not re.search(r"\b(HMMA|STL|LDL)\b", sass), "mma.sync, or registers in local memory"


def test_machine_code_does_not_wait_after_each_product(machine_code: tuple[str, str]) -> None:
    """The compiler makes products wait for each other where it cannot follow the accumulators."""
    sass, log = machine_code
    assert "serialized" not in log and "0 bytes spill stores, 0 bytes spill loads" in log
    products, waits = sass.count("HGMMA.64x256x16"), sass.count("WARPGROUP.DEPBAR")
    assert products % 4 == 0 and 0 < waits <= products // 4 + 1
