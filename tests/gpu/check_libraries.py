"""What ``make gpu-check`` asks of cuBLASLt and cuDNN, where they are installed.

An item that passes lets the autotuner race the library on this architecture: its row is what
``pyframe.op.cuda_kernel.checked_on`` looks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box
from pyframe.backend import cublaslt as lt
from pyframe.backend import cudnn as dnn
from pyframe.op.registry import ops
from pyframe.ops import _cublaslt, _cudnn
from pyframe.ops import _cuda_linear_activation as layers
from pyframe.testing.accuracy import epsilon
from tests.gpu.check_ops import device_array, host


def _outputs(found: Any) -> list[np.ndarray]:
    return [host(y).astype(np.float64) for y in (found if isinstance(found, tuple) else (found,))]


def _compare(
    box: Box, item: str, name: str, library: Callable, own: Callable, arrays: list, dtype: Any
) -> float:
    """Twice the library's bits, and its distance from our own kernel in roundings."""
    given = [None if a is None else device_array(a.astype(dtype)) for a in arrays]
    first, second = _outputs(library(*given)), _outputs(library(*given))
    worst = 0.0
    for y, again, expected in zip(first, second, _outputs(own(*given)), strict=True):
        if not np.array_equal(y, again):
            box.fail(item, f"{name}: other bits the second time")
        scale = float(np.abs(expected).max()) or 1.0
        worst = max(worst, float(np.abs(y - expected).max()) / scale / epsilon(np.dtype(dtype)))
    # Either errs by about √n roundings of the largest value at most.
    if not worst <= 64:
        box.fail(item, f"{name}: {worst:.1f} roundings of the largest value away from ours")
    return round(worst, 2)


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def cublaslt(box: Box) -> dict[str, Any]:
    """Products in all layouts, and every epilogue, against our own kernels."""
    if why := lt.why_not():
        return {"status": why}
    m, n, k = box.pick((517, 392, 1048), (9, 8, 16))
    a, b, bias, added = _random(0, m, k), _random(1, k, n), _random(2, n), _random(3, m, n)
    rows: dict[str, Any] = {}

    def run(name: str, library: Callable, own: Callable, arrays: list, dtype: Any) -> None:
        title = f"{name} {dtype}"
        rows[title] = _compare(box, "cublaslt", title, library, own, arrays, dtype)

    for dtype in box.pick((pf.bfloat16, pf.float16, pf.float32, pf.float64), (pf.bfloat16,)):
        for name, left, right in (
            ("NN", a, b),
            ("TN", np.asfortranarray(a), b),
            ("NT", a, np.asfortranarray(b)),
        ):
            run(name, _cublaslt.multiply, _cublaslt.gemm.multiply, [left, right], dtype)
        batch = [_random(4, 3, m, k), _random(5, 3, k, n)]
        run("batch", _cublaslt.multiply, _cublaslt.gemm.multiply, batch, dtype)
        for name, more in (("bias", bias), ("sum", added)):
            run(name, _cublaslt.multiply, _cublaslt.gemm.multiply, [a, b, more], dtype)
        weight = np.ascontiguousarray(b.T) / k**0.5
        for name in ("relu", "gelu_tanh"):
            run(
                name,
                lambda *x, f=name: layers._activated_by_library(*x, activation=f),
                lambda *x, f=name: layers.activated(*x, activation=f),
                [a, weight, bias],
                dtype,
            )
        run(
            "gradient",
            lambda *x: layers._grad_by_library(*x, activation="gelu_tanh"),
            lambda *x: layers.grad_activation(*x, activation="gelu_tanh"),
            [a, b / k**0.5, added],
            dtype,
        )
    return {"roundings apart": rows}


_CONVOLUTIONS = (  # channels, kernel, size, options
    (64, 96, 3, 29, {"padding": (1, 1)}),
    (64, 128, 1, 28, {}),
    (48, 80, 3, 30, {"stride": (2, 2), "padding": (1, 1)}),
    (64, 64, 3, 28, {"groups": 4, "padding": (1, 1)}),
)


def cudnn(box: Box) -> dict[str, Any]:
    """Convolutions with their gradients, and attention both ways, against our own kernels."""
    if why := dnn.why_not():
        return {"status": why}
    rows: dict[str, Any] = {}

    def run(name: str, op: str, library: Callable, arrays: list, dtype: Any, **params: Any) -> None:
        own = next(k for k in ops[op].kernels["cuda"] if k.name == "cuda").run
        rows[name] = _compare(
            *(box, "cudnn", name, lambda *x: library(*x, **params)),
            *(lambda *x: own(*x, **params), arrays, dtype),
        )

    for dtype in box.pick((pf.bfloat16, pf.float16, pf.float32), (pf.bfloat16,)):
        for inputs, outputs, kernel, size, options in box.pick(_CONVOLUTIONS, _CONVOLUTIONS[-1:]):
            side = box.pick(size, kernel + 2)
            params = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
            params |= options
            x = _random(0, box.pick(5, 1), inputs, side, side)
            w = _random(1, outputs, inputs // params["groups"], kernel, kernel)
            for order in ("channels first", "channels last"):
                last = order == "channels last"
                image = np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1) if last else x
                title = f"{inputs}→{outputs} {kernel}×{kernel} {options or ''} {dtype} {order}"
                run(title, "conv2d", _cudnn.forward, [image, w, w[:, 0, 0, 0]], dtype, **params)
                shape = _cudnn.conv.output_shape(x.shape, w.shape, params)
                g = _random(2, *shape)
                g = np.moveaxis(np.moveaxis(g, 1, -1).copy(), -1, 1) if last else g
                sizes = {"input_size": x.shape}, {"weight_size": w.shape}
                given = ("conv_grad_input", _cudnn.grad_input, [g, w], dtype)
                run(f"{title} input", *given, **sizes[0], **params)
                given = ("conv_grad_weight", _cudnn.grad_weight, [g, image], dtype)
                run(f"{title} weight", *given, **sizes[1], **params)
    length = box.pick(512, 16)
    for dtype in box.pick((pf.bfloat16, pf.float16), (pf.bfloat16,)):
        for features in box.pick((64, 128), (64,)):
            for causal in (False, True):
                how = {"is_causal": causal, "scale": features**-0.5}
                q, k, v, g = (_random(i, 2, 3, length, features) for i in range(4))
                title = f"attention {dtype} d {features} causal {causal}"
                run(title, "native_attention", _cudnn.attend, [q, k, v], dtype, **how)
                rows[f"{title} backward"] = _attention_backward(
                    box, title, [q, k, v, g], dtype, how
                )
    return {"roundings apart": rows}


def _attention_backward(box: Box, title: str, arrays: list, dtype: Any, how: dict) -> float:
    own = next(k for k in ops["attention_backward"].kernels["cuda"] if k.name == "cuda").run
    forward = next(k for k in ops["native_attention"].kernels["cuda"] if k.name == "cuda").run
    more = {**how, "dropout_p": 0.0, "seed": 0, "offset": 0}

    def through(kernel: Callable) -> Callable:
        def gradients(q: Any, k: Any, v: Any, g: Any) -> tuple:
            y, mass = forward(q, k, v, None, **how)
            return kernel(g, q, k, v, y, mass, None, **more)

        return gradients

    library = through(_cudnn.attend_backward)
    return _compare(box, "cudnn", f"{title} backward", library, through(own), arrays, dtype)


ITEMS = (cublaslt, cudnn)
