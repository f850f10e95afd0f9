"""``pyframe.cuda``: devices, streams, memory and graphs under PyTorch's names (L6).

Importing it needs no GPU. What needs one raises :class:`pyframe.errors.DeviceError`, which says
what is missing; :func:`is_available` and :func:`device_count` answer everywhere.
"""

from ..errors import OutOfMemoryError
from . import amp
from .devices import (
    can_device_access_peer,
    current_device,
    device,
    device_count,
    get_device_capability,
    get_device_name,
    get_device_properties,
    is_available,
    is_initialized,
    manual_seed,
    manual_seed_all,
    mem_get_info,
    set_device,
    synchronize,
)
from .graphs import Graph, graph, is_current_stream_capturing
from .memory import (
    empty_cache,
    max_memory_allocated,
    max_memory_reserved,
    memory_allocated,
    memory_reserved,
    memory_stats,
    memory_summary,
    reset_peak_memory_stats,
    set_per_process_memory_fraction,
)
from .streams import (
    Event,
    Stream,
    current_stream,
    default_stream,
    set_stream,
    stream,
)

CUDAGraph = Graph

__all__ = [
    "CUDAGraph",
    "Event",
    "Graph",
    "OutOfMemoryError",
    "Stream",
    "amp",
    "can_device_access_peer",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "graph",
    "is_available",
    "is_current_stream_capturing",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_peak_memory_stats",
    "set_device",
    "set_per_process_memory_fraction",
    "set_stream",
    "stream",
    "synchronize",
]
