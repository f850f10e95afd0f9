"""cuDNN through nvidia-cudnn-frontend: graphs of one operation, built once per kind (L1).

Nothing here is needed: it is a candidate beside our own kernels. The frontend is imported when a
graph is first built.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import bfloat16, float16, float32
from . import backend_of, launch, repeated
from .cuda_geometry import address, element_strides

DTYPES = (float16, bfloat16, float32)


@cache
def why_not() -> str:
    """Why it cannot be used, or ""."""
    if importlib.util.find_spec("cudnn") is None:
        return 'nvidia-cudnn-frontend is not installed: pip install "pyframe-tensor[cudnn]"'
    try:
        bindings().backend_version()
    except RuntimeError as error:
        return f"the library cannot be loaded ({error}): pip install nvidia-cudnn-cu13"
    return ""


@cache
def bindings() -> Any:
    """The module ``cudnn``."""
    import cudnn

    return cudnn


class Operand(NamedTuple):
    """An array as a graph has it: lengths, strides in elements, dtype."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype


def operand(array: Any) -> Operand:
    """What a graph is told of an array."""
    strides = element_strides(array)
    assert strides is not None
    return Operand(tuple(array.shape), strides, array.dtype)


class Kind(NamedTuple):
    """What a graph is for.

    ``make`` is called with the graph, the tensors of ``inputs`` and ``settings`` as keywords; it
    returns the tensors of ``outputs``.
    """

    make: Callable
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    settings: tuple[tuple[str, Any], ...]
    tf32: bool
    device: int


class Graph(NamedTuple):
    """A graph that was built, and the bytes of workspace that it asks for."""

    graph: Any
    workspace: int


def data_type(dtype: np.dtype) -> Any:
    """Of the frontend."""
    names = bindings().data_type
    return {float16: names.HALF, bfloat16: names.BFLOAT16, float32: names.FLOAT}[dtype]


@cache
def graph_of(kind: Kind) -> Graph | None:
    """The graph, or ``None`` if cuDNN has no plan for it that gives the same bits in every run."""
    cudnn = bindings()
    own = data_type(kind.inputs[0].dtype)
    float_ = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=own,
        intermediate_data_type=float_,
        compute_data_type=float_,
        handle=_handle(kind.device),
    )
    tensors = [
        graph.tensor(
            dim=list(x.shape), stride=list(x.strides), data_type=data_type(x.dtype), uid=i + 1
        )
        for i, x in enumerate(kind.inputs)
    ]
    made = kind.make(graph, *tensors, **dict(kind.settings))
    for i, (tensor, x) in enumerate(zip(made, kind.outputs, strict=True), len(tensors) + 1):
        tensor.set_output(True).set_uid(i).set_data_type(data_type(x.dtype))
        tensor.set_dim(list(x.shape)).set_stride(list(x.strides))
    notes = cudnn.numerical_note
    unwanted = [
        notes.NONDETERMINISTIC,
        notes.DOWN_CONVERT_INPUTS,
        notes.REDUCED_PRECISION_REDUCTION,
    ]
    if kind.inputs[0].dtype == float32 and not kind.tf32:
        unwanted += [notes.TENSOR_CORE]
    try:
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.deselect_numeric_notes(unwanted)
        graph.check_support()
        graph.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
    except cudnn.cudnnGraphNotSupportedError:
        return None
    return Graph(graph, int(graph.get_workspace_size()))


@cache
def _handle(device: int) -> Any:
    with launch.host().on(device):
        return bindings().create_handle()


def run(kind: Kind, inputs: tuple, outputs: tuple) -> None:
    """Queues a kind that has a graph on the device's current stream."""
    found = graph_of(kind)
    assert found is not None, "see graph_of()"
    room = None
    if found.workspace:
        room = backend_of(outputs[0]).empty((found.workspace,), np.dtype(np.uint8))
    repeated.queue(partial(_queue, found.graph, kind.device), room, *inputs, *outputs)


def _queue(graph: Any, device: int, room: Any, *operands: Any) -> None:
    handle = _handle(device)
    bindings().set_stream(handle=handle, stream=launch.host().current_stream(device).ptr)
    places = {i: address(x) for i, x in enumerate(operands, 1)}
    graph.execute(places, 0 if room is None else address(room), handle=handle)
