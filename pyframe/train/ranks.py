"""What a run on several ranks does differently from a run in one process (L6)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import random
from ..data import DistributedBatchSampler
from ..data.context import mix
from ..errors import ArgumentError, fail

# What mpirun and srun set for each rank. (Slurm's own variables are also there in a batch script.)
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")


def inside_a_job() -> bool:
    """Whether this process was started as one of several ranks."""
    return any(name in os.environ for name in _RANK_VARIABLES)


class Ranks:
    """This process among those of a run.

    Args:
        rank: its number.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, expected: int) -> Ranks:
        """Joins the job's ranks.

        Raises:
            ArgumentError: if their number is not the expected one.
        """
        from .. import parallel

        parallel.init_process_group()
        size = parallel.get_world_size()
        if size != expected:
            what = f"the run is for {expected} ranks, but the job has {size}"
            fail(ArgumentError, "train", what, f"Pass --ranks {size}.")
        return cls(parallel.get_rank(), size)

    def wrapped(self, model: Any) -> tuple[Any, Any]:
        """The model to save, and what is called in training: the same, on one rank."""
        if self.size == 1:
            return model, model
        from ..parallel import DistributedDataParallel, SyncBatchNorm

        model = SyncBatchNorm.convert_sync_batchnorm(model)
        return model, DistributedDataParallel(model)

    def share(self, batches: Any) -> Any:
        """This rank's part of each batch."""
        return DistributedBatchSampler(batches, self.size, self.rank)

    def own_stream(self) -> None:
        """Gives this rank dropout masks and the like of its own.

        The default generator has rank 0's state. All ranks make the same calls, so the place in the
        streams stays the same everywhere, and only seeds differ: rank 0's state tells them all.
        """
        if self.rank:
            state = random.get_rng_state()
            seed = int.from_bytes(state[8:16].tobytes(), "little")
            state[8:16] = np.frombuffer(mix(seed, self.rank).to_bytes(8, "little"), np.uint8)
            random.set_rng_state(state)

    def first(self, value: Any) -> Any:
        """Rank 0's value."""
        if self.size == 1:
            return value
        from ..parallel import broadcast_object_list

        values = [value]
        broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Returns when all ranks have come here."""
        if self.size > 1:
            from ..parallel import barrier

            barrier()

    def sum(self, numbers: Iterable[float]) -> list[float]:
        """The sums over all ranks."""
        values = np.array(list(numbers), np.float64)
        if self.size > 1:
            from ..parallel import all_reduce

            all_reduce(values)
        return values.tolist()


ONE = Ranks()
