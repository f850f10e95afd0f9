"""DataLoader with worker processes: same batches, errors, deaths, clean ends, resuming."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pyframe import data
from pyframe.data.workers import WorkerError
from pyframe.random import Generator
from pyframe.tensor import Tensor, from_numpy
from tests.data import pieces

# Another library of the test process (torch) may have threads running.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

ROOT = Path(__file__).parents[2]
CONTEXTS = [name for name in ("fork", "spawn", "forkserver") if sys.platform != "win32"]


def plain(batch):
    if isinstance(batch, Tensor):
        return batch.numpy().tolist()
    if isinstance(batch, dict):
        return {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [plain(value) for value in batch]
    return batch


def contents(loader):
    return [plain(batch) for batch in loader]


def seeded(dataset, seed=3, **options):
    return data.DataLoader(dataset, 3, generator=Generator().manual_seed(seed), **options)


def children():
    """The worker processes of this process that are alive."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    found = []
    for pid in text.split():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"resource_tracker" not in command and b"forkserver" not in command and command:
            found.append(int(pid))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds=8.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """Every test ends without workers, shared memory files or open descriptors."""
    gc.collect()
    shared = set(Path("/dev/shm").iterdir())
    yield
    gc.collect()
    assert wait_until(lambda: not children()), children()
    left = {path for path in set(Path("/dev/shm").iterdir()) - shared if "pyframe" in path.name}
    assert not left


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("workers", [1, 3])
def test_same_batches_as_without_workers(context, workers):
    for dataset in (pieces.Squares(), pieces.Noisy()):
        expected = contents(seeded(dataset, shuffle=True))
        loader = seeded(dataset, shuffle=True, num_workers=workers, multiprocessing_context=context)
        assert contents(loader) == expected


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_epochs(persistent, prefetch):
    one = seeded(pieces.Noisy(), shuffle=True)
    many = seeded(
        pieces.Noisy(),
        shuffle=True,
        num_workers=2,
        persistent_workers=persistent,
        prefetch_factor=prefetch,
    )
    for _ in range(3):
        assert contents(many) == contents(one)
    for loader in (one, many):
        for _ in loader:
            break  # what was read ahead must not turn up in the next epoch
    assert contents(many) == contents(one)


def test_tensor_dataset_and_samples_without_batching():
    x = np.random.default_rng(0).random((10, 4))
    dataset = data.TensorDataset(from_numpy(x), from_numpy(np.arange(10)))
    batches = list(data.DataLoader(dataset, 4, num_workers=2))
    np.testing.assert_array_equal(np.concatenate([b[0].numpy() for b in batches]), x)
    assert plain(batches[2][1]) == [8, 9]
    samples = contents(data.DataLoader(pieces.Squares(3), None, num_workers=2))
    assert samples == contents(data.DataLoader(pieces.Squares(3), None))


def test_persistent_workers_are_kept():
    loader = data.DataLoader(pieces.Pids(8), 1, num_workers=2, persistent_workers=True)
    first = {batch[0] for batch in contents(loader)}
    for _ in loader:
        break  # batches still under way are dropped at the next epoch
    assert {batch[0] for batch in contents(loader)} == first
    assert len(first) == 2
    del loader


def test_more_workers_than_batches_and_no_batches():
    assert contents(data.DataLoader(range(3), 2, num_workers=4)) == [[0, 1], [2]]
    assert contents(data.DataLoader([], 2, num_workers=2)) == []


def test_sizes_that_change_and_batches_that_are_kept():
    loader = data.DataLoader(pieces.Big(90), 1, num_workers=2)
    descriptors = len(os.listdir("/proc/self/fd"))
    kept = list(loader)
    assert len(os.listdir("/proc/self/fd")) < descriptors + 60
    for index, batch in enumerate(kept):
        assert tuple(batch.shape) == (1, 1000 * (1 + index % 3), 100)
        assert (batch.numpy() == index).all()
        assert batch.numpy().flags.writeable
    del kept, batch
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2


def test_memory_is_used_again():
    loader = data.DataLoader(pieces.Squares(300), 1, num_workers=1, collate_fn=pieces.identity)
    addresses = {batch[0]["x"].__array_interface__["data"][0] for batch in loader}
    assert len(addresses) <= 6


