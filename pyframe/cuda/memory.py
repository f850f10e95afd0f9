"""The memory pool's state under PyTorch's names. The pool is CuPy's.

The pool notes no peak. :func:`reset_peak_memory_stats` has it watched from then on, for about a
microsecond per allocation; before that the peak that is told is that of the reserved memory, which
is no smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..device import Device
from .devices import api, is_available, is_initialized, mem_get_info

_watched: dict[int, Any] = {}
_reserved: dict[int, int] = {}  # the most bytes of each device's pool that were seen


def _default_pool(index: int) -> Any:
    return Device("cuda", index).backend.xp.get_default_memory_pool()


@contextmanager
def _pool(device: Any) -> Iterator[Any]:
    """The pool, with its device current inside the block."""
    cuda, index = api(device)
    with cuda.Device(index):
        yield _default_pool(index)


def memory_allocated(device: Any = None) -> int:
    """Bytes that arrays hold."""
    with _pool(device) as pool:
        return int(pool.used_bytes())


def memory_reserved(device: Any = None) -> int:
    """Bytes that the pool holds: for arrays, and kept for reuse."""
    with _pool(device) as pool:
        return int(pool.total_bytes())


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that arrays held since :func:`reset_peak_memory_stats`.

    Without a reset before: the most that can have been, the reserved bytes.
    """
    index = api(device)[1]
    watch = _watched.get(index)
    if watch is None:
        return max_memory_reserved(device)
    return max(watch.peak, memory_allocated(device))


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes that the pool held; it shrinks only with :func:`empty_cache`."""
    index = api(device)[1]
    now = memory_reserved(device)
    _reserved[index] = max(_reserved.get(index, 0), now)
    return _reserved[index]


def reset_peak_memory_stats(device: Any = None) -> None:
    """Lets the peaks begin anew with what is held now, and has allocations watched from here on."""
    cuda, index = api(device)
    _reserved[index] = memory_reserved(device)
    watch = _watched.get(index)
    if watch is None:
        watch = _watched[index] = _watching(cuda, _default_pool(index), index)
        watch.__enter__()
    watch.peak = memory_allocated(device)


def _watching(cuda: Any, pool: Any, index: int) -> Any:
    class Watch(cuda.MemoryHook):
        """Notes the most that was in use."""

        name = f"pyframe.cuda.memory {index}"
        peak = 0

        def malloc_postprocess(self, **what: Any) -> None:
            if what["device_id"] == index:
                self.peak = max(self.peak, pool.used_bytes())

    return Watch()


def memory_stats(device: Any = None) -> dict[str, int]:
    """The numbers above under the keys that ``torch.cuda.memory_stats`` has for them."""
    with _pool(device) as pool:
        free_blocks = int(pool.n_free_blocks())
    allocated, reserved = memory_allocated(device), memory_reserved(device)
    return {
        "allocated_bytes.all.current": allocated,
        "allocated_bytes.all.peak": max_memory_allocated(device),
        "reserved_bytes.all.current": reserved,
        "reserved_bytes.all.peak": max_memory_reserved(device),
        "inactive_split_bytes.all.current": reserved - allocated,
        "inactive_split.all.current": free_blocks,
    }


def memory_summary(device: Any = None) -> str:
    """What the pool holds, and what is alive by op and module, largest first."""
    from ..backend.cuda import size
    from ..tensor.alive import describe

    free, total = mem_get_info(device)
    lines = [
        f"{name}: {size(value)}" for name, value in memory_stats(device).items() if "bytes" in name
    ]
    lines.append(f"free on the device: {size(free)} of {size(total)}")
    return "\n".join([*lines, describe("cuda")])


def empty_cache() -> None:
    """Returns cached memory to the driver, if CUDA is in use."""
    if is_initialized() and is_available():
        xp = Device("cuda").backend.xp
        xp.get_default_memory_pool().free_all_blocks()
        xp.get_default_pinned_memory_pool().free_all_blocks()


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Limits the pool to a part of the device's memory; 0 lifts the limit."""
    with _pool(device) as pool:
        pool.set_limit(fraction=fraction)
