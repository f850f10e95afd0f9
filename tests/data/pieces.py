"""Datasets and functions for the loader tests; here so that spawned workers can import them."""

import os
import random
import time

import numpy as np

from pyframe import data


class Squares(data.Dataset):
    """Sample i is i squared, as an array, with its number."""

    def __init__(self, count=20):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"x": np.full((3,), index * index, np.float32), "i": index}


class Noisy(Squares):
    """Adds a random number from the generator that the loader provides."""

    def __getitem__(self, index):
        seed, offset = data.sample_generator().reserve(1)
        return np.array([index, seed % 2**31, offset], np.int64)


class Stream(data.IterableDataset):
    """Numbers, shared out among the workers; unequal shares."""

    def __init__(self, count=23, split=True):
        self.count = count
        self.split = split

    def __iter__(self):
        info = data.get_worker_info()
        numbers = range(self.count)
        if info is not None and self.split:
            if info.id == 0:
                numbers = range(4)
            else:
                numbers = range(4 + info.id - 1, self.count, info.num_workers - 1 or 1)
        for number in numbers:
            yield np.array([number, random.getrandbits(30)])


class Failing(Squares):
    def __init__(self, kind, where=7):
        super().__init__()
        self.kind = kind
        self.where = where

    def __getitem__(self, index):
        if index == self.where:
            raise self.kind(f"bad sample {index}")
        return index


class Awkward(Exception):
    """Cannot be made from one argument."""

    def __init__(self, a, b):
        super().__init__(a, b)


class FailingAwkwardly(Squares):
    def __getitem__(self, index):
        raise Awkward(1, 2)


class Dying(Squares):
    """Kills its own process at one sample."""

    def __init__(self, signum, where=9):
        super().__init__()
        self.signum = signum
        self.where = where

    def __getitem__(self, index):
        if index == self.where:
            if self.signum is None:
                os._exit(3)
            os.kill(os.getpid(), self.signum)
            time.sleep(60)
        return index


class Slow(Squares):
    def __init__(self, seconds, count=20):
        super().__init__(count)
        self.seconds = seconds

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return index


class Stuck(Slow):
    """The first samples come at once, the others after a time longer than any test."""

    def __init__(self):
        super().__init__(0, 10_000)

    def __getitem__(self, index):
        if index >= 4:
            time.sleep(60)
        return index


class Pids(Squares):
    def __getitem__(self, index):
        return os.getpid()


class Ids(Squares):
    def __getitem__(self, index):
        info = data.get_worker_info()
        return np.array([info.id, info.num_workers, info.seed % 2**31, random.getrandbits(30)])


class Big(Squares):
    """Samples of changing size, more than a socket's buffer holds."""

    def __getitem__(self, index):
        return np.full((1000 * (1 + index % 3), 100), index, np.float64)


class Texts(Squares):
    """Large samples that do not go through shared memory."""

    def __getitem__(self, index):
        return str(index) * 300_000


def identity(batch):
    return batch


def fail_at_start(worker):
    raise ValueError(f"no start for {worker}")
