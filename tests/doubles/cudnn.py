"""A stand-in for nvidia-cudnn-frontend: its graphs compute what they describe, on NumPy arrays.

A graph takes steps in the order that the frontend asks for, notes what was asked of it, and runs
one operation, by the portable forwards, on addresses as the real one gets them. Where the real one
would refuse or read other memory it raises :class:`Misuse`. Names are compared with those of the
real module where it is installed.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import pyframe as pf
from pyframe.op.registry import ops


class Misuse(AssertionError):
    """What the library would not survive."""


class data_type(enum.Enum):
    """Types of values."""

    HALF = "f2"
    BFLOAT16 = "bfloat16"
    FLOAT = "f4"


class numerical_note(enum.Enum):
    """What a plan may do."""

    NONDETERMINISTIC = 0
    DOWN_CONVERT_INPUTS = 1
    REDUCED_PRECISION_REDUCTION = 2
    TENSOR_CORE = 3


class heur_mode(enum.Enum):
    """Where plans come from."""

    A = 0
    FALLBACK = 1


class build_plan_policy(enum.Enum):
    """Which plans are built."""

    HEURISTICS_CHOICE = 0


class cudnnGraphNotSupportedError(Exception):
    """There is no plan."""


def _dtype(kind: data_type) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if kind is data_type.BFLOAT16 else kind.value)


class Tensor:
    """A tensor of a graph."""

    def __init__(self, value: Callable[[dict], Any] | None = None, **fields: Any) -> None:
        self.value, self.fields = value, fields

    def _set(self, name: str, value: Any) -> Tensor:
        self.fields[name] = value
        return self

    def set_output(self, value: bool) -> Tensor:
        return self._set("output", value)

    def set_uid(self, value: int) -> Tensor:
        return self._set("uid", value)

    def set_data_type(self, value: data_type) -> Tensor:
        return self._set("data_type", value)

    def set_dim(self, value: list[int]) -> Tensor:
        return self._set("dim", value)

    def set_stride(self, value: list[int]) -> Tensor:
        return self._set("stride", value)

    def array(self, address: int) -> np.ndarray:
        """The memory that it describes, to be written to."""
        dtype, dim, stride = (self.fields[k] for k in ("data_type", "dim", "stride"))
        dtype = _dtype(dtype)
        last = sum((n - 1) * s for n, s in zip(dim, stride, strict=True))
        memory = (ctypes.c_char * ((last + 1) * dtype.itemsize)).from_address(address)
        steps = [s * dtype.itemsize for s in stride]
        return np.lib.stride_tricks.as_strided(np.frombuffer(memory, dtype), dim, steps)


_STEPS = [
    "validate",
    "build_operation_graph",
    "create_execution_plans",
    "deselect_numeric_notes",
    "check_support",
    "build_plans",
]


class Graph:
    """What ``cudnn.pygraph`` makes."""

    def __init__(self, module: Cudnn, **fields: Any) -> None:
        self.module, self.fields, self.steps = module, fields, []
        self.tensors: list[Tensor] = []
        self.notes: set[str] = set()

    def tensor(self, *, dim: list, stride: list, data_type: Any, uid: int) -> Tensor:
        if len(dim) != len(stride) or not all(isinstance(n, int) for n in (*dim, *stride)):
            raise Misuse(f"dim {dim}, stride {stride}")
        self.tensors.append(Tensor(dim=dim, stride=stride, data_type=data_type, uid=uid))
        return self.tensors[-1]

    def _make(self, value: Callable[[dict], Any]) -> Tensor:
        self.tensors.append(Tensor(value))
        return self.tensors[-1]

    def _conv(self, name: str, first: Tensor, second: Tensor, how: dict, **more: Any) -> Tensor:
        for key in ("pre_padding", "post_padding", "stride", "dilation"):
            if len(how[key]) != len(first.fields["dim"]) - 2 or len(how[key]) < 2:
                raise Misuse(f"{key} {how[key]}")
        padding = tuple(zip(how["pre_padding"], how["post_padding"], strict=True))

        def compute(known: dict) -> np.ndarray:
            a, b = (known[t].astype(np.float32) for t in (first, second))
            rest = {"stride": tuple(how["stride"]), "dilation": tuple(how["dilation"])}
            # The groups are what the channels leave open.
            channels = {k: v(known) if callable(v) else v for k, v in more.items()}
            with pf.kernels("portable"):
                return ops[name].function(a, b, padding=padding, **rest, **channels)

        return self._make(compute)

    def conv_fprop(self, *, image: Tensor, weight: Tensor, **how: Any) -> Tensor:
        n = len(image.fields["dim"]) - 2
        groups = image.fields["dim"][1] // weight.fields["dim"][1]
        return self._conv(f"conv{n}d", image, weight, how, groups=groups)

    def conv_dgrad(self, *, loss: Tensor, filter: Tensor, **how: Any) -> Tensor:
        made: Tensor
        made = self._conv(
            *("conv_grad_input", loss, filter, how),
            input_size=lambda known: tuple(made.fields["dim"]),
            groups=lambda known: made.fields["dim"][1] // filter.fields["dim"][1],
        )
        return made

    def conv_wgrad(self, *, image: Tensor, loss: Tensor, **how: Any) -> Tensor:
        made: Tensor
        made = self._conv(
            *("conv_grad_weight", loss, image, how),
            weight_size=lambda known: tuple(made.fields["dim"]),
            groups=lambda known: image.fields["dim"][1] // made.fields["dim"][1],
        )
        return made

    def bias(self, *, input: Tensor, bias: Tensor) -> Tensor:
        return self._make(lambda known: input.value(known) + known[bias].astype(np.float32))

    def sdpa(
        self,
        *,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        generate_stats: bool,
        attn_scale: float,
        use_causal_mask: bool,
    ) -> list[Tensor]:
        assert generate_stats and all(len(t.fields["dim"]) == 4 for t in (q, k, v))

        def attend(known: dict) -> tuple:
            with pf.kernels("portable"):
                given = [known[t].astype(np.float32) for t in (q, k, v)]
                return ops["native_attention"].function(*given, None, use_causal_mask, attn_scale)

        return [
            self._make(lambda known: attend(known)[0]),
            self._make(lambda known: attend(known)[1][..., None]),
        ]

    def sdpa_backward(
        self,
        *,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        o: Tensor,
        dO: Tensor,
        stats: Tensor,
        attn_scale: float,
        use_causal_mask: bool,
        use_deterministic_algorithm: bool,
    ) -> list[Tensor]:
        assert use_deterministic_algorithm and stats.fields["data_type"] is data_type.FLOAT

        def gradients(known: dict) -> tuple:
            given = [known[t].astype(np.float32) for t in (dO, q, k, v, o)]
            mass = known[stats][..., 0].copy()
            with pf.kernels("portable"):
                backward = ops["attention_backward"].function
                return backward(*given, mass, None, use_causal_mask, attn_scale)

        return [self._make(lambda known, i=i: gradients(known)[i]) for i in range(3)]

    def _step(self, name: str) -> None:
        if name != _STEPS[len(self.steps)]:
            raise Misuse(f"{name} after {self.steps}")
        self.steps.append(name)

    def validate(self) -> None:
        self._step("validate")
        numbers = [t.fields.get("uid") for t in self.tensors if "dim" in t.fields]
        if len(set(numbers)) != len(numbers):
            raise Misuse(f"uids {numbers}")

    def build_operation_graph(self) -> None:
        self._step("build_operation_graph")

    def create_execution_plans(self, modes: list[heur_mode]) -> None:
        self._step("create_execution_plans")

    def deselect_numeric_notes(self, notes: list[numerical_note]) -> None:
        self._step("deselect_numeric_notes")
        self.notes = {n.name for n in notes}

    def check_support(self) -> None:
        self._step("check_support")
        if not self.module.plans:
            raise cudnnGraphNotSupportedError("no engine")

    def build_plans(self, policy: build_plan_policy) -> None:
        self._step("build_plans")

    def get_workspace_size(self) -> int:
        return 128

    def execute(self, tensor_dict: dict[int, int], workspace: int, handle: Any) -> None:
        assert self.steps == _STEPS and handle is self.fields["handle"] and workspace
        by_uid = {t.fields["uid"]: t for t in self.tensors if "uid" in t.fields}
        assert by_uid.keys() == tensor_dict.keys()
        known = {t: t.array(tensor_dict[u]) for u, t in by_uid.items() if t.value is None}
        for uid, tensor in by_uid.items():
            if tensor.value is not None:
                assert tensor.fields["output"] is True
                tensor.array(tensor_dict[uid])[...] = tensor.value(known)
        self.module.runs += 1


class Cudnn:
    """The module. ``graphs`` are those that were made; without ``plans`` none is supported."""

    data_type, numerical_note, heur_mode = data_type, numerical_note, heur_mode
    build_plan_policy = build_plan_policy
    cudnnGraphNotSupportedError = cudnnGraphNotSupportedError

    def __init__(self) -> None:
        self.graphs: list[Graph] = []
        self.plans, self.stream, self.runs = True, 0, 0

    def backend_version(self) -> int:
        return 0

    def create_handle(self) -> object:
        return object()

    def set_stream(self, *, handle: Any, stream: int) -> None:
        self.stream = stream

    def pygraph(self, **fields: Any) -> Graph:
        self.graphs.append(Graph(self, **fields))
        return self.graphs[-1]