def test_large_messages_both_ways():
    texts = contents(data.DataLoader(pieces.Texts(6), 2, num_workers=2, collate_fn=pieces.identity))
    assert [len(text) for batch in texts for text in batch] == [300_000] * 6
    long = [[0] * 100_000, [1] * 100_000] * 2
    loader = data.DataLoader(
        pieces.Squares(), batch_sampler=long, num_workers=1, collate_fn=len, prefetch_factor=4
    )
    assert list(loader) == [100_000] * 4


def test_out_of_order_gives_every_batch():
    loader = data.DataLoader(pieces.Squares(), 3, num_workers=3, in_order=False)
    numbers = [number for batch in loader for number in plain(batch["i"])]
    assert sorted(numbers) == list(range(20))


def test_worker_info_and_seeds():
    loader = seeded(pieces.Ids(12), num_workers=2)
    rows = np.concatenate([batch.numpy() for batch in loader])
    assert set(rows[:, 0]) == {0, 1}
    assert set(rows[:, 1]) == {2}
    assert len(set(rows[:, 2])) == 2
    assert len(set(rows[:, 3])) == 12
    again = np.concatenate([b.numpy() for b in seeded(pieces.Ids(12), num_workers=2)])
    np.testing.assert_array_equal(rows, again)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("persistent", [False, True])
def test_streams(workers, persistent):
    loader = seeded(
        pieces.Stream(), num_workers=workers, persistent_workers=persistent, prefetch_factor=3
    )
    for _ in range(2):
        numbers = [row[0] for batch in contents(loader) for row in batch]
        assert sorted(numbers) == (list(range(4)) if workers == 1 else list(range(23)))


def test_a_stream_that_is_not_shared_out_comes_once_per_worker():
    loader = data.DataLoader(pieces.Stream(5, split=False), 5, num_workers=2)
    assert sorted(row[0] for batch in contents(loader) for row in batch) == sorted([*range(5)] * 2)


@pytest.mark.parametrize("kind", [ValueError, KeyError, IndexError, NotImplementedError])
def test_exceptions_keep_their_class_and_traceback(kind):
    with pytest.raises(kind) as error:
        contents(data.DataLoader(pieces.Failing(kind), 2, num_workers=2))
    text = str(error.value)
    assert "in worker process 1" in text
    assert "bad sample 7" in text
    assert "__getitem__" in text
    assert "\n" in text


def test_exceptions_that_cannot_be_made_again():
    with pytest.raises(WorkerError, match="caught Awkward in worker process 0"):
        contents(data.DataLoader(pieces.FailingAwkwardly(), 2, num_workers=1))


def test_iteration_goes_on_after_an_exception():
    walk = iter(data.DataLoader(pieces.Failing(ValueError, 1), 1, num_workers=2))
    assert plain(next(walk)) == [0]
    with pytest.raises(ValueError, match="bad sample 1"):
        next(walk)
    assert plain(next(walk)) == [2]


def test_results_that_cannot_be_sent():
    loader = data.DataLoader(pieces.Squares(), 2, num_workers=1, collate_fn=lambda _: lambda: 0)
    with pytest.raises(Exception, match="in worker process 0"):
        next(iter(loader))


def test_a_failing_start():
    loader = data.DataLoader(
        pieces.Squares(), 2, num_workers=2, worker_init_fn=pieces.fail_at_start
    )
    with pytest.raises(ValueError, match="no start for 0"):
        next(iter(loader))


def test_spawn_without_a_picklable_dataset():
    loader = data.DataLoader(
        range(4),
        num_workers=2,
        collate_fn=lambda samples: samples,
        multiprocessing_context="spawn",
    )
    with pytest.raises(Exception, match="lambda"):
        iter(loader)


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_killed_worker_is_named(context):
    loader = data.DataLoader(
        pieces.Dying(signal.SIGKILL), 1, num_workers=2, multiprocessing_context=context
    )
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"worker 1 \(pid \d+\) was killed by SIGKILL"):
        contents(loader)
    assert time.monotonic() - start < 5


def test_a_worker_that_exits_is_named():
    with pytest.raises(RuntimeError, match=r"worker 0 .* exited unexpectedly with code 3"):
        contents(data.DataLoader(pieces.Dying(None, where=4), 1, num_workers=2))


def test_a_worker_killed_from_outside_while_another_is_waited_for():
    loader = data.DataLoader(pieces.Slow(30.0), 1, num_workers=2)
    walk = iter(loader)
    os.kill(walk._pool.pids[1], signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"worker 1 .* SIGKILL"):
        next(walk)
    assert time.monotonic() - start < 6
    with pytest.raises(StopIteration):
        next(walk)


