"""CUDA kernels of convolutions and of their gradients, as entries of their records."""

from __future__ import annotations

from typing import Any

from ..config import get_float32_matmul_precision
from ..op.cuda_arrays import MOST, can_vector, not_cuda_floats
from ..op.cuda_kernel import cuda_kernel
from ..op.record import Kernel
from ..op.windows import conv_output, pairs, product
from . import _cuda_conv_direct as direct
from . import _cuda_conv_gemm as gemm
from ._after_product import of_convolution
from ._cuda_gemm import multiply, not_cuda_gemm
from ._cuda_gemm_fused import fused_best
from .linear import linear
from .matmul import matmul

_MOST_ACROSS = 65535  # blocks of a grid along y and z


def _why_not(
    arrays: tuple, shapes: tuple, weight: tuple, params: dict, phases: int = 1, taps: int = 1
) -> str:
    """``shapes``: of what is read and written; blocks per phase or, with few channels, per tap."""
    if any(product(shape) > MOST // 2 for shape in shapes):  # with room for what is padded
        return "there are 2³⁰ elements or more"
    if direct.few_channels(weight, params["groups"]):
        if taps > _MOST_ACROSS:
            return f"a kernel of more than {_MOST_ACROSS} elements"
        return not_cuda_floats(*arrays)
    if max(params["groups"], phases) > _MOST_ACROSS:
        return f"more than {_MOST_ACROSS} groups, or steps of a stride"
    return not_cuda_gemm(*arrays)


def _tf32() -> bool:
    return get_float32_matmul_precision() != "highest"


def _geometry(params: dict) -> dict:
    return {k: params[k] for k in ("stride", "padding", "dilation")}


def _batched(array: Any, dimensions: int) -> Any:
    return array if array.ndim == dimensions else array[None]


def output_shape(x: tuple, w: tuple, params: dict) -> tuple:
    """The shape of a convolution's output; ``params`` are canonical."""
    size = x[-len(w) + 2 :]
    out = conv_output(size, w[2:], params["stride"], params["padding"], params["dilation"])
    return (*x[: 1 - len(w)], w[0], *out)


def _supports(input: Any, weight: Any, bias: Any = None, **params: Any) -> str:
    shapes = (input.shape, output_shape(input.shape, weight.shape, params))
    return _why_not((input, weight, bias), shapes, weight.shape, params)


def _supports_input(grad_output: Any, weight: Any, *, input_size: tuple, **params: Any) -> str:
    shapes = (input_size, grad_output.shape)
    phases = product(params["stride"])
    return _why_not((grad_output, weight), shapes, weight.shape, params, phases)


def _supports_weight(grad_output: Any, input: Any, *, weight_size: tuple, **params: Any) -> str:
    shapes = (input.shape, grad_output.shape)
    taps = product(weight_size[2:])
    return _why_not((grad_output, input), shapes, weight_size, params, taps=taps)


# ---- kernels of one tap: products of matrices as they lie


def _is_product(weight: tuple, params: dict) -> bool:
    """Whether every output position reads the one input position with its number."""
    steps = product(weight[2:]) * product(params["stride"]) * params["groups"]
    return steps == 1 and not any(map(any, pairs(params["padding"])))


def _as_rows(array: Any) -> Any:
    """A channels-last (N, C, ...) array as [N · positions, C]."""
    return direct.channels_last(array).reshape(-1, array.shape[1])


def _from_rows(rows: Any, x: Any) -> Any:
    """The reverse, of other channels at the positions of ``x``."""
    y = rows.reshape(x.shape[0], *x.shape[2:], -1)
    return y.transpose(0, y.ndim - 1, *range(1, y.ndim - 1))


def _can_rows(*arrays: Any) -> bool:
    """Whether these are channels-last and can be read 16 bytes at a time as :func:`_as_rows`."""
    return all(
        direct.is_channels_last(a) and can_vector(a.shape[1], direct.channels_last(a))
        for a in arrays
    )


def _product(x: Any, weight: Any, bias: Any, transposed: bool) -> Any:
    """A convolution with one tap, or its input gradient; ``None`` where layouts are against it."""
    w, positions = weight.reshape(weight.shape[:2]), product(x.shape[2:])
    if _can_rows(x):
        rows = _as_rows(x)
        y = matmul(rows, w) if transposed else linear(rows, w, bias)
        return _from_rows(y, x)
    if x.flags.c_contiguous and can_vector(positions, x):
        images = x.reshape(*x.shape[:2], positions)
        column = None if bias is None else bias.reshape(-1, 1)
        y = multiply(w.transpose() if transposed else w, images, column, 1.0, 1.0)
        return y.reshape(x.shape[0], -1, *x.shape[2:])
    return None


def _gather(
    x: Any, weight: Any, bias: Any, shape: tuple, params: dict, transposed: bool = False
) -> Any:
    n, groups, rest = weight.ndim, params["groups"], _geometry(params)
    whole = shape if len(shape) == n else (1, *shape)
    x = _batched(x, n)
    if direct.few_channels(weight.shape, groups):
        y = direct.gather(x, weight, bias, whole, groups, rest, transposed)
    else:
        y = None
        if x.size and _is_product(weight.shape, params):
            y = _product(x, weight, bias, transposed)
        if y is None:
            y = gemm.gather(x, weight, whole, groups, rest, transposed, _tf32(), bias)
    return y if len(shape) == n else y[0]


def forward(input: Any, weight: Any, bias: Any = None, **params: Any) -> Any:
    """See ``conv2d``."""
    shape = output_shape(input.shape, weight.shape, params)
    return _gather(input, weight, bias, shape, params)


def grad_input(grad_output: Any, weight: Any, *, input_size: tuple, **params: Any) -> Any:
    """See ``conv_grad_input``."""
    return _gather(grad_output, weight, None, tuple(input_size), params, True)


def grad_weight(grad_output: Any, input: Any, *, weight_size: tuple, **params: Any) -> Any:
    """See ``conv_grad_weight``."""
    n, groups, rest = len(weight_size), params["groups"], _geometry(params)
    g, x = _batched(grad_output, n), _batched(input, n)
    if direct.few_channels(weight_size, groups):
        return direct.weight_gradient(g, x, weight_size, groups, rest)
    if x.size and _is_product(weight_size, params) and _can_rows(g, x):
        return matmul(_as_rows(g).transpose(), _as_rows(x)).reshape(weight_size)
    return gemm.weight_gradient(g, x, weight_size, groups, rest, _tf32())


def not_affine(
    input: Any,
    weight: Any,
    scale: Any = None,
    shift: Any = None,
    residual: Any = None,
    **params: Any,
) -> str:
    """Why :func:`affine` and :func:`activated` cannot run, or ""."""
    if few_channels(weight, params["groups"]):
        return "few channels per group: a convolution without a product of matrices"
    shapes = (input.shape, output_shape(input.shape, weight.shape, params))
    return _why_not((input, weight, residual), shapes, weight.shape, params)


def few_channels(weight: Any, groups: int) -> bool:
    """Whether convolutions with this weight are no products, and end in no epilogue."""
    return direct.few_channels(weight.shape, groups)


def affine(*arrays: Any, min: float, max: float, **params: Any) -> Any:
    """See ``conv_affine``."""
    return _finished(*arrays, activation=None, numbers=(min, max), params=params)


def activated(*arrays: Any, activation: str, **params: Any) -> Any:
    """See ``activated_conv``."""
    return _finished(*arrays, activation=activation, numbers=(), params=params)


def _finished(
    input: Any,
    weight: Any,
    scale: Any = None,
    shift: Any = None,
    residual: Any = None,
    *,
    activation: str | None,
    numbers: tuple,
    params: dict,
) -> Any:
    n, groups, rest = weight.ndim, params["groups"], _geometry(params)
    shape = output_shape(input.shape, weight.shape, params)
    whole = shape if len(shape) == n else (1, *shape)
    x = _batched(input, n)
    residual = None if residual is None else _batched(residual, n)
    given = {"scale": scale, "shift": shift, "residual": residual}
    found = {name: array for name, array in given.items() if array is not None}
    wide = any(array.dtype != x.dtype for array in found.values())
    function = of_convolution(activation, tuple(found), x.dtype if wide else None)
    if x.size and _is_product(weight.shape, params) and _can_rows(x):
        if residual is not None:
            found["residual"] = _as_rows(residual)
        w = weight.reshape(weight.shape[:2]).T
        rows = fused_best(_as_rows(x), w, function, tuple(found.values()), numbers)
        y = _from_rows(rows, x)
    elif activation is None:
        finish = {**given, "between": numbers}
        y = gemm.gather(x, weight, whole, groups, rest, False, _tf32(), **finish)
    else:
        after = gemm.After(function, tuple(found.values()))
        y = gemm.gather(x, weight, whole, groups, rest, False, _tf32(), after=after)
    return y if len(shape) == n else y[0]


CONV: Kernel = cuda_kernel(forward, _supports, "kernels/conv_mma.cu")
CONV_GRAD_INPUT: Kernel = cuda_kernel(grad_input, _supports_input, "kernels/conv_mma.cu")
CONV_GRAD_WEIGHT: Kernel = cuda_kernel(grad_weight, _supports_weight, "kernels/conv_simt.cu")
