"""Devices (L1): ``cpu``, the virtual ``cpu:0 … cpu:n`` and ``cuda:i``, each with its array module.

Virtual CPU devices hold ordinary NumPy arrays. They exist so that placement, device-mismatch errors
and data parallelism can be run and tested on a machine without a GPU.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .errors import ArgumentTypeError, ParameterError, fail


class Device:
    """A place where arrays live. Interned: equal devices are the same object.

    Args:
        spec: ``"cpu"``, ``"cpu:1"``, ``"cuda"``, ``"cuda:0"`` or a Device.
        index: the device's number, if ``spec`` has none.

    Raises:
        ParameterError: for another type of device or a malformed index.

    >>> Device("cpu"), Device("cuda:1").index, Device("cpu") is Device("cpu")
    (device(type='cpu'), 1, True)
    """

    __slots__ = ("_backend", "index", "type")
    _known: ClassVar[dict[tuple[str, int | None], Device]] = {}

    type: str
    index: int | None
    _backend: Any

    def __new__(cls, spec: Any = "cpu", index: int | None = None) -> Device:
        """The one Device of that name."""
        if isinstance(spec, Device):
            return spec
        if isinstance(spec, int) and not isinstance(spec, bool):
            if spec < 0:
                fail(ParameterError, "device", f"{spec} is no index of a device", "Write 'cuda:0'.")
            kind, index = "cuda", spec
        elif isinstance(spec, str):
            kind, colon, number = spec.partition(":")
            if colon:
                if not (number.isascii() and number.isdigit()):
                    fail(
                        ParameterError, "device", f"{spec!r} has no valid index", "Write 'cuda:0'."
                    )
                index = int(number)
        else:
            fail(ArgumentTypeError, "device", f"expected a name such as 'cuda:0', not {spec!r}")
        if kind not in ("cpu", "cuda"):
            fail(ParameterError, "device", f"unknown device {spec!r}", "Use 'cpu' or 'cuda[:i]'.")
        if kind == "cuda" and index is None:
            index = 0
        known = cls._known.get((kind, index))
        if known is None:
            known = object.__new__(cls)
            known.type, known.index = kind, index
            known._backend = None
            cls._known[kind, index] = known
        return known

    @property
    def backend(self) -> Any:
        """The backend that makes this device's arrays (loaded at first use).

        Raises:
            DeviceError: if the device cannot be used here; the message says what is missing.
        """
        if self._backend is None:
            from .backend import load

            self._backend = load(self.type, self.index)
        return self._backend

    @property
    def xp(self) -> Any:
        """The array module of the device's arrays: ``numpy`` or ``cupy``."""
        return self.backend.xp

    def __repr__(self) -> str:
        where = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{where})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> Any:
        return (Device, (str(self),))


cpu = Device("cpu")


def as_device(value: Any) -> Device:
    """The Device for a name, an index (of a CUDA device), a Device, or ``None`` (the default)."""
    return _default[0] if value is None else Device(value)


_default = [cpu]


def set_default_device(value: Any) -> None:
    """Sets the device of tensors that are made without naming one."""
    _default[0] = Device(value)


def get_default_device() -> Device:
    """The device of tensors that are made without naming one."""
    return _default[0]
