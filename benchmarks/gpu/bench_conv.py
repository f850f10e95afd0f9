"""ResNet-50's convolutions on a real GPU, against cuDNN in torch."""

from __future__ import annotations

from typing import Any

import pyframe as pf
from benchmarks.gpu.device_time import (
    Call,
    Sample,
    device_ms,
    ours,
    row,
    tf32,
    theirs,
    times,
    torch,
    values,
)
from benchmarks.gpu.runner import Box
from pyframe.backend import cudnn
from pyframe.ops import _cudnn
from pyframe.ops.convolution import conv_grad_input, conv_grad_weight

_BATCH = 64
# Input and output channels, kernel, stride, input size, and how often ResNet-50 has it.
LAYERS = [
    (64, 64, 3, 1, 56, 3),
    (128, 128, 3, 1, 28, 3),
    (256, 256, 3, 1, 14, 5),
    (512, 512, 3, 1, 7, 2),
    (64, 256, 1, 1, 56, 4),
    (256, 64, 1, 1, 56, 2),
    (128, 512, 1, 1, 28, 4),
    (512, 128, 1, 1, 28, 3),
    (256, 1024, 1, 1, 14, 6),
    (1024, 256, 1, 1, 14, 5),
    (512, 2048, 1, 1, 7, 3),
    (2048, 512, 1, 1, 7, 2),
    (3, 64, 7, 2, 224, 1),
    (128, 128, 3, 2, 56, 1),
    (256, 256, 3, 2, 28, 1),
    (512, 512, 3, 2, 14, 1),
    (256, 512, 1, 2, 56, 1),
    (512, 1024, 1, 2, 28, 1),
    (1024, 2048, 1, 2, 14, 1),
    (64, 64, 1, 1, 56, 1),
    (256, 128, 1, 1, 56, 1),
    (512, 256, 1, 1, 28, 1),
    (1024, 512, 1, 1, 14, 1),
]
_TINY = [(8, 16, 3, 1, 6, 1), (16, 8, 1, 2, 5, 1), (3, 8, 7, 2, 9, 1)]
_MODES = (("bfloat16", "bfloat16", False), ("tf32", "float32", True))
_AIM = 0.8


def convolutions(box: Box) -> dict[str, Any]:
    """Forward and both gradients in channels-last order; the sum over the network at the end."""
    rows: dict[str, Any] = {}
    for mode, dtype, allowed in _MODES:
        whole: dict[str, dict[str, float]] = {}
        for layer in box.pick(LAYERS, _TINY):
            inputs, outputs, kernel, stride, size, count = layer
            title = f"{mode} {inputs}→{outputs} {kernel}×{kernel} /{stride} at {size}"
            found = box.attempt(
                title,
                lambda d=dtype, t=allowed, layer=layer: _layer(
                    d, t, box.pick(_BATCH, 2), layer[:5]
                ),
            )
            if found is None:
                rows[title] = "failed, or no time"
                continue
            rows[title] = {}
            for way, (took, entry) in found.items():
                rows[title][way] = entry
                for name, sample in took.items():
                    total = whole.setdefault(way, {})
                    total[name] = total.get(name, 0.0) + count * sample.median
                if "torch" in took:
                    entry["times torch"] = times(took, "pyframe", "torch")
        for way, total in whole.items():
            rows[f"{mode} {way}, all layers"] = {f"{k} ms": round(v, 3) for k, v in total.items()}
            if total.get("torch"):
                ratio = round(total["torch"] / total["pyframe"], 3)
                rows[f"{mode} {way}, all layers"]["times torch"] = ratio
                box.target(f"ResNet-50's convolutions, {mode} {way}", ratio, _AIM)
    return rows