def test_timeout():
    loader = data.DataLoader(pieces.Slow(30.0), 1, num_workers=1, timeout=0.3)
    with pytest.raises(RuntimeError, match=r"timed out after 0\.3 seconds waiting for worker 0"):
        contents(loader)


def test_workers_end_with_the_loop():
    for _ in data.DataLoader(pieces.Squares(1000), 1, num_workers=2):
        break
    assert wait_until(lambda: not children(), 2)

    def broken():
        for _ in data.DataLoader(pieces.Squares(1000), 1, num_workers=2):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()


def test_two_loaders_at_once():
    first = iter(data.DataLoader(pieces.Squares(), 4, num_workers=2))
    second = iter(data.DataLoader(pieces.Squares(), 4, num_workers=2))
    for one, two in zip(first, second, strict=True):
        assert plain(one) == plain(two)


SCRIPT = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background job
sys.path.insert(0, {root!r})
from pyframe import data
from tests.data import pieces

def main():
    loader = data.DataLoader({dataset}, 1, num_workers=2,
                             multiprocessing_context={context!r})
    walk = iter(loader)
    next(walk)
    print(*walk._pool.pids, flush=True)
    try:
        for _ in walk:
            pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        {after}

if __name__ == "__main__":
    main()
"""


def start_script(tmp_path, context, dataset, after="pass"):
    path = tmp_path / "program.py"
    path.write_text(SCRIPT.format(root=str(ROOT), context=context, dataset=dataset, after=after))
    process = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2, process.communicate()
    return process, pids


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("after", ["pass", "raise"])
def test_interrupt_from_the_keyboard(tmp_path, context, after):
    process, pids = start_script(tmp_path, context, "pieces.Slow(0.05, 10_000)", after)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
    out, err = process.communicate(timeout=20)
    assert "interrupted" in out
    assert err.count("Traceback") == (1 if after == "raise" else 0), err
    assert "pyframe-data-worker" not in err
    assert wait_until(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("dataset", ["pieces.Slow(0.05, 10_000)", "pieces.Stuck()"])
def test_workers_notice_a_killed_parent(tmp_path, context, dataset):
    process, pids = start_script(tmp_path, context, dataset)
    time.sleep(0.1)
    process.kill()
    process.communicate(timeout=20)
    assert wait_until(lambda: not any(map(alive, pids)))


LOADERS = {
    "shuffled": lambda seed, n: seeded(pieces.Noisy(), seed, shuffle=True, num_workers=n),
    "prefetch": lambda seed, n: seeded(
        pieces.Noisy(), seed, shuffle=True, num_workers=n, prefetch_factor=4 if n else None
    ),
    "own_sampler": lambda seed, n: seeded(pieces.Noisy(), seed, sampler=[3] * 17, num_workers=n),
    "persistent": lambda seed, n: seeded(
        pieces.Noisy(), seed, shuffle=True, num_workers=n, persistent_workers=n > 0
    ),
    "stream": lambda seed, n: seeded(pieces.Stream(), seed, num_workers=n),
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("place", [0, 1, 4])
def test_state_resumes_in_the_middle(name, place):
    running = LOADERS[name](3, 2)
    contents(running)
    walk = iter(running)
    for _ in range(place):
        next(walk)
    state = json.loads(json.dumps(running.state_dict()))
    resumed = LOADERS[name](77, 2)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert contents(resumed) == contents(walk)
    assert contents(resumed) == contents(running)


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2), (2, 3)])
def test_state_with_another_number_of_workers(before, after):
    running = LOADERS["shuffled"](3, before)
    walk = iter(running)
    for _ in range(3):
        next(walk)
    resumed = LOADERS["shuffled"](9, after)
    resumed.load_state_dict(running.state_dict())
    assert contents(resumed) == contents(walk)


def test_state_of_a_stream_with_another_number_of_workers_is_refused():
    running = LOADERS["stream"](3, 2)
    walk = iter(running)
    next(walk)
    with pytest.raises(RuntimeError, match="num_workers=2 but this loader has 3"):
        LOADERS["stream"](3, 3).load_state_dict(running.state_dict())


def test_no_state_out_of_order():
    loader = data.DataLoader(pieces.Squares(), 2, num_workers=2, in_order=False)
    walk = iter(loader)
    next(walk)
    with pytest.raises(RuntimeError, match="in_order=False"):
        loader.state_dict()
    assert len(list(walk)) == 9
    assert loader.state_dict()["epoch"] is None
