"""Regions in which ops choose their precision: what their records say is done to their inputs.

The lists are those that PyTorch has for CUDA, on every device. The ``autocast`` field of a record
or composite says which one it is on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import config
from ..backend.capture import current as current_capture
from ..dtypes import as_dtype, bfloat16, float16, float32, float64, is_floating, is_half
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, fail
from ..op.record import Op
from ..ops.cast import cast
from ..tape.node import Leaf
from ..tensor.tensor import Tensor

_DEFAULTS = {"cuda": float16, "cpu": bfloat16}


class Policy:
    """What ``mode.autocast`` is inside of a region.

    Args:
        dtypes: the lower precision of each device type whose tensors are converted.
        kept: converted weights, ``{(id, dtype, capture): (weight, version, converted)}``, or
            ``None``: each use converts anew. Regions inside of others share it.
    """

    __slots__ = ("_insides", "dtypes", "kept")

    def __init__(self, dtypes: dict[str, Any], kept: dict | None) -> None:
        self.dtypes, self.kept = dtypes, kept
        self._insides: dict[tuple, config.Mode] = {}

    def call(self, op: Op, mode: config.Mode, inputs: tuple, params: tuple) -> Any:
        """Calls ``op``, its inputs converted, in a mode without autocast."""
        token = config.enter(self._inside(mode))
        try:
            if op.autocast:
                inputs = self._all_converted(op.autocast, inputs)
            if op.random:
                seed, offset = params[-2:]
                return op.function(*inputs, *params[:-2], seed=seed, offset=offset)
            return op.function(*inputs, *params)
        finally:
            config.reset_mode(token)

    def run(
        self, how: str, mode: config.Mode, function: Callable, args: tuple, kwargs: dict
    ) -> Any:
        """Calls a function that is written with ops as if it were one op."""
        token = config.enter(self._inside(mode))
        try:
            args, values = self._all_converted(how, (args, tuple(kwargs.values())))
            return function(*args, **dict(zip(kwargs, values, strict=True)))
        finally:
            config.reset_mode(token)

    def _inside(self, mode: config.Mode) -> config.Mode:
        """``mode`` without autocast; making one takes 6 µs, so they are kept."""
        key = (mode.grad, mode.inference, mode.kernel, mode.trace, mode.detect_anomaly)
        inside = self._insides.get(key)
        if inside is None:
            token = config.set_mode(autocast=None)
            inside = self._insides[key] = config.get_mode()
            config.reset_mode(token)
        return inside

    def _all_converted(self, how: str, inputs: tuple) -> tuple:
        lower = self.dtypes
        if how == "promote":
            wide = any(t.array.dtype == float32 for t in _eligible(inputs, lower))
            target = float32 if wide else None
        else:
            target = float32 if how == "float32" else None
        return tuple([self._converted(value, target) for value in inputs])

    def _converted(self, value: Any, target: Any) -> Any:
        """``value`` with its Tensors in ``target``; in their device's lower precision if None."""
        if isinstance(value, Tensor):
            lower = self.dtypes.get(value.device.type)
            have = value.array.dtype
            want = lower if target is None else target
            if lower is None or have in (want, float64) or not is_floating(have):
                return value
            return self._weight(value, want) if want is lower else cast(value, want)
        if value.__class__ in (list, tuple):
            return value.__class__([self._converted(v, target) for v in value])
        return value

    def _weight(self, value: Tensor, dtype: Any) -> Tensor:
        """``value`` in ``dtype``; a leaf that requires grad is converted once in a region.

        Again if it was overwritten since, or backward released what the conversion noted; and in a
        captured graph, whose replays would not repeat a conversion that was made before.
        """
        mode = config.get_mode()
        if self.kept is None or value._edge.__class__ is not Leaf or not mode.plain:
            return cast(value, dtype)
        if not mode.grad:
            return cast(value, dtype)
        key = (id(value), dtype, current_capture())
        known = self.kept.get(key)
        version = value._cell[0]
        if known is None or known[1] != version or known[2]._edge.saved is None:
            known = self.kept[key] = (value, version, cast(value, dtype))
        return known[2]


def _eligible(inputs: Any, lower: dict[str, Any]) -> list[Tensor]:
    """The Tensors that a region converts, also in nested lists."""
    found: list[Tensor] = []
    for value in inputs:
        if isinstance(value, Tensor):
            if value.device.type in lower and is_floating(value.array.dtype):
                found.append(value)
        elif value.__class__ in (list, tuple):
            found += _eligible(value, lower)
    return found


