"""The native thread pool: coverage, determinism, errors, nesting, many callers, forks."""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pyframe.backend import native

if not native.available():
    pytest.skip(f"native extension: {native.why_not()}", allow_module_level=True)

pool = native.module.testing
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[1, 2, 3, 8])
def threads(request):
    """Run with this many threads, also with more than there are CPUs."""
    before = native.num_threads()
    native.set_num_threads(request.param)
    yield request.param
    native.set_num_threads(before)


@pytest.fixture
def three_threads():
    """Run with three threads."""
    before = native.num_threads()
    native.set_num_threads(3)
    yield
    native.set_num_threads(before)


@pytest.mark.parametrize(
    ("begin", "end", "grain"),
    [
        (0, 0, 1),
        (5, 3, 1),
        (0, 1, 1),
        (0, 7, 1),
        (0, 1000, 1),
        (-50, 51, 7),
        (0, 10, 100),
        (3, 10**12, 10**6),
        (0, 33, 0),
        (0, 33, -4),
    ],
)
def test_chunks_cover_the_range(threads, begin, end, grain):
    """Chunks are disjoint, in order, cover everything, and respect the grain."""
    chunks = pool.chunks(begin, end, grain)
    if begin >= end:
        assert chunks == []
        return
    assert chunks[0][0] == begin
    assert chunks[-1][1] == end
    assert all(left[1] == right[0] for left, right in itertools.pairwise(chunks))
    sizes = [stop - start for start, stop in chunks]
    assert min(sizes) >= min(max(grain, 1), end - begin)
    assert max(sizes) - min(sizes) <= 1
    assert len(chunks) <= max(1, 4 * threads)


def test_chunks_are_deterministic(threads):
    """The cut depends on the range, the grain and the number of threads only."""
    assert len({tuple(pool.chunks(0, 12345, 10)) for _ in range(200)}) == 1


def test_every_index_is_visited_once(threads):
    """Thousands of short loops in a row lose and repeat nothing."""
    assert pool.visits(1000, 1, 3000) == (3000, 3000)


def test_workers_wake_up_after_sleeping(three_threads):
    """A pause longer than the spinning does no harm."""
    pause = threading.Event()
    for _ in range(20):
        pause.wait(0.002)
        assert pool.visits(100, 1, 3) == (3, 3)


def test_exceptions_reach_the_caller(threads):
    """A failing chunk raises in the caller, and the pool works on afterwards."""
    for at in (0, 1, 500, 999):
        with pytest.raises(IndexError, match=f"planted failure at {at}"):
            pool.fail(1000, 1, at)
        assert pool.visits(100, 1, 2) == (2, 2)


def test_nested_loops_stay_on_their_thread(threads):
    """A loop inside a loop runs on the thread that starts it."""
    total, stayed = pool.nested(60, 50)
    assert total == 60 * 50
    assert stayed or threads == 1


def test_threads_cannot_change_inside_a_loop(three_threads):
    """Changing the number of threads inside a loop raises instead of waiting for itself."""
    with pytest.raises(RuntimeError, match="inside a parallel loop"):
        pool.resize_inside()


def test_many_python_threads_call_at_once(three_threads):
    """While one thread has the pool, others run their loops themselves; resizing waits."""
    results = []

    def caller():
        for _ in range(20):
            results.append(pool.visits(500, 1, 50))
            with pytest.raises(IndexError):
                pool.fail(100, 1, 50)

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    for count in (2, 4, 1, 3):
        native.set_num_threads(count)
    for thread in callers:
        thread.join()
    assert results == [(50, 50)] * 80


FORK = """
import os, warnings
from pyframe.backend import native
native.module.set_num_threads(3)
visits = native.module.testing.visits
assert visits(100, 1, 5) == (5, 5)

def live():
    return len(os.listdir("/proc/self/task"))

with_pool = live()
for depth in range(10):
    child = os.fork()
    if child == 0:
        assert visits(100, 1, 5) == (5, 5)  # the pool starts again in the child
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if visits(100, 1, 5) == (5, 5) else 1)
        os._exit(os.waitpid(grandchild, 0)[1] != 0)
    assert os.waitpid(child, 0)[1] == 0
    assert visits(100, 1, 5) == (5, 5)      # and in the parent
    assert live() == with_pool
print("done")
"""

FORK_IN_USE = """
import os, threading, warnings
from pyframe.backend import native
native.module.set_num_threads(3)
visits = native.module.testing.visits
stop = False
def churn():
    while not stop:
        assert visits(100, 1, 50) == (50, 50)
thread = threading.Thread(target=churn)
thread.start()
for _ in range(30):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this program has a thread of its own while it forks
        child = os.fork()
    if child == 0:
        os._exit(0 if visits(100, 1, 5) == (5, 5) else 1)
    assert os.waitpid(child, 0)[1] == 0
stop = True
thread.join()
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
@pytest.mark.parametrize("code", [FORK, FORK_IN_USE], ids=["idle", "in use"])
def test_fork(code):
    """Forks neither warn (as 3.12 does about live threads) nor hang; the pool restarts."""
    # One thread keeps OpenBLAS, which stops and restarts threads of its own, out of the count.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "done", "")


def test_exit_with_a_live_pool():
    """The interpreter exits cleanly while workers sleep, and while a daemon thread is in a loop."""
    code = (
        "import threading\n"
        "from pyframe.backend import native\n"
        "native.set_num_threads(3)\n"
        "visits = native.module.testing.visits\n"
        "visits(100, 1, 5)\n"
        "threading.Thread(target=visits, args=(100_000, 1, 10_000), daemon=True).start()\n"
        "print('done')\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "done", "")
