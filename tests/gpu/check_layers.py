"""Larger shapes in ``make gpu-check``: attention, convolutions, recurrent layers, optimizers.

Samples of the generic suite are small. Here tiles are cut off at edges, pipelines are full, and
several blocks work on one result; and a second run has to give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import pyframe as pf
from benchmarks.gpu.runner import Box
from pyframe.op.registry import ops
from pyframe.testing.accuracy import epsilon

Results = list[np.ndarray]
functional = pf.nn.functional


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _run(function: Callable[..., Any], arrays: list[np.ndarray], dtype: Any, place: str) -> Results:
    """The output and the gradients of all inputs, in float64 on the host."""
    leaves = [pf.tensor(a, device=place).to(dtype).detach().requires_grad_() for a in arrays]
    y = function(*leaves)
    weights = pf.tensor(_random(9, *y.shape), device=place).to(y.dtype)
    (y * weights).sum().backward()
    return [t.detach().cpu().to(pf.float64).numpy() for t in (y, *(leaf.grad for leaf in leaves))]


def _compare(
    box: Box, name: str, function: Callable[..., Any], arrays: list[np.ndarray], dtype: Any
) -> float:
    """The largest error relative to the largest value, in roundings of the dtype, twice run."""
    rounded = [pf.tensor(a).to(dtype).to(pf.float64).numpy() for a in arrays]
    exact = _run(function, rounded, pf.float64, "cpu")
    first = _run(function, rounded, dtype, "cuda")
    second = _run(function, rounded, dtype, "cuda")
    worst = 0.0
    for number, (e, a, b) in enumerate(zip(exact, first, second, strict=True)):
        what = "output" if number == 0 else f"gradient {number - 1}"
        if not np.array_equal(a, b, equal_nan=True):
            box.fail(name, f"{name}: {what} has other bits the second time")
        scale = float(np.abs(e).max()) or 1.0
        error = float(np.abs(a - e).max()) / scale / epsilon(np.dtype(dtype))
        # Sums of n rounded products err by at most about √n roundings of the largest of them.
        if not error <= 64:
            at = np.unravel_index(int(np.abs(a - e).argmax()), e.shape)
            box.fail(
                name,
                f"{name}: {what} at {tuple(map(int, at))} is {a[at]}, not {e[at]}: "
                f"{error:.1f} roundings of the largest value",
            )
        worst = max(worst, error)
    return round(worst, 2)


def _all(box: Box, cases: Iterator[tuple[str, Callable[..., Any], list, Any]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, function, arrays, dtype in cases:
        found = box.attempt(
            name, lambda n=name, f=function, a=arrays, d=dtype: _compare(box, n, f, a, d), seconds=5
        )
        rows[name] = "failed" if found is None else found
        if found is None and box.dry:
            break
    return {"roundings": rows}


def attention_shapes(box: Box) -> dict[str, Any]:
    """Forward and gradients with odd lengths, all head sizes, masks and grouped queries."""

    def cases() -> Iterator[tuple[str, Callable[..., Any], list, Any]]:
        long, short = box.pick((517, 389), (9, 7))
        for dtype in (pf.bfloat16, pf.float16, pf.float32):
            for features in (32, 64, 80, 128, 256):
                for causal in (False, True):
                    keys = long if causal else short
                    q = _random(0, 1, 4, long, features)
                    k, v = _random(1, 1, 4, keys, features), _random(2, 1, 4, keys, features)
                    yield (
                        f"attention {dtype} d {features} causal {causal}",
                        lambda q, k, v, c=causal: functional.scaled_dot_product_attention(
                            q, k, v, is_causal=c
                        ),
                        [q, k, v],
                        dtype,
                    )
            grouped = [_random(0, 2, 8, short, 64), *(_random(i, 2, 2, short, 64) for i in (1, 2))]
            yield (
                f"attention {dtype} grouped",
                lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, enable_gqa=True),
                grouped,
                dtype,
            )

    return _all(box, cases())


_CONVOLUTIONS = (  # channels, kernel, size, options
    (64, 96, 3, 29, {"padding": 1}),
    (64, 128, 1, 28, {}),
    (3, 64, 7, 61, {"stride": 2, "padding": 3}),
    (48, 80, 3, 30, {"stride": 2, "padding": 1}),
    (64, 64, 3, 27, {"dilation": 2, "padding": 2}),
    (64, 64, 3, 28, {"groups": 4, "padding": 1}),
    (72, 72, 3, 28, {"groups": 72, "padding": 1}),
)


def _last(x: Any) -> Any:
    """The same values with the channels last in memory."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _lasting(x: Any) -> Any:
    return _last(x) if x.ndim == 4 else x


