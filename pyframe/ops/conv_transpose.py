"""Transposed convolutions: the gradient of a convolution with respect to its input, as a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ShapeError, fail
from ..op.windows import spatial
from ..tensor.register import composite
from ._convolution_checks import check_bias, check_groups, check_tensors
from .convolution import conv_grad_input


def _size(
    op: str,
    size: tuple,
    kernel: tuple,
    stride: tuple,
    padding: tuple,
    output_padding: tuple,
    dilation: tuple,
) -> tuple[int, ...]:
    out = []
    for s, k, step, p, extra, d in zip(
        size, kernel, stride, padding, output_padding, dilation, strict=True
    ):
        if extra >= max(step, d):
            fail(
                ShapeError,
                op,
                "output_padding must be smaller than stride or dilation",
                output_padding=output_padding,
                stride=stride,
                dilation=dilation,
            )
        out.append((s - 1) * step - 2 * p + d * (k - 1) + 1 + extra)
    if min(out) < 1:
        fail(
            ShapeError,
            op,
            f"the output would have the size {tuple(out)}",
            "Use less padding.",
            padding=padding,
        )
    return tuple(out)


def _make(n: int) -> Callable:
    name = f"conv_transpose{n}d"

    def conv_transpose(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Any:
        check_tensors(name, n, input, weight, bias)
        check_groups(name, groups)
        strides = spatial(name, "stride", stride, n)
        zeros = spatial(name, "padding", padding, n, 0)
        extra = spatial(name, "output_padding", output_padding, n, 0)
        spread = spatial(name, "dilation", dilation, n)
        channels = input.shape[-n - 1]
        if weight.shape[0] != channels or channels % groups:
            fail(
                ShapeError,
                name,
                f"weight expects {weight.shape[0]} input channels, a multiple of groups, but input "
                f"has {channels}",
                input=input,
                weight=weight,
                groups=groups,
            )
        outputs = weight.shape[1] * groups
        check_bias(name, outputs, weight, bias)
        kernel = tuple(weight.shape[2:])
        size = _size(name, tuple(input.shape[-n:]), kernel, strides, zeros, extra, spread)
        shape = (*input.shape[: -n - 1], outputs, *size)
        # Padding less at the end says the same as output_padding, and also holds beyond a stride.
        both = tuple((p, p - e) if e else p for p, e in zip(zeros, extra, strict=True))
        y = conv_grad_input(input, weight, shape, strides, both, spread, groups)
        return y if bias is None else y + bias.reshape((outputs,) + (1,) * n)

    conv_transpose.__name__ = conv_transpose.__qualname__ = name
    conv_transpose.__doc__ = f"""Transposed convolution of {n}-D signals (a "deconvolution").

    Args:
        input: (batch, in, {n} dimensions) or without the batch.
        weight: (in, out / groups, {n} kernel lengths), of the same dtype.
        bias: (out,) or ``None``.
        stride: of the convolution whose gradient this is.
        padding: cut off at both ends of the output.
        output_padding: positions added at the end of the output; less than stride or dilation.
        groups: channels are split into so many independent convolutions.
        dilation: steps between the taps of the kernel.

    Raises:
        ShapeError: if the shapes do not fit or a parameter is out of range.
        DtypeError: if the dtypes differ.
    """
    return composite(export=("pyframe", "functional"), autocast="lower")(conv_transpose)


conv_transpose1d = _make(1)
conv_transpose2d = _make(2)
conv_transpose3d = _make(3)
