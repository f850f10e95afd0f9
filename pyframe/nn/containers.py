"""Modules that hold other modules or parameters: Sequential, ModuleList, ModuleDict, …"""
# ruff: noqa: D102  (forward and extra_repr are documented at Module)

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from ..errors import ArgumentError, ArgumentTypeError, RangeError, fail
from ..tensor import Tensor
from . import fusing
from .module import Module, _indented
from .parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


def _position(op: str, index: Any, length: int, end: bool = False) -> int:
    """A checked, non-negative position; ``end`` allows ``length`` itself (for insertions)."""
    number = operator.index(index)
    limit = length + 1 if end else length
    if not -length <= number < limit:
        fail(RangeError, op, f"index {number} is out of range for length {length}")
    return number + length if number < 0 else number


class Sequential(Module):
    """Calls modules one after the other.

    Args:
        *args: the modules, or one ``OrderedDict`` of named modules.

    >>> import pyframe
    >>> pyframe.nn.Sequential(pyframe.nn.Linear(2, 3), pyframe.nn.ReLU())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
    )
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for index, module in enumerate(args):
                self.add_module(str(index), module)

    def forward(self, input: Any) -> Any:
        if fusing.on_cuda(input):
            return fusing.sequence(list(self), input)
        for module in self:
            input = module(input)
        return input

    def __getitem__(self, index: Any) -> Any:
        items = list(self._modules.items())
        if isinstance(index, slice):
            return self.__class__(OrderedDict(items[index]))
        return items[_position("Sequential", index, len(items))][1]

    def __setitem__(self, index: int, module: Module) -> None:
        names = list(self._modules)
        setattr(self, names[_position("Sequential", index, len(names))], module)

    def __delitem__(self, index: Any) -> None:
        names = list(self._modules)
        if isinstance(index, slice):
            for name in names[index]:
                delattr(self, name)
        else:
            delattr(self, names[_position("Sequential", index, len(names))])
        _renumber(self)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            fail(ArgumentError, "Sequential", f"cannot add a {type(other).__name__}")
        return self.__class__(*self, *other)

    def __iadd__(self, other: Sequential) -> Any:
        return self.extend(other)

    def __mul__(self, times: int) -> Sequential:
        _check_times(times)
        return self.__class__(*(list(self) * times))

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Any:
        _check_times(times)
        return self.extend(list(self) * (times - 1))

    def append(self, module: Module) -> Any:
        """Adds a module at the end; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Adds a module before ``index``; returns the container."""
        if not isinstance(module, Module):
            fail(ArgumentTypeError, "insert", f"expected a Module, not {type(module).__name__}")
        modules = list(self)
        modules.insert(_position("insert", index, len(self), end=True), module)
        self._modules.clear()
        return self.extend(modules)

    def extend(self, sequential: Iterable[Module]) -> Any:
        """Adds modules at the end; returns the container."""
        for module in list(sequential):
            self.append(module)
        return self

    def pop(self, key: Any) -> Module:
        """Removes and returns a module."""
        module = self[key]
        del self[key]
        return module


def _check_times(times: Any) -> None:
    if not isinstance(times, int):
        fail(ArgumentTypeError, "Sequential", f"cannot multiply by {type(times).__name__}")
    if times <= 0:
        fail(ArgumentError, "Sequential", f"cannot multiply by {times}", "Use a positive number.")


def _renumber(module: Module) -> None:
    """Names the children 0, 1, … again after one was removed (if they are numbered)."""
    names = list(module._modules)
    if all(n.isdigit() for n in names):
        children = list(module._modules.values())
        module._modules.clear()
        for i, child in enumerate(children):
            module._modules[str(i)] = child


class ModuleList(Module):
    """A list of modules.

    Args:
        modules: iterable of modules.
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.__class__(list(self)[index])
        return self._modules[str(_position("ModuleList", index, len(self)))]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, str(_position("ModuleList", index, len(self))), module)

    def __delitem__(self, index: Any) -> None:
        if isinstance(index, slice):
            for i in range(len(self))[index]:
                delattr(self, str(i))
        else:
            delattr(self, str(_position("ModuleList", index, len(self))))
        _renumber(self)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return self.__class__(chain(self, other))

    def __iadd__(self, modules: Iterable[Module]) -> Any:
        return self.extend(modules)

    def append(self, module: Module) -> Any:
        """Adds a module at the end; returns the list."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Adds modules at the end; returns the list.

        Raises:
            TypeError: if ``modules`` is not iterable.
        """
        if not isinstance(modules, Iterable):
            fail(
                ArgumentTypeError,
                "ModuleList.extend",
                f"expected an iterable of modules, not {type(modules).__name__}",
            )
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Adds a module before ``index``."""
        children = list(self)
        children.insert(index, module)
        self._modules.clear()
        self.extend(children)

    def pop(self, key: int = -1) -> Module:
        """Removes and returns a module."""
        module = self[key]
        del self[key]
        return module

    def __repr__(self) -> str:
        """As PyTorch prints it: equal neighbours as ``(0-3): 4 x Linear(...)``."""
        texts = [repr(m) for m in self]
        if not texts:
            return f"{self._get_name()}()"
        runs: list[list] = []  # [first, last, text]
        for i, text in enumerate(texts):
            if runs and runs[-1][2] == text:
                runs[-1][1] = i
            else:
                runs.append([i, i, text])
        lines = []
        for first, last, text in runs:
            head = f"({first})" if first == last else f"({first}-{last})"
            count = "" if first == last else f"{last - first + 1} x "
            lines.append(f"{head}: {_indented(f'{count}{text}')}")
        body = "\n  ".join(lines)
        return f"{self._get_name()}(\n  {body}\n)"


class ModuleDict(Module):
    """Modules by name, in the order of insertion.

    Args:
        modules: mapping, or iterable of ``(name, module)``.
    """

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Removes all modules."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Removes and returns a module."""
        return self._modules.pop(key)  # type: ignore[return-value]

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """``(name, module)`` pairs."""
        return self._modules.items()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Any) -> None:
        """Adds or replaces modules.

        Raises:
            TypeError: if it is neither a mapping nor an iterable of pairs.
        """
        for key, module in _pairs("ModuleDict.update", modules):
            self[key] = module


