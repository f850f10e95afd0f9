"""The caching allocator, the scoped NumPy handler and the loader of the native extension."""

import asyncio
import gc
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from pyframe.backend import blas_threads, kernel_sources, native

ROOT = Path(__file__).resolve().parents[2]
MB = 1 << 20

needs_native = pytest.mark.skipif(
    not native.available(), reason=f"native extension: {native.why_not()}"
)


def handler_name(array=None):
    """Return the name of the memory handler of an array, or of the current context."""
    get_name = np._core.multiarray.get_handler_name
    return get_name() if array is None else get_name(array)


def run_python(code, **environment):
    """Run code in a fresh interpreter with warnings as errors; return its output."""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.strip()


# What arrays of other test modules hold while a test runs.
held_by_others = {"bytes": 0}


def stats_now():
    """The allocator's statistics, without what other test modules hold."""
    stats = native.allocator_stats()
    others = held_by_others["bytes"]
    return replace(stats, in_use=stats.in_use - others, peak=stats.peak - others)


@pytest.fixture
def clean_cache():
    """Start from an empty cache and fresh counters, and put the limit back."""
    limit = native.allocator_stats().limit
    gc.collect()
    native.release_cache()
    native.reset_allocator_stats()
    held_by_others["bytes"] = native.allocator_stats().in_use
    yield
    held_by_others["bytes"] = 0
    native.set_cache_limit(limit)


# --- native.empty: what it returns ---------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u2", "i8", "f2", "f4", "f8", "c16", "S5", "M8[s]", "O"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4), 7])
def test_empty_is_like_numpy(shape, dtype):
    """Every shape and dtype that NumPy takes gives an array of NumPy's own form."""
    ours, numpys = native.empty(shape, dtype), np.empty(shape, dtype)
    assert (ours.shape, ours.dtype, ours.strides) == (numpys.shape, numpys.dtype, numpys.strides)
    assert ours.flags.owndata
    assert ours.flags.writeable
    assert ours.flags.c_contiguous
    if dtype == "O":
        assert ours.size == 0 or ours.ravel()[0] is None
    ours[...] = np.zeros((), dtype)
    assert (ours == np.zeros((), dtype)).all()


def test_empty_takes_other_forms_of_shape_and_dtype():
    """Lists, NumPy integers, many dimensions, dtype objects and ml_dtypes work as for np.empty."""
    assert native.empty([2, np.int64(3)], float).shape == (2, 3)
    assert native.empty((1,) * 40, np.float32).ndim == 40
    bfloat16 = native.empty((4,), np.dtype(ml_dtypes.bfloat16))
    bfloat16[:] = 1.5
    assert bfloat16.dtype == ml_dtypes.bfloat16
    assert bfloat16.tolist() == [1.5] * 4


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((-1,), "f4", ValueError),
        (("a",), "f4", TypeError),
        ((2.0,), "f4", TypeError),
        ((2**62, 4), "f4", ValueError),
        ((2**70,), "f4", (ValueError, OverflowError)),
        ((2,), "no such dtype", TypeError),
        ((2**46,), "f4", MemoryError),
    ],
)
def test_empty_refuses_what_numpy_refuses(shape, dtype, error):
    """Bad arguments raise NumPy's errors and leave the current handler as it was."""
    with pytest.raises(error):
        np.empty(shape, dtype)
    with pytest.raises(error):
        native.empty(shape, dtype)
    assert handler_name() == "default_allocator"


@needs_native
def test_empty_wants_two_arguments():
    """A wrong number of arguments is a TypeError that names the function."""
    with pytest.raises(TypeError, match=r"empty: expected \(shape, dtype\) but got 1"):
        native.empty((2,))


@needs_native
def test_data_is_aligned():
    """Data of our blocks starts at a cache line, large data in a huge page's first page."""
    for size in (20_000, 50_000, 300_000, 5_000_000):
        assert native.empty(size, "u1").ctypes.data % 64 == 0
    assert 0 < native.empty(8 * MB, "u1").ctypes.data % (2 * MB) < 4096


@needs_native
def test_large_blocks_begin_at_different_places_of_a_page(clean_cache):
    """No array begins just behind another modulo 4096: reads of one would wait for writes to it."""
    for size in (100_000, MB, 8 * MB):
        held = [native.empty(size, "u1") for _ in range(7)]
        begins = [array.ctypes.data % 4096 for array in held]
        distances = [(a - b) % 4096 for a in begins for b in [16, 64, *begins] if a != b]
        assert len(set(begins)) > 3
        # The C library's small blocks, to 2 MB, begin where the heap has room.
        assert size < 2 * MB or min(distances) >= 512
        assert size < 2 * MB or len(set(begins)) == 7


