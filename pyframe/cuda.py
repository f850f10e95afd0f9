"""``pyframe.cuda``: questions about CUDA devices (L6). Works without one."""

from __future__ import annotations

from typing import Any

from .device import Device


def is_available() -> bool:
    """Whether CuPy and at least one usable CUDA device are there."""
    return device_count() > 0


def device_count() -> int:
    """Number of usable CUDA devices."""
    from .backend.cuda import device_count as count

    return count()


def synchronize(device: Any = None) -> None:
    """Waits until everything queued on a CUDA device has run.

    Raises:
        DeviceError: if there is no such device.
    """
    Device("cuda" if device is None else device).backend.synchronize()


def manual_seed(seed: int) -> None:
    """Seeds the one stream of random numbers that all devices share."""
    from .random import manual_seed as seed_all

    seed_all(seed)


manual_seed_all = manual_seed


def empty_cache() -> None:
    """Returns cached memory to the driver, if CUDA is in use."""
    if is_available():
        Device("cuda").backend.xp.get_default_memory_pool().free_all_blocks()