def _pairs(op: str, values: Any) -> list[tuple[str, Any]]:
    if isinstance(values, (Mapping, ModuleDict, ParameterDict)):
        return list(values.items())
    if not isinstance(values, Iterable):
        fail(
            ArgumentTypeError,
            op,
            f"expected a mapping or an iterable of pairs, not {type(values).__name__}",
        )
    pairs = []
    for i, pair in enumerate(values):
        if not isinstance(pair, (tuple, list)):
            fail(ArgumentTypeError, op, f"element {i} is a {type(pair).__name__}, not a pair")
        if len(pair) != 2:
            fail(ArgumentError, op, f"element {i} has length {len(pair)}, not 2")
        pairs.append((pair[0], pair[1]))
    return pairs


def _as_parameter(value: Any) -> Any:
    """Tensors in a ParameterList or ParameterDict become Parameters; other values stay."""
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        return Parameter(value)
    return value


def _line(key: Any, value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"  ({key}): Object of type: {type(value).__name__}"
    size = "x".join(map(str, value.shape))
    role = "Parameter" if isinstance(value, Parameter) else "Tensor"
    where = "" if value.device.type == "cpu" else f" ({value.device})"
    return f"  ({key}): {role} containing: [{value.dtype} of size {size}{where}]"


class ParameterList(Module):
    """A list of parameters (other values may be mixed in).

    Args:
        values: iterable; Tensors become Parameters.
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.__class__([self[i] for i in range(len(self))[index]])
        return getattr(self, str(_position("ParameterList", index, len(self))))

    def __setitem__(self, index: int, value: Any) -> None:
        name = str(_position("ParameterList", index, len(self)))
        setattr(self, name, _as_parameter(value))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter(self[i] for i in range(len(self)))

    def __iadd__(self, values: Iterable[Any]) -> Any:
        return self.extend(values)

    def append(self, value: Any) -> Any:
        """Adds a value at the end; returns the list."""
        name = str(self._size)
        self._size += 1
        setattr(self, name, _as_parameter(value))
        return self

    def extend(self, values: Iterable[Any]) -> Any:
        """Adds values at the end; returns the list.

        Raises:
            TypeError: if ``values`` is a Tensor or not iterable.
        """
        if not isinstance(values, Iterable) or isinstance(values, Tensor):
            fail(
                ArgumentTypeError,
                "ParameterList.extend",
                f"expected an iterable, not {type(values).__name__}",
            )
        for value in list(values):
            self.append(value)
        return self

    def extra_repr(self) -> str:
        return "\n".join(_line(i, v) for i, v in enumerate(self))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("ParameterList should not be called.")


class ParameterDict(Module):
    """Parameters by name (other values may be mixed in).

    Args:
        parameters: mapping, or iterable of ``(name, value)``; Tensors become Parameters.
    """

    def __init__(self, parameters: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def _name(self, key: Any) -> str:
        if not isinstance(key, str):
            fail(ArgumentTypeError, "ParameterDict", f"keys must be strings, not {key!r}")
        return key

    def __getitem__(self, key: str) -> Any:
        return getattr(self, self._name(key))

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, self._name(key), _as_parameter(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, self._name(key))

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._keys))

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def copy(self) -> ParameterDict:
        """A new ParameterDict with the same values."""
        return ParameterDict(OrderedDict(self.items()))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, which is set to ``default`` first if it is not there."""
        if key not in self._keys:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        """Removes everything."""
        for key in list(self._keys):
            del self[key]

    def pop(self, key: str) -> Any:
        """Removes and returns a value."""
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Removes and returns the last pair."""
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of ``key``, or ``default``."""
        return self[key] if key in self._keys else default

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._keys.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """``(name, value)`` pairs."""
        return ((k, self[k]) for k in self._keys)

    def values(self) -> Iterable[Any]:
        """The values."""
        return (self[k] for k in self._keys)

    def update(self, parameters: Any) -> None:
        """Adds or replaces values."""
        for key, value in _pairs("ParameterDict.update", parameters):
            self[key] = value

    def extra_repr(self) -> str:
        return "\n".join(_line(k, v) for k, v in self.items())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("ParameterDict should not be called.")