# --- the handler is scoped -----------------------------------------------------------------------


@needs_native
def test_handler_is_not_left_installed():
    """Only large arrays made by native.empty have the handler; plain NumPy keeps its own."""
    before = np.empty(5000)
    ours = native.empty(5000, "f8")
    after = np.empty(5000)
    assert handler_name(ours) == "pyframe"
    assert handler_name(native.empty(100, "f8")) == "default_allocator"
    assert handler_name(before) == handler_name(after) == handler_name() == "default_allocator"
    assert handler_name(ours.copy()) == handler_name(ours + 1) == "default_allocator"


@needs_native
def test_handler_works_in_threads_and_tasks():
    """The handler works in new threads and asyncio tasks, and none of them keeps it."""
    names = []

    def make():
        names.append((handler_name(native.empty(5000, "f8")), handler_name()))

    async def task():
        make()
        await asyncio.sleep(0)
        make()

    async def tasks():
        await asyncio.gather(*(task() for _ in range(5)))

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(tasks())
    assert set(names) == {("pyframe", "default_allocator")}
    assert len(names) == 15


@needs_native
def test_arrays_resize_with_their_own_handler(clean_cache):
    """An in-place resize uses the handler that made the array, and keeps the contents."""
    array = native.empty(10_000, "i4")
    array[:] = np.arange(10_000)
    array.resize(100_000, refcheck=False)
    assert handler_name(array) == "pyframe"
    assert (array[:10_000] == np.arange(10_000)).all()
    array.resize(10, refcheck=False)
    assert array.tolist() == list(range(10))
    del array
    assert stats_now().in_use == 0


# --- the allocator -------------------------------------------------------------------------------


