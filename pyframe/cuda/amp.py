"""The older names of :mod:`pyframe.amp`, for programs that say ``cuda.amp.autocast()`` (L6)."""

from __future__ import annotations

from typing import Any

from .. import amp
from ..dtypes import float16


class autocast(amp.autocast):
    """:class:`pyframe.amp.autocast` for "cuda".

    >>> import pyframe
    >>> with pyframe.cuda.amp.autocast():
    ...     print(pyframe.is_autocast_enabled("cuda"), pyframe.get_autocast_dtype("cuda"))
    True float16
    """

    def __init__(
        self, enabled: bool = True, dtype: Any = float16, cache_enabled: bool = True
    ) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(amp.GradScaler):
    """:class:`pyframe.amp.GradScaler` without its first argument.

    >>> GradScaler(1024.0).get_scale()
    1024.0
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__(
            "cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled
        )


__all__ = ["GradScaler", "autocast"]