def convolution_shapes(box: Box) -> dict[str, Any]:
    """Forward and both gradients, in both orders of memory, and transposed."""

    def cases() -> Iterator[tuple[str, Callable[..., Any], list, Any]]:
        for dtype in (pf.bfloat16, pf.float32):
            for inputs, outputs, kernel, size, options in _CONVOLUTIONS:
                side = box.pick(size, kernel + 4)
                x = _random(0, box.pick(5, 1), inputs, side, side)
                w = _random(1, outputs, inputs // options.get("groups", 1), kernel, kernel)
                title = f"conv2d {dtype} {inputs}→{outputs} {kernel}×{kernel} {options or ''}"
                yield (
                    title.strip(),
                    lambda x, w, o=options: functional.conv2d(x, w, **o),
                    [x, w],
                    dtype,
                )
                yield (
                    f"{title} channels last",
                    lambda x, w, o=options: functional.conv2d(_last(x), w, **o),
                    [x, w],
                    dtype,
                )
            yield (
                f"conv_transpose2d {dtype}",
                lambda x, w: functional.conv_transpose2d(x, w, stride=2, padding=1),
                [_random(0, 2, 32, box.pick(17, 5), box.pick(17, 5)), _random(1, 32, 24, 4, 4)],
                dtype,
            )

    return _all(box, cases())


def hidden_layers(box: Box) -> dict[str, Any]:
    """Epilogues: activations between layers and behind convolutions, ends of residual blocks."""
    activated, ended = (ops[n].function for n in ("activated_conv", "residual_linear"))
    limited = ops["limited_batch_norm"].function

    def cases() -> Iterator[tuple[str, Callable[..., Any], list, Any]]:
        rows, inputs, hidden, outputs = box.pick((2053, 264, 1032, 136), (5, 8, 16, 8))
        layers = [_random(0, rows, inputs), _random(1, hidden, inputs) / inputs**0.5]
        layers += [_random(2, outputs, hidden) / hidden**0.5, _random(3, hidden)]
        layers += [_random(4, outputs)]
        side = box.pick(29, 6)
        images = [_random(0, box.pick(5, 1), 64, side, side), _random(1, 96, 64, 3, 3) / 24]
        images += [_random(i, 96) for i in (2, 3)] + [
            _random(4, *images[0].shape[:1], 96, side, side)
        ]
        residual = _random(5, rows, outputs)
        dropped = {"p": 0.25, "seed": 7, "offset": 3}
        # Far from the limit on either side, where the gradient is the same in every precision.
        signs = np.sign(_random(6, *images[4].shape))
        normal = [3 * signs + images[4] / 8, abs(images[2]) + 0.5, images[3] / 8]
        for dtype in box.pick((pf.bfloat16, pf.float16, pf.float32), (pf.bfloat16,)):
            yield (
                f"linear, dropout, residual {dtype}",
                lambda *a: ended(*a, **dropped),
                [*layers[:2], layers[3], _random(7, rows, hidden)],
                dtype,
            )
            yield (
                f"feed_forward and residual {dtype}",
                lambda *a: functional.feed_forward(*a, activation="gelu"),
                [*layers, residual],
                dtype,
            )
            for title, more in (("relu", []), ("residual, relu", [30 * signs])):
                yield (
                    f"batch_norm, {title} {dtype}",
                    lambda *a: limited(*map(_lasting, a), min=0.0)[0],
                    [*normal, *more],
                    dtype,
                )
            for name in box.pick(("gelu", "gelu_tanh", "relu"), ("gelu",)):
                yield (
                    f"feed_forward {dtype} {name}",
                    lambda *a, n=name: functional.feed_forward(*a, activation=n),
                    layers,
                    dtype,
                )
            yield (
                f"convolution and silu {dtype}",
                lambda *a: activated(*a, padding=1, activation="silu"),
                images,
                dtype,
            )

    return _all(box, cases())


def recurrent_layers(box: Box) -> dict[str, Any]:
    """LSTM and GRU, two layers and both directions, against the CPU."""
    rows: dict[str, Any] = {}
    steps, batch, width = box.pick((37, 19, 72), (3, 2, 8))
    for kind in ("LSTM", "GRU"):
        for dtype, close in ((pf.float64, 1e-9), (pf.float32, 2e-3)):
            found = []
            for place in ("cpu", "cuda"):
                pf.manual_seed(0)
                layer = getattr(pf.nn, kind)(width, width, num_layers=2, bidirectional=True)
                layer = layer.to(pf.float64).to(dtype).to(place)
                x = pf.tensor(_random(0, steps, batch, width), device=place).to(dtype)
                x = x.detach().requires_grad_()
                y = layer(x)[0]
                (y * y).sum().backward()
                grads = [p.grad for p in layer.parameters()]
                found.append([t.detach().cpu().numpy() for t in (y, x.grad, *grads)])
            worst = 0.0
            for a, b in zip(*found, strict=True):
                worst = max(worst, float(np.abs(a - b).max() / (np.abs(a).max() or 1)))
            if not worst <= close:
                box.fail("recurrent layers", f"{kind} {dtype}: {worst} > {close} from the CPU")
            rows[f"{kind} {dtype}"] = float(f"{worst:.2e}")
    return {"apart": rows}


_OPTIMIZERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("AdamW", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 0.05}),
    ("Adadelta", {"lr": 1.0}),
    ("Adamax", {"lr": 0.01}),
    ("RAdam", {"lr": 0.01, "decoupled_weight_decay": True, "weight_decay": 0.1}),
)


