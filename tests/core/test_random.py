"""Generators: seeds, states, threads, forks, and states that must be refused."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading
import warnings

import numpy as np
import pytest

from pyframe import philox, random
from pyframe.errors import ArgumentError, ArgumentTypeError, StateError


@pytest.fixture(autouse=True)
def _restored():
    with random.fork_rng():
        yield


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, 0),
        (1, 1),
        (-1, 2**64 - 1),
        (-(2**63), 2**63),
        (2**64 - 1, 2**64 - 1),
        (np.int32(7), 7),
        (True, 1),
    ],
)
def test_seeds_like_torch(seed, expected):
    torch = pytest.importorskip("torch")
    generator = random.Generator()
    assert generator.manual_seed(seed) is generator
    assert generator.initial_seed() == expected
    reference = torch.Generator().manual_seed(int(seed)).initial_seed()
    assert reference % 2**64 == expected
    assert generator.reserve() == (expected, 0)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**30])
def test_seeds_out_of_range(seed):
    with pytest.raises(ArgumentError, match=r"manual_seed: .*2\*\*64"):
        random.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", [1.5, "1", None, [1]])
def test_seeds_of_other_types(seed):
    with pytest.raises(ArgumentTypeError, match="manual_seed"):
        random.Generator().manual_seed(seed)


def test_default_seed_is_torchs():
    torch = pytest.importorskip("torch")
    assert random.Generator().initial_seed() == torch.Generator().initial_seed()


def test_every_call_gets_its_own_offset():
    generator = random.Generator().manual_seed(3)
    assert [generator.reserve(n) for n in (1, 0, 10**15)] == [(3, 0), (3, 1), (3, 2)]
    generator.manual_seed(3)
    assert generator.reserve() == (3, 0)
    with pytest.raises(ArgumentError):
        generator.reserve(-1)


def test_state_is_saved_and_restored():
    generator = random.Generator("cuda:1").manual_seed(2**63 + 5)
    for _ in range(5):
        generator.reserve(7)
    state = generator.get_state()
    assert state.dtype == np.uint8
    assert state.shape == (24,)
    expected = [philox.bits(np, *generator.reserve(9), 9) for _ in range(3)]
    other = random.Generator().set_state(state)
    assert other.initial_seed() == 2**63 + 5
    got = [philox.bits(np, *other.reserve(9), 9) for _ in range(3)]
    assert all(map(np.array_equal, got, expected))
    state[8] ^= 1  # a copy: the generator is unaffected
    assert other.initial_seed() == 2**63 + 5
    assert generator.device == "cuda:1"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, random.Generator.clone_state])
def test_copies_are_independent(duplicate):
    generator = random.Generator().manual_seed(4)
    generator.reserve()
    twin = duplicate(generator)
    assert twin.reserve() == generator.reserve() == (4, 1)
    twin.manual_seed(5)
    assert generator.initial_seed() == 4


def test_pickle():
    generator = random.Generator().manual_seed(4)
    generator.reserve()
    assert pickle.loads(pickle.dumps(generator)).reserve() == (4, 1)


GOOD = random.Generator().get_state()


@pytest.mark.parametrize(
    "state",
    [
        GOOD[:-1],
        np.concatenate([GOOD, GOOD[:1]]),
        np.zeros(24, np.uint8),
        np.zeros(0, np.uint8),
        GOOD.reshape(2, 12),
        GOOD.astype(np.int64),
        np.full(24, 255, np.uint8),
        np.concatenate([GOOD[:7] ^ 1, GOOD[7:]]),
        b"x" * 24,
        None,
        "pfPhilo1",
        [len],
    ],
    ids=repr,
)
def test_hostile_states(state):
    generator = random.Generator().manual_seed(6)
    generator.reserve()
    with pytest.raises(StateError, match="set_state"):
        generator.set_state(state)
    assert generator.reserve() == (6, 1)


def test_an_exhausted_generator_says_so():
    state = GOOD.copy()
    state[16:] = 255
    generator = random.Generator().set_state(state)
    with pytest.raises(StateError, match="exhausted"):
        generator.reserve()


def test_threads_never_share_an_offset():
    generator = random.Generator().manual_seed(1)
    threads, each = 8, 2000
    taken = [[] for _ in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [
            threading.Thread(target=lambda t=t: t.extend(generator.reserve(1) for _ in range(each)))
            for t in taken
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    offsets = [offset for t in taken for _, offset in t]
    assert sorted(offsets) == list(range(threads * each))
    assert all(t == sorted(t) for t in taken)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_lock_held_at_a_fork_does_not_hang_the_child():
    generator = random.Generator().manual_seed(1)
    with generator._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests' libraries
        child = os.fork()
        if child == 0:
            taken = threading.Thread(target=generator.reserve, daemon=True)
            taken.start()
            taken.join(10)
            os._exit(int(taken.is_alive()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_default_generator():
    assert random.manual_seed(9) is random.default_generator
    assert random.initial_seed() == 9
    state = random.get_rng_state()
    first = random.default_generator.reserve()
    random.set_rng_state(state)
    assert random.default_generator.reserve() == first == (9, 0)
    fresh = random.seed()
    assert random.initial_seed() == fresh
    assert 0 <= fresh < 2**64
    assert random.seed() != fresh


def test_fork_rng():
    random.manual_seed(9)

    def interrupted():
        with random.fork_rng(devices=[0]):
            random.manual_seed(10)
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert random.initial_seed() == 9
    with random.fork_rng(enabled=False):
        random.manual_seed(10)
    assert random.initial_seed() == 10
