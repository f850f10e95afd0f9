"""Gradient checkpointing: keep a region's inputs, recompute its inside during backward (L3).

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import config, random
from ..tensor.tensor import Tensor, make
from .api import backward
from .function import Context, Function


class _Checkpoint(Function):
    @staticmethod
    def forward(ctx: Context, function: Callable, preserve: bool, *args: Any) -> Any:
        ctx.function = function
        ctx.state = random.get_rng_state() if preserve else None
        ctx.mode = config.get_mode()
        ctx.args = [None if isinstance(a, Tensor) else a for a in args]
        ctx.save_for_backward(*[a if isinstance(a, Tensor) else None for a in args])
        return function(*args)

    @staticmethod
    def backward(ctx: Context, *cotangents: Any) -> Any:
        inputs = []
        for saved, other in zip(ctx.saved_tensors, ctx.args, strict=True):
            if saved is None:
                inputs.append(other)
                continue
            copy = make(saved.array, saved.device)
            if saved.requires_grad:
                copy.requires_grad_()
            inputs.append(copy)
        now = random.get_rng_state() if ctx.state is not None else None
        token = config.set_mode(grad=True, autocast=ctx.mode.autocast)
        try:
            if ctx.state is not None:
                random.set_rng_state(ctx.state)
            outputs = ctx.function(*inputs)
        finally:
            if now is not None:
                random.set_rng_state(now)
            config.reset_mode(token)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [
            (o, g)
            for o, g in zip(outputs, cotangents, strict=True)
            if isinstance(o, Tensor) and o.requires_grad
        ]
        if pairs:
            backward([o for o, _ in pairs], [g for _, g in pairs])
        grads = [i.grad if isinstance(i, Tensor) else None for i in inputs]
        return (None, None, *grads)


def checkpoint(
    function: Callable,
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args)`` without keeping what its ops save; backward runs it again.

    Args:
        function: of Tensors; must give the same result when called again.
        *args: its arguments. Parameters that it closes over get their gradients too.
        use_reentrant: accepted for PyTorch's sake; there is one implementation.
        preserve_rng_state: draw the same random numbers (dropout masks) in the second run.
        **kwargs: keyword arguments of ``function``.

    >>> import pyframe
    >>> x = pyframe.tensor([1.0, 2.0], requires_grad=True)
    >>> checkpoint(lambda x: (x * x).sum(), x).backward()
    >>> x.grad
    tensor([2., 4.])
    """
    call = (lambda *a: function(*a, **kwargs)) if kwargs else function
    if config.get_mode().grad and not any(isinstance(a, Tensor) and a.requires_grad for a in args):
        # Nothing would be recorded, yet parameters that the function closes over need gradients.
        dummy = make(_zero()).requires_grad_()
        return _Checkpoint.apply(lambda _, *rest: call(*rest), preserve_rng_state, dummy, *args)
    return _Checkpoint.apply(call, preserve_rng_state, *args)


def _zero() -> Any:
    """A 0-d array that only serves to put the checkpoint on the tape."""
    from ..device import cpu
    from ..dtypes import float32

    return cpu.xp.zeros((), float32)


def checkpoint_sequential(
    functions: Sequence[Callable], segments: int, input: Any, **options: Any
) -> Any:
    """Runs a chain of functions in ``segments`` checkpointed pieces (the last is kept)."""
    functions = list(functions)
    size = max(1, len(functions) // segments)

    def piece(start: int, end: int) -> Callable:
        def run(x: Any) -> Any:
            for f in functions[start:end]:
                x = f(x)
            return x

        return run

    end = 0
    for start in range(0, size * (segments - 1), size):
        end = start + size
        input = checkpoint(piece(start, end), input, **options)
    return piece(end, len(functions))(input)
