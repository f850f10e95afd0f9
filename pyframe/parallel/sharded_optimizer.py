"""An optimizer whose state is divided among the ranks (ZeRO stage 1) (L6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ArgumentTypeError, StateError, fail
from ..optim import Optimizer
from ..tensor import Tensor
from .coalesced import broadcast_tensors
from .group import ProcessGroup, resolve
from .objects import gather_object


class ZeroRedundancyOptimizer(Optimizer):
    """Updates each parameter on one rank, which alone keeps its state, and sends it to the others.

    All ranks need the same gradients, as after a backward pass through
    ``DistributedDataParallel``. An update of a parameter is the same computation as without ranks,
    so the weights have the same bits. With N ranks, a rank keeps about 1/N of the state.

    Args:
        params: parameters, ``(name, parameter)`` pairs or groups, as of any optimizer.
        optimizer_class: an optimizer of ``pyframe.optim``.
        process_group: the ranks; the default group by default.
        parameters_as_bucket_view, overlap_with_ddp: accepted for compatibility.
        **defaults: settings of ``optimizer_class``.

    Attributes:
        owners: the rank (in the group) of each parameter, in the groups' order. Large parameters
            are given out first, each to the rank that has least.

    Raises:
        TypeError: if ``optimizer_class`` is no optimizer.
        CollectiveError: without a process group.

    Settings are changed in ``param_groups``, also by schedulers. :meth:`state_dict` is the complete
    one, in the form of the plain optimizer, so files are exchangeable: it can be loaded by any
    number of ranks. It needs :meth:`consolidate_state_dict` first.

    Source: S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
    Models", arXiv:1910.02054, section 5.1.

    >>> from pyframe import optim, parallel
    >>> optimizer = parallel.ZeroRedundancyOptimizer(             # doctest: +SKIP
    ...     net.parameters(), optim.AdamW, lr=1e-3)
    """

    def __init__(
        self,
        params: Any,
        optimizer_class: type[Optimizer],
        process_group: Any = None,
        parameters_as_bucket_view: bool = False,
        overlap_with_ddp: bool = False,
        **defaults: Any,
    ) -> None:
        name = "ZeroRedundancyOptimizer"
        if not (isinstance(optimizer_class, type) and issubclass(optimizer_class, Optimizer)):
            what = f"optimizer_class must be an Optimizer class, not {optimizer_class!r}"
            fail(ArgumentTypeError, name, what, "Pass optim.AdamW or another one.")
        self.process_group: ProcessGroup = resolve(process_group, name)
        self._class, self._settings = optimizer_class, defaults
        self._whole: dict[int, Any] | None = None
        self._inner: Optimizer | None = None
        self._built = False
        self._begun = False  # whether there is state: the same on all ranks, also without a share
        # The class itself knows its defaults and checks settings and parameters.
        template = optimizer_class(params, **defaults)
        super().__init__(template.param_groups, template.defaults)
        self._divide()
        self._built = True

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; parameters are dealt out anew, so this has to come before the first step.

        Raises:
            StateError: if the optimizer has state already, on this rank or another.
        """
        if self._begun:
            what = "a group cannot be added after the first step"
            fail(StateError, "ZeroRedundancyOptimizer", what, "Add it before.")
        super().add_param_group(param_group)
        if self._built:  # also where this rank owned nothing yet
            self._divide()

    def _divide(self) -> None:
        params = _params(self)
        size, me = self.process_group.size, self.process_group.rank
        held = [0] * size
        self.owners = [0] * len(params)
        for i in sorted(range(len(params)), key=lambda i: -params[i].array.size):
            owner = held.index(min(held))
            self.owners[i] = owner
            held[owner] += params[i].array.nbytes
        self._owned: list[list[Tensor]] = [[] for _ in range(size)]
        for p, owner in zip(params, self.owners, strict=True):
            self._owned[owner].append(p)
        mine = {id(p) for p in self._owned[me]}
        groups, self._outer = [], []
        for group in self.param_groups:
            own = [p for p in group["params"] if id(p) in mine]
            if own:
                groups.append({**_settings(group), "params": own})
                self._outer.append(group)
        self._inner = self._class(groups, **self._settings) if groups else None

    def step(self, closure: Callable | None = None) -> Any:
        """Updates this rank's parameters and exchanges all; every rank has to call it."""
        loss = self._evaluate(closure)
        self._whole = None
        self._begun = True
        if self._inner is not None:
            for group, outer in zip(self._inner.param_groups, self._outer, strict=True):
                group.update(_settings(outer))
            self._inner.step()
        self._exchange()
        return loss

    def _exchange(self) -> None:
        """All parameters become those of their owner."""
        for owner, params in enumerate(self._owned):
            broadcast_tensors(params, owner, self.process_group)

    # ---- saving

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Collects the state of all ranks on rank ``to``; every rank has to call it."""
        group = self.process_group
        own: dict[int, dict[str, Any]] = {}
        if self._inner is not None:
            numbers = {id(p): i for i, p in enumerate(_params(self))}
            own = {numbers[id(p)]: dict(values) for p, values in self._inner.state.items()}
        here = group.ranks[group.rank] == to
        parts: list[Any] | None = [None] * group.size if here else None
        gather_object(own, parts, dst=to, group=group)
        if parts is not None:
            merged: dict[int, Any] = {}
            for part in parts:
                merged.update(part)
            self._whole = {i: merged[i] for i in sorted(merged)}

    def state_dict(self) -> dict[str, Any]:
        """The complete state, as the plain optimizer would have it.

        Raises:
            StateError: unless :meth:`consolidate_state_dict` collected it here since the last step.
        """
        if self._whole is None:
            fail(
                StateError,
                "ZeroRedundancyOptimizer.state_dict",
                "this rank has only a part of the state",
                "Call consolidate_state_dict(to=rank) on all ranks first.",
            )
        return {**super().state_dict(), "state": dict(self._whole)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes this rank's part of a complete state; every rank needs the complete one.

        Raises:
            StateError, ValueError, TypeError: as ``Optimizer.load_state_dict`` does.
        """
        super().load_state_dict(state_dict)  # checks it, and sets the groups
        state, self.state = self.state, type(self.state)()
        self._begun = bool(state)
        self._divide()
        self._whole = None
        if self._inner is not None:
            numbered = enumerate(_params(self._inner))
            inner = self._inner.state_dict()
            inner["state"] = {i: dict(state[p]) for i, p in numbered if p in state}
            self._inner.load_state_dict(inner)


def _params(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in group.items() if k not in ("params", "param_names")}
