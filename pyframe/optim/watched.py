"""A dict that counts its changes, so that what was derived from it can be thrown away."""

from __future__ import annotations

from typing import Any


class Watched(dict):
    """A dict whose missing entries are made as empty Watched dicts, and whose writes are counted.

    Optimizer state is stored in these: optimizers keep it in flat arrays, and must notice when a
    user replaces an entry. Dicts stored in it become Watched and count with it.

    >>> state = Watched()
    >>> state["weight"]["step"] = 1
    >>> state, state.changes > 0
    ({'weight': {'step': 1}}, True)
    """

    __slots__ = ("_count",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._count = [0]
        super().__init__()
        self.update(*args, **kwargs)

    @property
    def changes(self) -> int:
        """How often it, or a dict in it, was written to."""
        return self._count[0]

    def __missing__(self, key: Any) -> Any:
        self[key] = {}
        return self[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if value.__class__ is dict:
            value = Watched(value)
        if value.__class__ is Watched:
            value._count = self._count
        self._count[0] += 1
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        self._count[0] += 1
        super().__delitem__(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As ``dict.update``."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As ``dict.setdefault``."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, *args: Any) -> Any:
        """As ``dict.pop``."""
        self._count[0] += 1
        return super().pop(*args)

    def popitem(self) -> tuple[Any, Any]:
        """As ``dict.popitem``."""
        self._count[0] += 1
        return super().popitem()

    def clear(self) -> None:
        """As ``dict.clear``."""
        self._count[0] += 1
        super().clear()

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        self.update(other)
        return self

    def __reduce__(self) -> Any:
        return Watched, (), None, None, iter(self.items())