@needs_native
def test_blocks_are_reused_and_counted(clean_cache):
    """A freed block serves the next request of its size, and the statistics say so."""
    assert stats_now().in_use == 0
    array = native.empty(MB, "f4")
    address = array.ctypes.data
    stats = stats_now()
    assert 4 * MB <= stats.in_use <= 4.5 * MB
    assert (stats.cached, stats.peak, stats.hits, stats.misses) == (0, stats.in_use, 0, 1)
    block = stats.in_use
    del array
    stats = stats_now()
    assert (stats.in_use, stats.cached, stats.peak) == (0, block, block)
    array = native.empty((4, MB // 4), "f4")
    assert array.ctypes.data == address
    stats = stats_now()
    assert (stats.in_use, stats.cached, stats.hits, stats.misses) == (block, 0, 1, 1)
    other = native.empty(MB, "f4")
    assert other.ctypes.data != address
    assert stats_now().peak == 2 * block
    del array, other
    native.reset_allocator_stats()
    stats = stats_now()
    assert (stats.peak, stats.hits, stats.misses) == (0, 0, 0)
    assert native.release_cache() == 2 * block
    assert stats_now().cached == 0
    assert native.release_cache() == 0


@needs_native
def test_size_classes_waste_at_most_an_eighth(clean_cache):
    """Blocks are large enough, and at most an eighth (or a cache line) larger than asked for."""
    sizes = {10**7, 10**8} | {
        2**power + offset for power in range(15, 28) for offset in (-65, -1, 0, 1, 64)
    }
    for size in sorted(sizes):
        before = stats_now().in_use
        array = native.empty(size, "u1")
        block = stats_now().in_use - before
        assert size <= block <= max(size * 9 / 8, size + 64), size
        del array


@needs_native
def test_cache_keeps_to_its_limit(clean_cache):
    """Beyond the limit, the blocks that are unused for the longest time go back first."""
    native.set_cache_limit(3 * MB)
    sizes = [MB, MB, 2 * MB]
    arrays = [native.empty(size, "u1") for size in sizes]
    addresses = [array.ctypes.data for array in arrays]
    while arrays:
        del arrays[0]
    stats = stats_now()
    assert (stats.cached, stats.limit) == (3 * MB, 3 * MB)
    second = native.empty(MB, "u1")
    assert second.ctypes.data == addresses[1]
    assert stats_now().hits == 1
    del second
    native.set_cache_limit(0)
    assert stats_now().cached == 0
    array = native.empty(MB, "u1")
    del array
    assert stats_now().cached == 0


def test_cache_limit_must_not_be_negative():
    """A negative limit is refused."""
    with pytest.raises(ValueError, match="set_cache_limit: expected"):
        native.set_cache_limit(-1)


@needs_native
def test_memory_pressure_gives_up_the_cache(clean_cache):
    """A request the system cannot meet empties the cache, and then is a MemoryError."""
    array = native.empty(MB, "u1")
    del array
    with pytest.raises(MemoryError):
        native.empty(2**46, "u1")
    assert stats_now().cached == 0


@needs_native
def test_threads_do_not_mix_up_blocks(clean_cache):
    """Threads that allocate, write and free at the same time never see each other's values."""
    failures = []

    def worker(seed):
        random = np.random.default_rng(seed)
        held = []
        for step in range(300):
            value = seed * 1000 + step
            array = native.empty(int(random.integers(1, 60_000)), "i4")
            array[:] = value
            held.append((array, value))
            if len(held) > 8:
                old, expected = held.pop(int(random.integers(len(held))))
                if not (old == expected).all():
                    failures.append((seed, step))

    threads = [threading.Thread(target=worker, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert stats_now().in_use == 0


@needs_native
def test_arrays_are_freed_in_other_threads(clean_cache):
    """An array made in one thread may die in another one."""
    held = [native.empty(10_000, "f4") for _ in range(100)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    stats = stats_now()
    assert stats.in_use == 0
    assert stats.cached > 0


# --- processes -----------------------------------------------------------------------------------


def _child(array, connection):
    """In a forked process: use an inherited array, make and free others."""
    total = float(array.sum())
    del array
    made = native.empty(MB, "f4")
    made[:] = 2
    connection.send((total, float(made.sum()), handler_name(made)))
    connection.close()


@needs_native
def test_forked_processes_allocate_and_free(clean_cache):
    """Arrays cross a fork, in both directions of freeing, and both processes go on allocating."""
    context = multiprocessing.get_context("fork")
    array = native.empty(MB, "f4")
    array[:] = 1
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_child, args=(array, child_end))
    process.start()
    assert parent_end.poll(60)
    assert parent_end.recv() == (MB, 2 * MB, "pyframe")
    process.join(60)
    assert process.exitcode == 0
    assert array.sum() == MB


FORK_WHILE_ALLOCATING = """
import os, threading
import numpy as np
from pyframe.backend import native

stop = False
def churn():
    while not stop:
        held = [native.empty(n, "u1") for n in (10, 5000, 3_000_000)]
        del held
thread = threading.Thread(target=churn)
thread.start()
for _ in range(20):
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this program has a thread of its own while it forks
        child = os.fork()
    if child == 0:
        for n in (10, 5000, 3_000_000):
            native.empty(n, "u1")[:] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop = True
thread.join()
print("done")
"""


@needs_native
def test_fork_while_another_thread_allocates():
    """A child never inherits an allocator that is locked by a thread it does not have."""
    assert run_python(FORK_WHILE_ALLOCATING) == "done"


@needs_native
def test_arrays_alive_at_exit_are_harmless():
    """Arrays in globals, cycles and other threads do not disturb the interpreter's exit."""
    code = (
        "import threading, time\n"
        "from pyframe.backend import native\n"
        "kept = native.empty(10_000_000, 'f4'); kept[:] = 1\n"
        "cycle = [native.empty(1000, 'O')]; cycle[0][0] = cycle\n"
        "local = threading.local(); local.array = native.empty(100, 'f4')\n"
        "class Late:\n"
        "    def __init__(self): self.array = native.empty(5000, 'f4')\n"
        "    def __del__(self): self.array = None\n"
        "late = Late()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "print('done')\n"
    )
    assert run_python(code) == "done"


# --- copy and fill -------------------------------------------------------------------------------


@needs_native
@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_001])
@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "f8", "c16", ml_dtypes.bfloat16])
def test_copy_and_fill(size, dtype):
    """Parallel copies and fills write every byte, and no byte more."""
    guarded = np.zeros(size + 2, dtype)
    inner = guarded[1:-1]
    value = np.array([3], dtype)
    native.module.fill(inner, value)
    assert (inner == value[0]).all()
    source = native.empty(size, dtype)
    source[:] = np.arange(size) % 100
    native.module.copy(inner, source)
    assert (inner == source).all()
    assert guarded[0] == guarded[-1] == 0


@needs_native
def test_copy_and_fill_refuse_bad_arguments():
    """Sizes, layouts and read-only destinations are checked before anything is written."""
    copy, fill = native.module.copy, native.module.fill
    with pytest.raises(ValueError, match="destination has 8 bytes but source has 16"):
        copy(np.zeros(2, "f4"), np.zeros(2, "f8"))
    with pytest.raises(ValueError, match="source must be C-contiguous"):
        copy(np.zeros(2, "f4"), np.zeros(4, "f4")[::2])
    with pytest.raises(ValueError, match="one element"):
        fill(np.zeros(2, "f4"), np.zeros(1, "f8"))
    frozen = np.zeros(2, "f4")
    frozen.flags.writeable = False
    with pytest.raises((ValueError, RuntimeError), match="writeable"):
        fill(frozen, np.zeros(1, "f4"))


