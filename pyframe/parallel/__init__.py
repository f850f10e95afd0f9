"""Training on several processes and machines (L6): process groups, collectives, data parallelism.

The names are those of ``torch.distributed``. Importing this package imports no MPI; that is done by
``init_process_group``. Programs are started by ``pyframe launch -n 4 program.py``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Each public name and the module that has it; imported at first use.
_NAMES = {
    "data_parallel": "DistributedDataParallel",
    "group": (
        "init_process_group destroy_process_group is_initialized is_available get_rank "
        "get_world_size get_backend get_process_group_ranks new_group ProcessGroup "
        "NON_GROUP_MEMBER"
    ),
    "collectives": (
        "all_reduce reduce broadcast all_gather all_gather_into_tensor reduce_scatter "
        "reduce_scatter_tensor gather scatter barrier"
    ),
    "pipeline": "PipelineStage ScheduleGPipe Schedule1F1B",
    "placement": "Pipe split_sequential",
    "point_to_point": "send recv isend irecv batch_isend_irecv P2POp",
    "tensor_parallel": "ColumnParallelLinear RowParallelLinear OneWeirdTrick",
    "objects": "all_gather_object gather_object broadcast_object_list scatter_object_list",
    "replicate": "DataParallel",
    "sharded_optimizer": "ZeroRedundancyOptimizer",
    "sync_batch_norm": "SyncBatchNorm",
    "transport": "ReduceOp Transport",
    "work": "Work",
}
_PLACES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


if TYPE_CHECKING:
    from .collectives import *
    from .group import *
    from .objects import *
    from .point_to_point import *
