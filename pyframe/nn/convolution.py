"""Convolutions and transposed convolutions in one, two and three dimensions."""
# ruff: noqa: D101, D102  (forward and extra_repr: see Module; shared docstrings)

from __future__ import annotations

import math
from typing import Any

from ..errors import ArgumentError, ShapeError, fail
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import empty_parameter
from .sizes import mirrored_twice, ntuple

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """What all convolutions share: settings, parameters and their initial values."""

    n: int  # spatial dimensions
    transposed = False
    bias: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        name, n = type(self).__name__, self.n
        if groups <= 0:
            fail(ArgumentError, name, "groups must be a positive integer", groups=groups)
        for role, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                fail(ArgumentError, name, f"{role} must be divisible by groups", **{role: channels})
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                fail(ArgumentError, name, f"invalid padding string {padding!r}")
            if padding == "same" and any(s != 1 for s in ntuple(stride, n)):
                fail(
                    ArgumentError, name, "padding='same' is not supported for strided convolutions"
                )
        if padding_mode not in _MODES:
            fail(
                ArgumentError,
                name,
                f"padding_mode must be one of {_MODES}, but got {padding_mode!r}",
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = ntuple(kernel_size, n)
        self.stride = ntuple(stride, n)
        self.padding = padding if isinstance(padding, str) else ntuple(padding, n)
        self.dilation = ntuple(dilation, n)
        self.output_padding = ntuple(output_padding, n)
        self.groups = groups
        self.padding_mode = padding_mode
        self._reversed_padding_repeated_twice = self._padding_for_pad()
        shape = (
            (in_channels, out_channels // groups)
            if self.transposed
            else (out_channels, in_channels // groups)
        )
        self.weight = empty_parameter(*shape, *self.kernel_size, device=device, dtype=dtype)
        if bias:
            self.bias = empty_parameter(out_channels, device=device, dtype=dtype)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _padding_for_pad(self) -> list[int]:
        if not isinstance(self.padding, str):
            return mirrored_twice(self.padding)
        amounts = [0, 0] * self.n
        if self.padding == "same":
            for i, (d, k) in enumerate(zip(self.dilation, self.kernel_size, strict=True)):
                total = d * (k - 1)
                at = 2 * (self.n - 1 - i)
                amounts[at], amounts[at + 1] = total // 2, total - total // 2
        return amounts

    def reset_parameters(self) -> None:
        """Draws new initial values: uniform on ±1/√fan_in."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0,) * len(self.kernel_size):
            text += f", padding={self.padding}"
        if self.dilation != (1,) * len(self.kernel_size):
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * len(self.kernel_size):
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_ConvNd):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            0,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input and what is left to pad with zeros."""
        if self.padding_mode == "zeros":
            return input, self.padding
        padded = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        return padded, (0,) * self.n


_CONV = """

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size: one number or one per dimension, as are the next three.
        stride: step between windows.
        padding: zeros put on both sides, ``"same"`` or ``"valid"``.
        dilation: step between the elements of a window.
        groups: blocks of channels that are convolved by themselves.
        bias: whether there is a bias.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        device, dtype: of the parameters.

    Parameters start uniform on ±1/√(in_channels/groups·∏kernel_size).

    Raises:
        ValueError: for channels not divisible by groups, or an unknown padding.
    """


class Conv1d(_Conv):
    __doc__ = "Cross-correlation of (N, C, L) or (C, L) with learned kernels." + _CONV
    n = 1

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return F.conv1d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv2d(_Conv):
    __doc__ = "Cross-correlation of (N, C, H, W) or (C, H, W) with learned kernels." + _CONV
    n = 2

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return F.conv2d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class Conv3d(_Conv):
    __doc__ = "Cross-correlation of (N, C, D, H, W) or (C, D, H, W) with learned kernels." + _CONV
    n = 3

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._padded(input)
        return F.conv3d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class _ConvTranspose(_ConvNd):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            fail(
                ArgumentError,
                type(self).__name__,
                f'only "zeros" padding mode is supported, not {padding_mode!r}',
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """What must be added on one side for the output to have ``output_size``."""
        if output_size is None:
            return self.output_padding
        n, name = self.n, type(self).__name__
        wanted = tuple(output_size)
        if len(wanted) in (n + 1, n + 2) and len(wanted) == input.ndim:
            wanted = wanted[-n:]
        if len(wanted) != n:
            fail(
                ArgumentError,
                name,
                f"output_size must have {n} or {input.ndim} elements (got {len(wanted)})",
            )
        extra = []
        for d in range(n):
            least = (
                (input.shape[d - n] - 1) * self.stride[d]
                - 2 * self.padding[d]
                + self.dilation[d] * (self.kernel_size[d] - 1)
                + 1
            )
            if not least <= wanted[d] < least + self.stride[d]:
                fail(
                    ShapeError,
                    name,
                    f"output_size {wanted} is not possible: dimension {d} can be from {least} to "
                    f"{least + self.stride[d] - 1}",
                    input=input,
                )
            extra.append(wanted[d] - least)
        return tuple(extra)

    def _run(self, function: Any, input: Tensor, output_size: Any) -> Tensor:
        extra = self._output_padding(input, output_size)
        return function(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            extra,
            self.groups,
            self.dilation,
        )


_TRANSPOSED = """

    The gradient of the convolution with these settings with respect to its input.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size: one number or one per dimension, as are the next three.
        stride, padding: of the convolution.
        output_padding: added to one side of the output's size.
        groups: blocks of channels that are convolved by themselves.
        bias: whether there is a bias.
        dilation: step between the elements of a window.
        padding_mode: only ``"zeros"``.
        device, dtype: of the parameters.

    ``forward(input, output_size=None)`` chooses ``output_padding`` for a wanted size.

    Raises:
        ValueError: for channels not divisible by groups, or another padding mode.
    """


class ConvTranspose1d(_ConvTranspose):
    __doc__ = "Transposed convolution of (N, C, L) or (C, L)." + _TRANSPOSED
    n = 1

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return self._run(F.conv_transpose1d, input, output_size)


class ConvTranspose2d(_ConvTranspose):
    __doc__ = "Transposed convolution of (N, C, H, W) or (C, H, W)." + _TRANSPOSED
    n = 2

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return self._run(F.conv_transpose2d, input, output_size)


class ConvTranspose3d(_ConvTranspose):
    __doc__ = "Transposed convolution of (N, C, D, H, W) or (C, D, H, W)." + _TRANSPOSED
    n = 3

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return self._run(F.conv_transpose3d, input, output_size)
