"""Compiling kernels for real architectures: no GPU is needed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyframe.backend import nvrtc
from pyframe.errors import KernelError

COPY = """
template <class T>
__global__ void copy(const T* __restrict__ x, T* __restrict__ y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i];
}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on disk, and counts from zero."""
    monkeypatch.setenv("PYFRAME_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(nvrtc, "counts", nvrtc.Counts())
    nvrtc._store.cache_clear()
    yield tmp_path
    nvrtc._store.cache_clear()


def test_compiles_here() -> None:
    assert nvrtc.why_not() == ""
    assert nvrtc.version()


def test_an_instance_is_compiled_once(cache: Path) -> None:
    first = nvrtc.compile_instance(COPY, "copy.cu", "copy<float>", "sm_90a")
    assert first.cubin[:4] == b"\x7fELF"
    assert first.symbol.encode() in first.cubin
    assert (nvrtc.counts.compiled, nvrtc.counts.from_disk) == (1, 0)
    assert nvrtc.cached_on_disk()[0] >= 2
    nvrtc._store.cache_clear()  # as another process would
    again = nvrtc.compile_instance(COPY, "copy.cu", "copy<float>", "sm_90a")
    assert (again.cubin, again.symbol) == (first.cubin, first.symbol)
    assert (nvrtc.counts.compiled, nvrtc.counts.from_disk) == (1, 1)


@pytest.mark.parametrize(
    ("source", "instance", "arch"),
    [
        (COPY, "copy<double>", "sm_90a"),
        (COPY, "copy<float>", "sm_80"),
        (COPY + "\n// changed\n", "copy<float>", "sm_90a"),
    ],
)
def test_what_the_cache_tells_apart(cache: Path, source: str, instance: str, arch: str) -> None:
    nvrtc.compile_instance(COPY, "copy.cu", "copy<float>", "sm_90a")
    nvrtc.compile_instance(source, "copy.cu", instance, arch)
    assert (nvrtc.counts.compiled, nvrtc.counts.from_disk) == (2, 0)


def test_a_changed_header_compiles_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc.compile_instance(COPY, "copy.cu", "copy<float>", "sm_90a")
    monkeypatch.setattr(nvrtc, "_digest_of_headers", lambda: b"another")
    nvrtc.compile_instance(COPY, "copy.cu", "copy<float>", "sm_90a")
    assert nvrtc.counts.compiled == 2


def test_the_digest_covers_the_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc.kernel_sources, "folder", lambda: tmp_path)
    (tmp_path / "a.cuh").write_text("one")
    digest = nvrtc._digest_of_headers.__wrapped__
    before = digest()
    (tmp_path / "a.cuh").write_text("two")
    changed = digest()
    (tmp_path / "b.cuh").write_text("")
    assert len({before, changed, digest()}) == 3


@pytest.mark.parametrize(
    ("source", "instance", "arch", "pattern"),
    [
        (
            "__global__ void k(int* a) { *a = b; }",
            "k",
            "sm_90a",
            r'(?s)bad\.cu: k does not compile for sm_90a.*identifier "b" is undefined',
        ),
        (COPY, "copy<nothing>", "sm_80", "(?s)copy<nothing> does not compile.*nothing"),
        (COPY, "copy<float>", "sm_12", "(?s)does not compile for sm_12.*gpu-architecture"),
    ],
)
def test_errors_show_the_log(
    cache: Path, source: str, instance: str, arch: str, pattern: str
) -> None:
    with pytest.raises(KernelError, match=pattern):
        nvrtc.compile_instance(source, "bad.cu", instance, arch)
    assert nvrtc.cached_on_disk()[1] == 0


def test_the_log_says_what_an_instance_needs() -> None:
    log = nvrtc.compile_verbosely(COPY, "copy.cu", "copy<float>", "sm_80").log
    assert "Used" in log and "registers" in log and "0 bytes spill stores" in log
