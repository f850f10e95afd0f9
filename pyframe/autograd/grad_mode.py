"""Context managers and decorators that switch recording on and off (L3)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .. import config


class _ModeSwitch:
    """Sets fields of the mode inside ``with`` or inside a decorated function. Reentrant."""

    def __init__(self, **changes: Any) -> None:
        self._changes = changes
        self._tokens: list = []

    def __enter__(self) -> None:
        self._tokens.append(config.set_mode(**self._changes))

    def __exit__(self, *exc: object) -> None:
        config.reset_mode(self._tokens.pop())

    def __call__(self, function: Callable) -> Callable:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                # The mode holds while the body runs, not while the caller does.
                iterator = function(*args, **kwargs)
                step: Callable = iterator.send
                given: tuple = (None,)
                try:
                    while True:
                        token = config.set_mode(**self._changes)
                        try:
                            value = step(*given)
                        except StopIteration as stop:
                            return stop.value
                        finally:
                            config.reset_mode(token)
                        try:
                            step, given = iterator.send, ((yield value),)
                        except GeneratorExit:
                            raise
                        except BaseException as error:
                            step, given = iterator.throw, (error,)
                finally:
                    iterator.close()

            return generator

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            token = config.set_mode(**self._changes)
            try:
                return function(*args, **kwargs)
            finally:
                config.reset_mode(token)

        return wrapped


class no_grad(_ModeSwitch):
    """Ops inside are not recorded.

    >>> import pyframe
    >>> x = pyframe.ones(2, requires_grad=True)
    >>> with pyframe.no_grad():
    ...     print((x * 2).requires_grad)
    False
    """

    def __new__(cls, function: Callable | None = None) -> Any:
        """The context, or with a function, the function inside of it."""
        made = object.__new__(cls)
        if function is None:
            return made
        made.__init__()  # type: ignore[misc]  # a subclass takes the same arguments
        return made(function)

    def __init__(self, function: Callable | None = None) -> None:
        super().__init__(grad=False)


class enable_grad(no_grad):
    """Ops inside are recorded again (in a ``no_grad`` block, not in inference mode)."""

    def __init__(self, function: Callable | None = None) -> None:
        _ModeSwitch.__init__(self, grad=True)


class inference_mode(_ModeSwitch):
    """As :class:`no_grad`; tensors made inside can never take part in a recorded graph.

    ``inference_mode(False)`` switches both back to normal.
    """

    def __init__(self, mode: bool = True) -> None:
        super().__init__(grad=not mode, inference=bool(mode))


class set_grad_enabled(_ModeSwitch):
    """Switches recording on or off: as a function at once, or for a ``with`` block."""

    def __init__(self, mode: bool) -> None:
        super().__init__(grad=bool(mode))
        self._before = config.set_mode(grad=bool(mode))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        config.reset_mode(self._before)


class detect_anomaly(_ModeSwitch):
    """A backward that produces NaN raises, naming the op."""

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(detect_anomaly=check_nan)


def is_grad_enabled() -> bool:
    """Whether ops are recorded."""
    return config.get_mode().grad


def is_inference_mode_enabled() -> bool:
    """Whether inference mode is on."""
    return config.get_mode().inference
