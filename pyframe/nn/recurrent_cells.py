"""Single steps of RNN, LSTM and GRU."""

# ruff: noqa: D102  (forward and extra_repr: see Module)
from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, fail
from ..tensor import Tensor
from .module import Module
from .parameter import empty_parameter
from .recurrent import draw_all, function_of, map_state, zeros_for

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


class RNNCellBase(Module):
    """What the single steps share.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        bias: whether there are biases.
        num_chunks: gates.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size
        place = {"device": device, "dtype": dtype}
        self.weight_ih = empty_parameter(gates, input_size, **place)
        self.weight_hh = empty_parameter(gates, hidden_size, **place)
        self.register_parameter("bias_ih", empty_parameter(gates, **place) if bias else None)
        self.register_parameter("bias_hh", empty_parameter(gates, **place) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values: uniform on ±1/√hidden_size."""
        draw_all(self)

    def _step(self, step: str, input: Tensor, hx: Any) -> Any:
        name = type(self).__name__
        for role, x in (("input", input), ("hx", hx[0] if isinstance(hx, (tuple, list)) else hx)):
            if x is not None and x.ndim not in (1, 2):
                fail(ArgumentError, name, f"expected {role} to be 1D or 2D, got {x.ndim}D instead")
        batched = input.ndim == 2
        if not batched:
            input = input.unsqueeze(0)
            hx = map_state(hx, lambda h: h.unsqueeze(0))
        if hx is None:
            hx = zeros_for(input, input.shape[0], self.hidden_size)
            hx = (hx, hx) if step == "lstm_cell" else hx
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        result = function_of(step)(input, hx, *weights)
        return result if batched else map_state(result, lambda h: h.squeeze(0))

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        nonlinearity = self.__dict__.get("nonlinearity", "tanh")
        return text if nonlinearity == "tanh" else f"{text}, nonlinearity={nonlinearity}"


class RNNCell(RNNCellBase):
    """One step of :class:`RNN`: ``forward(input, hx=None)`` returns the next state.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        bias: whether there are biases.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            fail(ArgumentError, "RNNCell", f"unknown nonlinearity {self.nonlinearity!r}")
        return self._step(f"rnn_{self.nonlinearity}_cell", input, hx)


class LSTMCell(RNNCellBase):
    """One step of :class:`LSTM`: ``forward(input, hx=None)`` returns the next (h, c).

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        bias: whether there are biases.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Tensor]:
        return self._step("lstm_cell", input, hx)


class GRUCell(RNNCellBase):
    """One step of :class:`GRU`: ``forward(input, hx=None)`` returns the next state.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        bias: whether there are biases.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step("gru_cell", input, hx)
