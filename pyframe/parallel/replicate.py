"""Data parallelism in one process: replicas of a module on several devices, one thread each."""

from __future__ import annotations

import contextvars
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from .. import random
from ..autograd import no_grad
from ..backend.cuda import device_count
from ..data.context import mix
from ..device import Device, as_device
from ..errors import ArgumentError, DeviceError, fail
from ..nn import Module
from ..ops.joining import cat, stack
from ..random import Generator
from ..tensor import Tensor


class DataParallel(Module):
    """Splits each batch over several devices, runs a replica of ``module`` on each, joins outputs.

    Parameters live on the first device. Every call copies them to the others, recorded, so that
    the gradients of all replicas are summed in the original parameters. The loss is computed on the
    joined output, so its mean is over the whole batch, whatever the sizes of the parts. Batch norm
    normalises each part by itself, and the first device's running statistics are kept.

    Each replica takes its random numbers from a generator of its own, seeded by the default one, so
    results do not depend on how threads are scheduled. Use ``DistributedDataParallel``, a process
    per device, for larger jobs: threads share Python's interpreter lock.

    Args:
        module: on ``device_ids[0]``.
        device_ids: names or indices of devices; by default all CUDA devices. With none or one
            device the module is simply called.
        output_device: where outputs are joined; by default the first device.
        dim: the dimension of batches that is split.

    Raises:
        DeviceError: a parameter or buffer that is not on the first device.

    >>> import pyframe
    >>> net = DataParallel(pyframe.nn.Linear(2, 3).to("cpu:0"), ["cpu:0", "cpu:1"])
    >>> y = net(pyframe.ones(5, 2, device="cpu:0"))
    >>> y.sum().backward()
    >>> y.shape, net.module.bias.grad
    (Size([5, 3]), tensor([5., 5., 5.], device='cpu:0'))
    """

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
    ) -> None:
        super().__init__()
        if device_ids is None:
            device_ids = [f"cuda:{i}" for i in range(device_count())]
        self.device_ids = [as_device(d) for d in device_ids]
        self.output_device = None
        if self.device_ids:
            place = self.device_ids[0] if output_device is None else output_device
            self.output_device = as_device(place)
        self.dim = dim
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The replicas' outputs, joined."""
        if not self.device_ids:
            return self.module(*inputs, **kwargs)
        first = self.device_ids[0]
        for name, value in [*self.module.named_parameters(), *self.module.named_buffers()]:
            if value.device is not first:
                fail(
                    DeviceError,
                    "DataParallel",
                    f"{name} must be on device_ids[0], {first}",
                    f"Move the module with .to('{first}').",
                    value=value,
                )
        parts = scatter((inputs, kwargs), self.device_ids, self.dim)
        devices = self.device_ids[: len(parts)]
        modules = [self.module, *(replicate(self.module, d) for d in devices[1:])]
        outputs = parallel_apply(modules, [p[0] for p in parts], [p[1] for p in parts], devices)
        return gather(outputs, self.output_device, self.dim)


def scatter(values: Any, devices: Sequence[Device], dim: int = 0) -> list[Any]:
    """The values for each device: Tensors are cut along ``dim`` and moved, others are repeated.

    There are fewer parts than devices where a batch has fewer samples.

    Raises:
        ArgumentError: Tensors that give different numbers of parts.

    >>> import pyframe
    >>> [part.tolist() for part in scatter(pyframe.arange(3), [Device("cpu:0"), Device("cpu:1")])]
    [[0, 1], [2]]
    """
    counts: set[int] = set()

    def split(value: Any) -> list[Any] | None:
        """One value per device; None where it holds no Tensor."""
        if isinstance(value, Tensor):
            pieces = value.chunk(len(devices), dim)
            counts.add(len(pieces))
            return [p.to(device=d) for p, d in zip(pieces, devices, strict=False)]
        if isinstance(value, dict):
            return _rebuilt(value.values(), lambda v: type(value)(zip(value, v, strict=True)))
        if isinstance(value, (list, tuple)):
            named = hasattr(value, "_fields")
            return _rebuilt(value, lambda v: type(value)(*v) if named else type(value)(v))
        return None

    def _rebuilt(values: Any, make: Any) -> list[Any] | None:
        values = list(values)
        pieces = [split(v) for v in values]
        known = [p for p in pieces if p is not None]
        if not known:
            return None
        return [
            make([v if p is None else p[i] for v, p in zip(values, pieces, strict=True)])
            for i in range(min(map(len, known)))
        ]

    parts = split(values)
    if len(counts) > 1:
        fail(
            ArgumentError,
            "scatter",
            f"inputs do not fall into the same number of parts along dimension {dim}: "
            f"{sorted(counts)}",
            "All tensors of a batch need the same size there.",
        )
    return [values] if parts is None else parts