class autocast:
    """A region, or a decorated function, in which ops run in the precision that suits them.

    Products, convolutions, attention and recurrent layers convert float32 inputs to ``dtype``;
    exponentials, softmax, norms, sums and losses convert half types to float32; dot products and
    scattered sums take the widest of their inputs. All others take what they get. Weights are
    converted once in a region and their gradients arrive in float32. Tensors on other devices,
    float64, raw arrays and what is written in place are left alone, and so is backward, whose ops
    run in the types of the forward.

    Source: P. Micikevicius et al., "Mixed precision training", ICLR 2018, arXiv:1710.03740.

    Args:
        device_type: "cuda" or "cpu", the device whose tensors are meant.
        dtype: float16 or bfloat16; by default float16 for "cuda" and bfloat16 for "cpu", or the
            one of the region around.
        enabled: False: ops inside run in the types of their inputs, also inside of a region.
        cache_enabled: keep converted weights until the outermost region ends; by default as the
            region around, or yes.

    Raises:
        ArgumentError: for another device type.
        DtypeError: for another dtype.

    >>> import pyframe
    >>> layer, x = pyframe.nn.Linear(4, 3), pyframe.ones(2, 4)
    >>> with pyframe.autocast("cpu", dtype=pyframe.bfloat16):
    ...     y = layer(x)
    ...     p = y.softmax(-1)
    >>> y.dtype, p.dtype, layer(x).dtype
    (dtype(bfloat16), dtype('float32'), dtype('float32'))
    """

    def __init__(
        self,
        device_type: str,
        dtype: Any = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        _check_device_type("autocast", device_type)
        if dtype is not None:
            dtype = as_dtype(dtype)
            if enabled and not is_half(dtype):
                what = f"cannot run ops in {dtype}"
                fail(DtypeError, "autocast", what, "Use pyframe.bfloat16 or pyframe.float16.")
        self.device_type, self.dtype = device_type, dtype
        self.enabled, self.cache_enabled = bool(enabled), cache_enabled
        self._tokens: list = []

    def __enter__(self) -> autocast:
        outer = config.get_mode().autocast
        dtypes = {} if outer is None else dict(outer.dtypes)
        current = dtypes.pop(self.device_type, _DEFAULTS[self.device_type])
        if self.enabled:
            dtypes[self.device_type] = self.dtype or current
        kept: dict | None = {} if outer is None else outer.kept
        if self.cache_enabled is not None:
            kept = (kept if kept is not None else {}) if self.cache_enabled else None
        policy = Policy(dtypes, kept) if dtypes else None
        self._tokens.append(config.set_mode(autocast=policy))
        return self

    def __exit__(self, *exc: object) -> None:
        config.reset_mode(self._tokens.pop())

    def __call__(self, function: Callable) -> Callable:
        """``function``, run inside of such a region."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with autocast(self.device_type, self.dtype, self.enabled, self.cache_enabled):
                return function(*args, **kwargs)

        return wrapped


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether an :class:`autocast` region for tensors on ``device_type`` is active.

    Raises:
        ArgumentError: unless it is "cuda" or "cpu".

    >>> import pyframe
    >>> with pyframe.autocast("cpu"):
    ...     print(pyframe.is_autocast_enabled("cpu"), pyframe.is_autocast_enabled("cuda"))
    True False
    """
    _check_device_type("is_autocast_enabled", device_type)
    policy = config.get_mode().autocast
    return policy is not None and device_type in policy.dtypes


def get_autocast_dtype(device_type: str) -> Any:
    """The dtype that a region without one of its own uses on ``device_type``.

    Raises:
        ArgumentError: unless it is "cuda" or "cpu".

    >>> import pyframe
    >>> pyframe.get_autocast_dtype("cpu")
    dtype(bfloat16)
    """
    _check_device_type("get_autocast_dtype", device_type)
    policy = config.get_mode().autocast
    found = None if policy is None else policy.dtypes.get(device_type)
    return found or _DEFAULTS[device_type]


def is_autocast_cache_enabled() -> bool:
    """Whether converted weights are kept in the current region, or would be in a new one."""
    policy = config.get_mode().autocast
    return policy is None or policy.kept is not None


def _check_device_type(op: str, device_type: Any) -> None:
    if not isinstance(device_type, str):
        what = f"device_type must be a string, not {type(device_type).__name__}"
        fail(ArgumentTypeError, op, what, 'Write "cuda" or "cpu".')
    if device_type not in _DEFAULTS:
        what = f"there is no device type {device_type!r}"
        fail(ArgumentError, op, what, 'Write "cuda" or "cpu", without a number.')


# ---- functions with a backward of their own


def custom_fwd(
    fwd: Callable | None = None, *, device_type: str, cast_inputs: Any = None
) -> Callable:
    """Decorator for the forward of an ``autograd.Function`` that is used under autocast.

    Args:
        fwd: the method ``forward(ctx, ...)``.
        device_type: "cuda" or "cpu".
        cast_inputs: ``None``: forward runs in the region's mode. A dtype: in a region, floating
            point Tensors (except float64) are converted to it, and forward runs without autocast.

    Raises:
        ArgumentError: for another device type.

    >>> import pyframe
    >>> class Double(pyframe.autograd.Function):
    ...     @staticmethod
    ...     @custom_fwd(device_type="cpu", cast_inputs=pyframe.float32)
    ...     def forward(ctx, x):
    ...         return 2 * x
    ...     @staticmethod
    ...     @custom_bwd(device_type="cpu")
    ...     def backward(ctx, g):
    ...         return 2 * g
    >>> with pyframe.autocast("cpu"):
    ...     print(Double.apply(pyframe.ones(2, dtype=pyframe.bfloat16)).dtype)
    float32
    """
    _check_device_type("custom_fwd", device_type)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    wanted = None if cast_inputs is None else as_dtype(cast_inputs)
    converted = Policy({device_type: wanted}, None)

    @functools.wraps(fwd)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        ctx._autocast = config.get_mode().autocast
        if wanted is None or not is_autocast_enabled(device_type):
            return fwd(ctx, *args, **kwargs)
        ctx._autocast = None
        function = functools.partial(fwd, ctx)
        return converted.run("lower", config.get_mode(), function, args, kwargs)

    return forward


def custom_bwd(bwd: Callable | None = None, *, device_type: str) -> Callable:
    """Decorator for the backward that belongs to :func:`custom_fwd`: it runs in forward's mode.

    Args:
        bwd: the method ``backward(ctx, ...)``.
        device_type: "cuda" or "cpu".

    Raises:
        ArgumentError: for another device type.
    """
    _check_device_type("custom_bwd", device_type)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def backward(ctx: Any, *args: Any) -> Any:
        token = config.set_mode(autocast=ctx._autocast)
        try:
            return bwd(ctx, *args)
        finally:
            config.reset_mode(token)

    return backward
