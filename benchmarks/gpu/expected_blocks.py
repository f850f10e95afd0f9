"""Launches and bytes of whole blocks of networks: see :mod:`benchmarks.gpu.expected`.

Forward and backward of a block of GPT-2 small and of ResNet-50 in bfloat16 by autocast, and the
latter in evaluation: as ops that are called one after the other, and with what
:mod:`pyframe.nn.fusing` and ``nn.functional`` make one. The bytes of a launch are those of its
arrays, each counted once; kernels that add up parts are launches, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyframe as pf
from benchmarks.gpu.expected import DEVICES, Launch, Noted, noted
from benchmarks.gpu.no_device import Array, no_device
from benchmarks.networks import gpt, resnet50
from pyframe.backend.cuda_file import CudaFile
from pyframe.nn import fusing
from pyframe.tensor.tensor import make


def transformer(fused: bool) -> Callable[[], Any]:
    """A step of one of GPT-2 small's blocks with 8 × 1024 tokens, whose residual is float32."""
    sizes = {"vocabulary": 8, "width": 768, "heads": 12, "length": 1024, "layers": 1}
    block = gpt(pf, **sizes, fused=fused).blocks[0].to("cuda")
    return _step(block, _empty(8, 1024, 768, dtype=pf.float32))


def bottleneck(fused: bool, training: bool = True) -> Callable[[], Any]:
    """A step of ResNet-50's second block with 64 images, channels-last."""
    net = resnet50(pf, stages=((64, 2, 1),), fused=fused)
    block = net[5].to("cuda").train(training)
    x = _empty(64, 56, 56, 256, dtype=pf.bfloat16).permute(0, 3, 1, 2)
    if training:
        return _step(block, x)

    def evaluate() -> None:
        with pf.no_grad(), pf.autocast("cuda", dtype=pf.bfloat16):
            block(x)

    return evaluate


def _empty(*shape: int, dtype: Any) -> Any:
    return make(Array(shape, dtype), pf.device("cuda"))


def _step(block: Any, x: Any) -> Callable[[], Any]:
    x = x.detach().requires_grad_()

    def step() -> None:
        with pf.autocast("cuda", dtype=pf.bfloat16):
            y = block(x)
        y.backward(make(y.array.copy("K"), y.device))

    return step


CASES: dict[str, Callable[..., Callable[[], Any]]] = {
    "GPT-2 small, forward and backward": transformer,
    "ResNet-50, forward and backward": bottleneck,
    "ResNet-50, evaluation": partial(bottleneck, training=False),
}


@contextmanager
def _all_noted() -> Iterator[list[Noted]]:
    """Notes launches, also by plans that are known, and what CuPy's own kernels do."""

    def loaded(file: CudaFile, instance: str, *rest: Any) -> Any:
        def launch(grid: tuple, block: tuple, args: tuple, shared: int) -> None:
            file.launch(instance, "", grid, block, args, shared)

        return SimpleNamespace(launch=launch)

    with noted() as launches:

        def by_cupy(name: str, *args: Any) -> None:
            launches.append(Noted("cupy", name, 1, 1, 0, args))

        def add(a: Array, b: Array) -> Array:
            out = Array(a.shape, a.dtype)
            by_cupy("add", a, b, out)
            return out

        def add_to(a: Array, b: Any) -> Array:
            by_cupy("add", a, b)
            return a

        def put(whole: Array, place: Any, part: Array) -> None:
            by_cupy("copy", part, part.copy())

        changed = {"__add__": add, "__iadd__": add_to, "__setitem__": put}
        with mock.patch.object(CudaFile, "loaded", loaded), mock.patch.multiple(Array, **changed):
            yield launches


def bytes_of(launch: Noted) -> int:
    """Of its arrays, each once."""
    given = [getattr(a, "array", a) for a in launch.args]  # of tensor maps
    return sum({id(a.data): a.nbytes for a in given if isinstance(a, Array)}.values())


def count(build: Callable[[], Callable[[], Any]]) -> tuple[int, int]:
    """Launches of a call, and their bytes."""
    with no_device():
        call = build()
        with _all_noted() as launches:
            call()
    return len(launches), sum(map(bytes_of, launches))


def launches() -> Iterator[Launch]:
    """None by itself."""
    yield from ()


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts, and the time that an H100's memory takes for the bytes."""
    bandwidth = next(d.bandwidth for d in DEVICES if d.name == "H100") * 1e9
    table = []
    for title, build in CASES.items():
        with mock.patch.object(fusing, "on_cuda", return_value=False):
            plain = count(partial(build, fused=False))
        fused = count(partial(build, fused=True))
        cells: list[Any] = [title]
        for number, moved in (plain, fused):
            cells += [number, f"{moved / 1e6:.0f} MB", moved / bandwidth]
        table.append(cells)
    header = ["a block of", "ops one by one", "bytes", "H100's memory", "fused", "bytes"]
    return {"header": [*header, "H100's memory"], "rows": table}