def replicate(module: Module, device: Device) -> Module:
    """A copy of ``module`` on ``device`` whose parameters are recorded copies of the originals.

    Buffers are copied off the tape; everything else is shared. A module or parameter that appears
    in several places appears in the same places of the copy.

    >>> import pyframe
    >>> layer = pyframe.nn.Linear(2, 2)
    >>> replicate(layer, Device("cpu:1")).weight.grad_fn
    <ToBackward>
    """
    known: dict[int, Any] = {}

    def moved(value: Any, recorded: bool) -> Any:
        if value is None:
            return None
        if id(value) not in known:
            with nullcontext() if recorded else no_grad():
                known[id(value)] = value.to(device=device)
        return known[id(value)]

    def copied(original: Any) -> Any:
        if original is None:
            return None
        if id(original) not in known:
            copy = known[id(original)] = object.__new__(type(original))
            own = copy.__dict__
            own.update(original.__dict__)
            own["_modules"] = {k: copied(m) for k, m in original._modules.items()}
            own["_buffers"] = {k: moved(b, False) for k, b in original._buffers.items()}
            own["_parameters"] = {k: moved(p, True) for k, p in original._parameters.items()}
        return known[id(original)]

    return copied(module)


def parallel_apply(
    modules: Sequence[Module],
    inputs: Sequence[tuple],
    kwargs: Sequence[dict[str, Any]] | None = None,
    devices: Sequence[Device] | None = None,
) -> list[Any]:
    """Calls every module with its inputs, each in a thread; the first error is raised again.

    The threads have the caller's modes (``no_grad`` and the like).
    """
    if len(modules) == 1:
        return [modules[0](*inputs[0], **(kwargs[0] if kwargs else {}))]
    results: list[Any] = [None] * len(modules)
    errors: list[BaseException | None] = [None] * len(modules)
    seed = mix(*random.default_generator.reserve())

    def call(i: int) -> None:
        try:
            with random.streams_from(Generator().manual_seed(mix(seed, i))):
                results[i] = modules[i](*inputs[i], **(kwargs[i] if kwargs else {}))
        except BaseException as error:
            errors[i] = error

    threads = [
        threading.Thread(target=contextvars.copy_context().run, args=(call, i), name=f"replica {i}")
        for i in range(len(modules))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, error in enumerate(errors):
        if error is not None:
            error.add_note(f"in replica {i}" + (f" on {devices[i]}" if devices else ""))
            raise error
    return results


def gather(outputs: Sequence[Any], device: Any, dim: int = 0) -> Any:
    """Joins the outputs of replicas on one device: Tensors along ``dim``, numbers to a vector.

    >>> import pyframe
    >>> gather([pyframe.ones(2), pyframe.zeros(1)], "cpu")
    tensor([1., 1., 0.])
    """
    first = outputs[0]
    if isinstance(first, Tensor):
        moved = [value.to(device=device) for value in outputs]
        if not first.ndim:
            warnings.warn(
                "DataParallel joins outputs that are single numbers into a vector; their mean is "
                "over replicas, not over samples",
                stacklevel=3,
            )
            return stack(moved)
        return moved[0] if len(moved) == 1 else cat(moved, dim)
    if isinstance(first, dict):
        return type(first)((k, gather([o[k] for o in outputs], device, dim)) for k in first)
    if isinstance(first, (list, tuple)):
        joined = [gather(values, device, dim) for values in zip(*outputs, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else type(first)(joined)
    return first if len(outputs) == 1 else list(outputs)
