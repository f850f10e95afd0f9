"""RNN, LSTM, GRU over sequences."""

# ruff: noqa: D101, D102  (forward and extra_repr: see Module; shared docstrings)
from __future__ import annotations

import math
import warnings
from typing import Any

from ..errors import ArgumentError, ArgumentTypeError, ShapeError, fail
from ..op.registry import composites, ops
from ..tensor import Tensor
from ..tensor.tensor import make
from . import init
from .module import Module
from .parameter import Parameter, empty_parameter
from .utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]


def function_of(name: str) -> Any:
    """The op or composite of that name; these are not in ``nn.functional``."""
    found = ops.get(name) or composites[name]
    return found.function


def zeros_for(like: Tensor, *shape: int) -> Tensor:
    """A state of zeros of the dtype and device of ``like``."""
    return make(like.device.xp.zeros(shape, like.array.dtype), like.device)


def draw_all(module: Any) -> None:
    """Draws all parameters uniformly in ±1/√hidden_size."""
    bound = 1.0 / math.sqrt(module.hidden_size) if module.hidden_size > 0 else 0
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


class RNNBase(Module):
    """What :class:`RNN`, :class:`LSTM` and :class:`GRU` share.

    Args:
        mode: ``"RNN_TANH"``, ``"RNN_RELU"``, ``"LSTM"`` or ``"GRU"``.
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: layers, each on the outputs of the one before.
        bias: whether there are biases.
        batch_first: tensors are (N, L, features) instead of (L, N, features).
        dropout: probability, on the outputs of all layers but the last.
        bidirectional: also run backwards, and concatenate.
        proj_size: LSTM only: project the hidden state to this size.
        device, dtype: of the parameters.

    Raises:
        ValueError: for sizes or a probability out of range.
        TypeError: for sizes that are not integers.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            fail(ArgumentError, name, "dropout should be a number in range [0, 1]", dropout=dropout)
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"{name}: dropout acts between layers, so that dropout={dropout} does nothing with "
                "num_layers=1",
                stacklevel=2,
            )
        for what, size in (("hidden_size", hidden_size), ("num_layers", num_layers)):
            if not isinstance(size, int):
                fail(ArgumentTypeError, name, f"{what} should be of type int, not {type(size)}")
            if size <= 0:
                fail(ArgumentError, name, f"{what} must be greater than zero", **{what: size})
        if proj_size < 0 or proj_size >= hidden_size:
            fail(
                ArgumentError,
                name,
                "proj_size should be a positive integer smaller than hidden_size, or zero",
                proj_size=proj_size,
            )
        gates = {"LSTM": 4, "GRU": 3}.get(mode, 1) * hidden_size
        state = proj_size or hidden_size
        self._flat_weights_names: list[str] = []
        self._all_weights: list[list[str]] = []
        directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            for direction in range(directions):
                features = input_size if layer == 0 else state * directions
                suffix = f"_l{layer}{'_reverse' if direction else ''}"
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (gates, features),
                    "weight_hh": (gates, state),
                }
                if bias:
                    shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                names = [f"{role}{suffix}" for role in shapes]
                for full, shape in zip(names, shapes.values(), strict=True):
                    setattr(self, full, empty_parameter(*shape, device=device, dtype=dtype))
                self._flat_weights_names += names
                self._all_weights.append(names)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values: uniform on ±1/√hidden_size."""
        draw_all(self)

    def flatten_parameters(self) -> None:
        """Does nothing; PyTorch joins the weights' memory for cuDNN here."""

    @property
    def _flat_weights(self) -> list[Parameter]:
        return [getattr(self, name) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of every layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Runs over a sequence.

        Args:
            input: (L, N, features), (N, L, …) with ``batch_first``, (L, features), or packed.
            hx: initial state (layers·directions, N, hidden_size), for an LSTM a pair (h, c), with
                h of proj_size where it projects; zeros by default.

        Returns:
            The last layer's outputs, and the final state.

        Raises:
            ShapeError: if a shape does not fit.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if input.ndim not in (2, 3):
            fail(
                ArgumentError,
                type(self).__name__,
                f"expected input to be 2D or 3D, got {input.ndim}D instead",
                input=input,
            )
        batched = input.ndim == 3
        axis = 0 if self.batch_first else 1
        if not batched:
            input = input.unsqueeze(axis)
            hx = map_state(hx, self._add_batch)
        if input.shape[-1] != self.input_size:
            fail(
                ShapeError,
                type(self).__name__,
                f"input.size(-1) must be equal to input_size: expected {self.input_size}, got "
                f"{input.shape[-1]}",
                input=input,
            )
        hx = self._initial(hx, input, input.shape[axis])
        output, state = self._run(input, hx)
        if not batched:
            output = output.squeeze(axis)
            state = map_state(state, lambda h: h.squeeze(1))
        return output, state

    def _add_batch(self, h: Tensor) -> Tensor:
        if h.ndim != 2:
            fail(
                ShapeError,
                type(self).__name__,
                "for an unbatched input the initial state should be 2-D",
                hx=h,
            )
        return h.unsqueeze(1)

    def _initial(self, hx: Any, input: Tensor, batch: int) -> Any:
        count = self.num_layers * (2 if self.bidirectional else 1)
        sizes = [self.proj_size or self.hidden_size]
        if self.mode == "LSTM":
            sizes.append(self.hidden_size)
        if hx is None:
            states = tuple(zeros_for(input, count, batch, size) for size in sizes)
            return states if self.mode == "LSTM" else states[0]
        given = tuple(hx) if self.mode == "LSTM" else (hx,)
        for h, size in zip(given, sizes, strict=True):
            if tuple(h.shape) != (count, batch, size):
                fail(
                    ShapeError,
                    type(self).__name__,
                    f"expected hidden size {(count, batch, size)}, got {tuple(h.shape)}",
                    input=input,
                    hx=h,
                )
        return given if self.mode == "LSTM" else hx

    def _run(self, input: Tensor, hx: Any) -> tuple[Tensor, Any]:
        result = function_of(self.mode.lower())(
            input,
            hx,
            self._flat_weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )
        if self.mode == "LSTM":
            return result[0], (result[1], result[2])
        return result

    def _packed(self, packed: PackedSequence, hx: Any) -> Any:
        """Runs over sequences of different lengths, one after the other."""
        padded, lengths = pad_packed_sequence(packed, batch_first=False)
        n = padded.shape[1]
        hx = self._initial(hx, padded, n)
        outputs, states = [], []
        # Equal lengths run together; every group keeps to its own steps, also backwards.
        counts = lengths.array.tolist()
        order: list[int] = []
        for length in sorted(set(counts), reverse=True):
            members = [i for i, c in enumerate(counts) if c == length]
            order += members
            part = padded[:length, members]
            first = map_state(hx, lambda h, m=members: h[:, m])
            if self.batch_first:
                part = part.transpose(0, 1)
            output, state = self._run(part, first)
            if self.batch_first:
                output = output.transpose(0, 1)
            outputs += [output[:, k] for k in range(len(members))]
            states.append(state)
        back = [order.index(i) for i in range(n)]
        joined = pad_sequence([outputs[k] for k in back])
        result = pack_padded_sequence(joined, counts, enforce_sorted=packed.sorted_indices is None)
        return result, _joined(states, back)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.batch_first is not False:
            text += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            text += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            text += f", bidirectional={self.bidirectional}"
        return text


def _joined(states: list, order: list[int]) -> Any:
    """States of groups of sequences as one, with the sequences in their own order."""
    if isinstance(states[0], tuple):
        return tuple(_joined([s[i] for s in states], order) for i in range(len(states[0])))
    together = function_of("cat")(states, 1)
    return together[:, order]


def map_state(state: Any, function: Any) -> Any:
    if state is None:
        return None
    return tuple(map(function, state)) if isinstance(state, (tuple, list)) else function(state)


_ARGS = """

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers, bias, batch_first, dropout, bidirectional, device, dtype: see :class:`RNNBase`.

    ``forward(input, hx=None)`` returns the last layer's outputs and the final state. Parameters
    (``weight_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0``, ``bias_hh_l0``, …, ``…_reverse``) start
    uniform on ±1/√hidden_size.
    """


class RNN(RNNBase):
    __doc__ = "hₜ = tanh(W_ih xₜ + b_ih + W_hh hₜ₋₁ + b_hh), or relu (``nonlinearity``)." + _ARGS

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            fail(
                ArgumentError,
                "RNN",
                f"unknown nonlinearity {nonlinearity!r}",
                "Select from 'tanh' or 'relu'.",
            )
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
        )
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    __doc__ = (
        "Long short-term memory (Hochreiter and Schmidhuber, 1997); gates i, f, g, o. With "
        "``proj_size``, hₜ = W_hr (oₜ tanh cₜ) of that size (Sak and others, 2014)." + _ARGS
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )


class GRU(RNNBase):
    __doc__ = "Gated recurrent unit (Cho et al., 2014); gates r, z, n." + _ARGS

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
        )
