"""Checks of convolutions, which transposed ones share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dtypes import bool_
from ..errors import DtypeError, ShapeError, fail
from ..op.windows import conv_output, pairs, product, spatial


def check_tensors(op: str, n: int, input: Any, weight: Any, bias: Any) -> None:
    """Raises for wrong numbers of dimensions and for dtypes that differ or are not numbers."""
    if len(weight.shape) != n + 2:
        fail(
            ShapeError,
            op,
            f"weight must have {n + 2} dimensions (out, in / groups, *kernel)",
            input=input,
            weight=weight,
        )
    if len(input.shape) not in (n + 1, n + 2):
        fail(
            ShapeError,
            op,
            f"expected input with {n + 2} dimensions (batched) or {n + 1} (unbatched)",
            input=input,
        )
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != input.dtype:
            fail(
                DtypeError,
                op,
                f"{name} must have input's dtype",
                "Convert one with .to(...).",
                **{"input": input, name: value},
            )
    if input.dtype == bool_:
        fail(DtypeError, op, "bool tensors cannot be convolved", input=input)


def check_groups(op: str, groups: Any) -> None:
    """Raises unless ``groups`` is positive."""
    spatial(op, "groups", groups, 1)


def check_bias(op: str, channels: int, weight: Any, bias: Any) -> None:
    """Raises unless the bias has one element per output channel."""
    if bias is not None and tuple(bias.shape) != (channels,):
        fail(ShapeError, op, f"bias must have {channels} elements", weight=weight, bias=bias)


def _check_channels(op: str, n: int, input: Any, weight: Any, groups: int) -> None:
    channels = input.shape[-n - 1]
    if weight.shape[1] * groups != channels:
        fail(
            ShapeError,
            op,
            f"weight expects {weight.shape[1] * groups} input channels but input has {channels}",
            input=input,
            weight=weight,
            groups=groups,
        )
    if not weight.shape[0] or weight.shape[0] % groups:
        fail(
            ShapeError,
            op,
            f"the number of output channels, {weight.shape[0]}, must be a positive multiple of "
            "groups",
            weight=weight,
            groups=groups,
        )


def padding_of(op: str, value: Any, kernel: tuple, stride: tuple, dilation: tuple) -> tuple:
    """Canonical padding: a number per dimension, or a pair where the two sides differ."""
    n = len(kernel)
    if value.__class__ is str:
        if value == "valid":
            return (0,) * n
        if value != "same":
            fail(ShapeError, op, f"padding must be 'same', 'valid' or integers, not {value!r}")
        if product(stride) != 1:
            fail(ShapeError, op, "padding='same' needs stride 1", stride=stride)
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple(t // 2 if t % 2 == 0 else (t // 2, t - t // 2) for t in total)
    if value.__class__ is tuple and any(p.__class__ is tuple for p in value):
        return value  # canonical already: from a gradient rule
    return spatial(op, "padding", value, n, 0)


def _check_kernel(op: str, input: Any, weight: Any, padding: tuple, dilation: tuple) -> None:
    kernel = tuple(weight.shape[2:])
    size = input.shape[-len(kernel) :]
    for s, k, (lo, hi), d in zip(size, kernel, pairs(padding), dilation, strict=True):
        if not k or s + lo + hi < d * (k - 1) + 1:
            fail(
                ShapeError,
                op,
                f"the kernel {kernel} is empty or larger than the padded input",
                "Pad more, or use a smaller kernel.",
                input=input,
                weight=weight,
                padding=padding,
                dilation=dilation,
            )


def checker(op: str, n: int) -> Callable:
    """The check of the record ``op`` of ``n`` dimensions."""

    def check(
        input: Any,
        weight: Any,
        bias: Any,
        *,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: Any,
    ) -> tuple:
        check_tensors(op, n, input, weight, bias)
        stride = spatial(op, "stride", stride, n)
        dilation = spatial(op, "dilation", dilation, n)
        check_groups(op, groups)
        padding = padding_of(op, padding, tuple(weight.shape[2:]), stride, dilation)
        _check_channels(op, n, input, weight, groups)
        check_bias(op, weight.shape[0], weight, bias)
        _check_kernel(op, input, weight, padding, dilation)
        return stride, padding, dilation, groups

    return check


def canonical(n: int, weight: tuple, params: dict) -> dict:
    """The parameters of a convolution as its kernels take them."""
    stride = spatial("", "", params.get("stride", 1), n)
    dilation = spatial("", "", params.get("dilation", 1), n)
    padding = padding_of("", params.get("padding", 0), weight[2:], stride, dilation)
    groups = params.get("groups", 1)
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def output_shape(n: int, x: tuple, w: tuple, params: dict) -> tuple:
    """The shape of a convolution's output."""
    p = canonical(n, w, params)
    out = conv_output(x[-n:], w[2:], p["stride"], p["padding"], p["dilation"])
    return (*x[: -n - 1], w[0], *out)


def _check_gradient(op: str, expected: tuple, g: Any) -> None:
    if tuple(g.shape) != expected:
        fail(ShapeError, op, f"grad_output must have the shape {expected}", grad_output=g)


def check_grad_input(
    grad_output: Any,
    weight: Any,
    *,
    input_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> tuple:
    """The check of conv_grad_input."""
    n = weight.ndim - 2
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    p = canonical(n, weight.shape, params)
    expected = output_shape(n, tuple(input_size), weight.shape, p)
    _check_gradient("conv_grad_input", expected, grad_output)
    return (tuple(input_size), *p.values())


def check_grad_weight(
    grad_output: Any,
    input: Any,
    *,
    weight_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> tuple:
    """The check of conv_grad_weight."""
    weight_size = tuple(weight_size)
    n = len(weight_size) - 2
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    p = canonical(n, weight_size, params)
    _check_gradient("conv_grad_weight", output_shape(n, input.shape, weight_size, p), grad_output)
    return (weight_size, *p.values())