def optimizer_steps(box: Box) -> dict[str, Any]:
    """Ten steps on many parameters of odd sizes, with clipped gradients, against the CPU."""
    shapes = [(3,), (4, 5), (4099,), (130, 64), (1, 1), (box.pick(1 << 20, 64),)]
    shapes = box.pick(shapes, shapes[:2])
    rows: dict[str, Any] = {}
    for name, options in _OPTIMIZERS:
        found = []
        for place in ("cpu", "cuda"):
            parameters = [
                pf.nn.Parameter(pf.tensor(_random(i, *s).astype(np.float32), device=place))
                for i, s in enumerate(shapes)
            ]
            optimizer = getattr(pf.optim, name)(parameters, **options)
            for step in range(10):
                for i, p in enumerate(parameters):
                    value = _random(100 * step + i, *p.shape).astype(np.float32)
                    p.grad = pf.tensor(value, device=place)
                pf.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
            found.append([p.detach().cpu().numpy() for p in parameters])
        worst = max(
            float((np.abs(a - b) / (1 + np.abs(a))).max()) for a, b in zip(*found, strict=True)
        )
        if not worst <= 1e-4:
            box.fail("optimizer steps", f"{name}: {worst} from the CPU")
        rows[name] = float(f"{worst:.2e}")
    return {"apart": rows}


ITEMS = (attention_shapes, convolution_shapes, hidden_layers, recurrent_layers, optimizer_steps)
