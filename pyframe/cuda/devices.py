"""CUDA devices: which there are, what they can do, which one is current."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ..device import Device
from ..errors import DeviceError, fail


def is_available() -> bool:
    """Whether CuPy and at least one usable CUDA device are there."""
    return device_count() > 0


def device_count() -> int:
    """Number of usable CUDA devices."""
    from ..backend.cuda import device_count as count

    return count()


def is_initialized() -> bool:
    """Whether a CUDA device has been used."""
    return any(d.type == "cuda" and d._backend is not None for d in Device._known.values())


def place(device: Any) -> Device:
    """The CUDA device that is meant; ``None`` is the current one.

    Raises:
        DeviceError: if it is not there, or is no CUDA device.
    """
    if device is None:
        return Device("cuda", current_device())
    found = Device(device)
    if found.type != "cuda":
        fail(DeviceError, "cuda", f"{found} is no CUDA device")
    found.backend  # noqa: B018  (raises if it is not there)
    return found


def api(device: Any = None) -> tuple[Any, int]:
    """``cupy.cuda`` and the index of a device."""
    found = place(device)
    return found.backend.xp.cuda, found.index or 0


def current_device() -> int:
    """The index of the device that is current in this thread."""
    return int(Device("cuda").backend.xp.cuda.runtime.getDevice())


def set_device(device: Any) -> None:
    """Makes a device current in this thread; :class:`device` does it for a block."""
    cuda, index = api(device)
    cuda.Device(index).use()


class device:
    """Makes a device current inside a ``with`` block.

    Ops run where their arrays are; this decides where ``"cuda"`` streams and events are made.
    """

    def __init__(self, device: Any) -> None:
        self._place = place(device)

    def __enter__(self) -> None:
        self._entered = self._place.backend.xp.cuda.Device(self._place.index)
        self._entered.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)


def synchronize(device: Any = None) -> None:
    """Waits until everything queued on a CUDA device has run.

    Raises:
        DeviceError: if there is no such device.
        KernelError: if something that was queued failed; it names the last launches.
    """
    place(device).backend.synchronize()


def get_device_name(device: Any = None) -> str:
    """What the maker calls the device."""
    cuda, index = api(device)
    name = cuda.runtime.getDeviceProperties(index)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The compute capability, as ``(9, 0)``."""
    cuda, index = api(device)
    attribute = cuda.runtime.deviceGetAttribute
    return int(attribute(75, index)), int(attribute(76, index))


def get_device_properties(device: Any = None) -> SimpleNamespace:
    """Name, compute capability, memory and multiprocessors, as attributes with PyTorch's names."""
    cuda, index = api(device)
    found = cuda.runtime.getDeviceProperties(index)
    major, minor = get_device_capability(device)
    return SimpleNamespace(
        name=get_device_name(device),
        major=major,
        minor=minor,
        total_memory=int(found["totalGlobalMem"]),
        multi_processor_count=int(found["multiProcessorCount"]),
        L2_cache_size=int(found["l2CacheSize"]),
        shared_memory_per_block_optin=int(found["sharedMemPerBlockOptin"]),
        warp_size=int(found["warpSize"]),
    )


def can_device_access_peer(device: Any, peer: Any) -> bool:
    """Whether one device can read the memory of the other."""
    cuda, index = api(device)
    return bool(cuda.runtime.deviceCanAccessPeer(index, place(peer).index))


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and all memory of the device in bytes, other processes' use included."""
    cuda, index = api(device)
    with cuda.Device(index):
        free, total = cuda.runtime.memGetInfo()
    return int(free), int(total)


def manual_seed(seed: int) -> None:
    """Seeds the one stream of random numbers that all devices share."""
    from ..random import manual_seed as seed_all

    seed_all(seed)


manual_seed_all = manual_seed