# --- the loader ----------------------------------------------------------------------------------

REPORT = """
import json
from pyframe.backend import native
array = native.empty((2, 3), "f4")
state = [native.available(), native.why_not(), native.isa(), list(array.shape)]
state += [native.num_threads(), native.allocator_stats().limit, native.release_cache()]
print(json.dumps(state))
"""


def test_works_without_the_extension():
    """With PYFRAME_NO_NATIVE=1 everything falls back to NumPy and says why."""
    code = (
        REPORT
        + "native.set_cache_limit(5); native.reset_allocator_stats(); native.set_num_threads(1)\n"
    )
    code += "assert native.num_threads() == 1"
    output = json.loads(run_python(code, PYFRAME_NO_NATIVE="1", PYFRAME_NUM_THREADS="3"))
    assert output == [False, "PYFRAME_NO_NATIVE is set", "none", [2, 3], 3, 0, 0]


@needs_native
def test_environment_sets_threads_and_isa():
    """PYFRAME_NUM_THREADS governs the pool and the BLAS, PYFRAME_ISA forces a lower level."""
    code = REPORT + "from pyframe.backend import blas_threads; print(blas_threads.num_threads())"
    report, blas = run_python(code, PYFRAME_NUM_THREADS="3", PYFRAME_ISA="baseline").splitlines()
    available, why_not, isa, _, threads, *_ = json.loads(report)
    assert (available, why_not, isa, threads) == (True, None, "baseline", 3)
    if blas != "None":
        assert int(blas) == 3


@needs_native
def test_impossible_settings_are_reported():
    """An unknown instruction set turns the extension off, with a warning that lists the known."""
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    from pyframe.backend import native\n"
        "print(native.available(), '|', native.why_not(), '|', [str(w.message) for w in caught])\n"
    )
    output = run_python(code, PYFRAME_ISA="sse9")
    assert output.startswith("False | it cannot be loaded: ")
    assert "PYFRAME_ISA=sse9 is not available here; this machine has baseline" in output
    output = run_python(code, PYFRAME_NUM_THREADS="many")
    assert output.startswith("True")
    assert "PYFRAME_NUM_THREADS=many is ignored" in output


def test_missing_and_broken_files_are_explained(tmp_path, monkeypatch):
    """The reason for a missing extension comes from the build report; a broken file is no crash."""
    report = tmp_path / "report.json"
    monkeypatch.setattr(native, "_BUILD_REPORT", report)
    assert native.build_report() is None
    assert "has not been built" in native._explain_missing()
    report.write_text("{ not json")
    assert native.build_report() is None
    report.write_text(json.dumps({"status": "failed", "reason": "no C++ compiler was found"}))
    assert native._explain_missing() == "its build failed: no C++ compiler was found"
    report.write_text(json.dumps({"status": "ok", "python": "3.1"}))
    assert "built for Python 3.1, but this is" in native._explain_missing()
    broken = tmp_path / "_native.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setenv("PYFRAME_NATIVE_PATH", str(broken))
    monkeypatch.delenv("PYFRAME_NO_NATIVE", raising=False)
    with pytest.warns(UserWarning, match="native extension is off"):
        module, reason = native._load()
    assert module is None
    assert "cannot be loaded" in reason


def test_a_stale_extension_says_how_to_build_it_again():
    """A function that the extension lacks is named, with the command; ``getattr`` still works."""
    with pytest.raises(AttributeError, match=r"'no_such'.*older than.*pip install --editable"):
        native.module.no_such
    assert getattr(native.module, "no_such", None) is None


def test_threads_govern_the_blas():
    """One setting changes the pool and NumPy's OpenBLAS, and impossible counts are refused."""
    before = native.num_threads()
    try:
        for count in (1, 2):
            native.set_num_threads(count)
            assert native.num_threads() == count
            assert blas_threads.num_threads() in (count, None)
    finally:
        native.set_num_threads(before)
    for bad in (0, -1, 2000, 1.5, True, "2"):
        with pytest.raises(ValueError, match="set_num_threads: expected an int from 1 to 1024"):
            native.set_num_threads(bad)


def test_kernel_sources_are_found():
    """The kernels' folder is found from a checkout and from an installation."""
    folder = kernel_sources.folder()
    assert (folder / "__init__.py").is_file()
    assert "__init__.py" not in kernel_sources.names()
    with pytest.raises(FileNotFoundError, match=r"no kernel file missing\.cu"):
        kernel_sources.path("missing.cu")