def _last(x: Any) -> Any:
    """The same values with the channels last in memory."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _layer(
    dtype: str, allowed: bool, batch: int, layer: tuple[int, ...]
) -> dict[str, tuple[dict[str, Sample], dict[str, Any]]]:
    inputs, outputs, kernel, stride, size = layer
    padding, after = kernel // 2, (size + 2 * (kernel // 2) - kernel) // stride + 1
    x, w = values(batch, inputs, size, size), values(outputs, inputs, kernel, kernel)
    g = values(batch, outputs, after, after)
    options = {"stride": stride, "padding": padding}
    a, b, c = (_last(ours(v, dtype)) for v in (x, w, g))
    sizes = {"input_size": tuple(x.shape)}, {"weight_size": tuple(w.shape)}
    more = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1), "groups": 1}
    cases: dict[str, dict[str, Call]] = {
        "forward": {"pyframe": lambda: pf.nn.functional.conv2d(a, b, **options)},
        "input gradient": {"pyframe": lambda: conv_grad_input(c, b, **sizes[0], **more)},
        "weight gradient": {"pyframe": lambda: conv_grad_weight(c, a, **sizes[1], **more)},
    }
    if not cudnn.why_not():
        p, q, r = a.array, b.array, c.array
        cases["forward"]["cudnn"] = lambda: _cudnn.forward(p, q, **more)
        cases["input gradient"]["cudnn"] = lambda: _cudnn.grad_input(r, q, **sizes[0], **more)
        cases["weight gradient"]["cudnn"] = lambda: _cudnn.grad_weight(r, p, **sizes[1], **more)
    other = torch()
    if other is not None:
        s, t, u = (_last(theirs(v, dtype)) for v in (x, w, g))
        back = other.ops.aten.convolution_backward
        rest = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)
        cases["forward"]["torch"] = lambda: other.nn.functional.conv2d(s, t, **options)
        for way, mask in (
            ("input gradient", [True, False, False]),
            ("weight gradient", [False, True, False]),
        ):
            cases[way]["torch"] = lambda m=mask: back(u, s, t, None, *rest, m)
    tf32(allowed)
    flops = 2.0 * batch * outputs * after**2 * inputs * kernel**2
    try:
        with pf.no_grad():
            took = {way: device_ms(pair, rounds=7) for way, pair in cases.items()}
    finally:
        tf32(False)
    return {way: (samples, row(samples, TFLOP_s=flops)) for way, samples in took.items()}


def fused_block(box: Box) -> dict[str, Any]:
    """Convolution, batch norm with known statistics, residual and relu: two kernels against four.

    Ours are a small one, of the statistics, and the convolution's.
    """
    rows: dict[str, Any] = {}
    for mode, dtype, allowed in _MODES:
        for channels, kernel, size in box.pick(
            ((64, 3, 56), (128, 3, 28), (256, 3, 14), (512, 3, 7), (256, 1, 56)), ((16, 3, 5),)
        ):
            title = f"{mode} {channels} {kernel}×{kernel} at {size}"
            found = box.attempt(
                title,
                lambda d=dtype, t=allowed, c=channels, k=kernel, s=size: _block(
                    d, t, box.pick(_BATCH, 2), c, k, s
                ),
            )
            if found is None:
                rows[title] = "failed, or no time"
                continue
            rows[title] = row(found)
            if "torch" in found:
                rows[title]["times torch"] = times(found, "pyframe", "torch")
                box.target(f"fused block {title}", rows[title]["times torch"], 1.0)
    return rows


def _block(
    dtype: str, allowed: bool, batch: int, channels: int, kernel: int, size: int
) -> dict[str, Sample]:
    x, w = values(batch, channels, size, size), values(channels, channels, kernel, kernel)
    scale, shift = abs(values(channels)) + 0.5, values(channels) + 1
    a, b, r = (_last(ours(v, dtype)) for v in (x, w, x))
    statistics = [ours(v, dtype) for v in (0 * shift, 0 * shift + 1, scale, shift)]
    cases: dict[str, Call] = {
        "pyframe": lambda: pf.nn.functional.conv_batch_norm(
            a, b, None, *statistics, r, padding=kernel // 2, min=0.0
        )
    }
    other = torch()
    if other is not None:
        functional = other.nn.functional
        s, t, q = (_last(theirs(v, dtype)) for v in (x, w, x))
        mean, variance = theirs(0 * shift), theirs(0 * shift + 1)  # as batch norm keeps them
        weight, bias = theirs(scale), theirs(shift)

        def block() -> Any:
            y = functional.conv2d(s, t, padding=kernel // 2)
            y = functional.batch_norm(y, mean, variance, weight, bias)
            return functional.relu_(y.add_(q))

        cases["torch"] = block
    tf32(allowed)
    try:
        with pf.no_grad(), other.no_grad() if other is not None else pf.no_grad():
            return device_ms(cases)
    finally:
        tf32(False)


ITEMS = (convolutions, fused_block)
