"""Attention on a real GPU, forward and backward, against torch's flash attention."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pyframe as pf
from benchmarks.gpu import device_time
from benchmarks.gpu.device_time import Call, device_ms, ours, row, theirs, times, torch, values
from benchmarks.gpu.runner import Box
from pyframe.backend import cudnn
from pyframe.ops import _cudnn

_TOKENS, _WIDTH = 16384, 2048  # of a batch; all heads together
_AIMS = {"forward": 0.8, "backward": 0.7}


def attention(box: Box) -> dict[str, Any]:
    """bf16, 1k to 8k tokens, heads of 64 and 128 features, causal; at 4k without a mask as well."""
    rows: dict[str, Any] = {}
    for length, features, causal in (
        *((t, d, True) for t in box.pick((1024, 2048, 4096, 8192), (32,)) for d in (64, 128)),
        *((box.pick(4096, 24), d, False) for d in (64, 128)),
    ):
        tokens, width = box.pick((_TOKENS, _WIDTH), (64, 256))
        shape = (max(1, tokens // length), width // features, length, features)
        title = f"T {length} d {features}" + (" causal" if causal else "")
        found = box.attempt(title, lambda s=shape, c=causal: _both(s, c))
        if found is None:
            rows[title] = "failed, or no time"
            continue
        rows[title] = {}
        for way, (took, entry) in found.items():
            if "torch" in took:
                entry["times torch"] = times(took, "pyframe", "torch")
                box.target(f"attention {way} {title}", entry["times torch"], _AIMS[way])
            rows[title][way] = entry
    return rows


def _both(shape: tuple[int, ...], causal: bool) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Forward and backward; 4 · T² · d operations per head forward, 2.5 times that backward."""
    batch, heads, length, features = shape
    flops = 4.0 * batch * heads * length**2 * features / (2 if causal else 1)
    sides: dict[str, tuple[Any, list[Any]]] = {}
    raw = [values(*shape) for _ in range(4)]
    sides["pyframe"] = (pf, [ours(v, "bfloat16") for v in raw])
    other = torch()
    if other is not None:
        sides["torch"] = (other, [theirs(v, "bfloat16") for v in raw])
    forward: dict[str, Call] = {}
    backward: dict[str, Call] = {}
    with _flash():
        for name, (fw, (q, k, v, g)) in sides.items():
            attend = fw.nn.functional.scaled_dot_product_attention
            forward[name] = lambda f=attend, q=q, k=k, v=v: f(q, k, v, is_causal=causal)
            leaves = [t.clone().requires_grad_() for t in (q, k, v)]
            y = attend(*leaves, is_causal=causal)

            def step(y: Any = y, g: Any = g, leaves: Any = leaves) -> None:
                for leaf in leaves:
                    leaf.grad = None
                y.backward(g, retain_graph=True)

            backward[name] = step
        if not cudnn.why_not():
            arrays = [t.array for t in sides["pyframe"][1]]
            forward["cudnn"], backward["cudnn"] = _by_cudnn(*arrays, causal)
        with pf.no_grad():
            one = device_ms(forward)
        two = device_ms(backward)
    return {
        "forward": (one, row(one, TFLOP_s=flops)),
        "backward": (two, row(two, TFLOP_s=2.5 * flops)),
    }


def _by_cudnn(q: Any, k: Any, v: Any, g: Any, causal: bool) -> tuple[Call, Call]:
    how = {"is_causal": causal, "scale": q.shape[-1] ** -0.5}
    y, mass = _cudnn.attend(q, k, v, **how)
    return (
        lambda: _cudnn.attend(q, k, v, **how),
        lambda: _cudnn.attend_backward(g, q, k, v, y, mass, **how),
    )


def _flash() -> Any:
    if torch() is None or device_time.PEER == "cpu":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.FLASH_ATTENTION)


ITEMS = (attention,)
