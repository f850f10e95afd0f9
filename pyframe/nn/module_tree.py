"""What a module finds inside itself: modules, parameters and buffers, by path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import PyframeError, message
from ..tensor import Tensor
from .parameter import Parameter


class ModuleAttributeError(PyframeError, AttributeError):
    """A module used before ``Module.__init__`` ran, or an attribute that is not there."""


class ModuleTree:
    """The part of Module that walks over what it holds."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Any]

    def modules(self) -> Iterator[Any]:
        """All modules inside, itself first; each once."""
        for _, module in self.named_modules():
            yield module

    def named_modules(
        self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """As :meth:`modules`, with their paths."""
        if memo is None:
            memo = set()
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, path, remove_duplicate)

    def children(self) -> Iterator[Any]:
        """The modules directly inside."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """As :meth:`children`, with their names."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def _named_members(
        self, get: Callable, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        for path, module in modules:
            for name, value in get(module):
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters inside, each once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """As :meth:`parameters`, with their paths."""
        return self._named_members(
            lambda module: module._parameters.items(), prefix, recurse, remove_duplicate
        )

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers inside, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """As :meth:`buffers`, with their paths."""
        return self._named_members(
            lambda module: module._buffers.items(), prefix, recurse, remove_duplicate
        )

    def get_submodule(self, target: str) -> Any:
        """The module at the path ``target`` (``""``: itself).

        Raises:
            AttributeError: if there is none.
        """
        module: Any = self
        for name in target.split(".") if target else []:
            found = getattr(module, name, None)
            if not isinstance(found, ModuleTree):
                have = ", ".join(module._modules) or "no children"
                raise ModuleAttributeError(
                    message(
                        "get_submodule",
                        f"{type(module).__name__} has no module {name!r} (in {target!r})",
                        f"It has {have}.",
                    )
                )
            module = found
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at the path ``target``; AttributeError if there is none."""
        return self._member("get_parameter", target, "_parameters")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at the path ``target``; AttributeError if there is none."""
        return self._member("get_buffer", target, "_buffers")

    def _member(self, op: str, target: str, kind: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        found = getattr(module, kind).get(name)
        if found is None:
            raise ModuleAttributeError(
                message(op, f"{type(module).__name__} has no {kind[1:-1]} {name!r}")
            )
        return found
