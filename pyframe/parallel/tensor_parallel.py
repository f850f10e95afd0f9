"""Linear layers cut over the ranks, and the "one weird trick" for convolutional networks (L6).

With y = x Wᵀ + b, a column-parallel layer gives each rank some of the outputs (rows of W, columns
of Wᵀ), a row-parallel layer some of the inputs. One after the other, with elementwise functions
between, they need a single all-reduce forward and one backward (M. Shoeybi et al., "Megatron-LM",
arXiv:1909.08053).

All start from the weights of one process: every rank draws the whole weight from the same random
numbers and keeps its part. So all ranks have to be seeded alike.
"""
# ruff: noqa: D102  (forward and extra_repr are documented at Module)

from __future__ import annotations

from typing import Any, ClassVar

from .. import nn
from ..autograd import no_grad
from ..errors import ArgumentTypeError, ShapeError, fail
from ..nn import functional as F
from ..tensor import Tensor
from .coalesced import broadcast_tensors
from .group import ProcessGroup, resolve
from .mpi import bounds
from .recorded import (
    copy_to_group,
    gather_batch,
    gather_from_group,
    reduce_from_group,
    scatter_to_group,
)

__all__ = ["ColumnParallelLinear", "OneWeirdTrick", "RowParallelLinear"]


class _ParallelLinear(nn.Module):
    """What both have: the group and a part of a Linear's parameters."""

    axis: int  # of the weight, which is cut
    options: ClassVar[dict[str, bool]]  # what only one of the two classes has, with defaults

    def __init__(self, linear: nn.Linear, group: Any) -> None:
        super().__init__()
        self.group: ProcessGroup = resolve(group, type(self).__name__)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        cuts = bounds(linear.weight.shape[self.axis], self.group.size)
        self.part = slice(cuts[self.group.rank], cuts[self.group.rank + 1])
        if cuts[-1] < self.group.size:
            fail(
                ShapeError,
                type(self).__name__,
                f"there are more ranks ({self.group.size}) than features to share out",
                weight=linear.weight,
            )
        weight = linear.weight[self.part] if self.axis == 0 else linear.weight[:, self.part]
        self.weight = nn.Parameter(weight.detach().clone())
        if linear.bias is None:
            self.register_parameter("bias", None)
        else:
            bias = linear.bias[self.part] if self.axis == 0 else linear.bias
            self.bias = nn.Parameter(bias.detach().clone())

    @classmethod
    def from_linear(cls, linear: nn.Linear, group: Any = None, **options: Any) -> Any:
        """The part of this rank of a Linear that is the same on all ranks."""
        layer = cls.__new__(cls)
        _ParallelLinear.__init__(layer, linear, group)
        layer._set_options(**options)
        return layer

    def _set_options(self, **named: bool) -> None:
        for name in named.keys() - self.options.keys():
            fail(ArgumentTypeError, type(self).__name__, f"there is no option {name!r}")
        for name, default in self.options.items():
            setattr(self, name, named.get(name, default))

    def whole(self) -> nn.Linear:
        """The Linear of which every rank has a part, on all ranks, for saving; not recorded."""
        linear = nn.Linear(
            self.in_features,
            self.out_features,
            self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        with no_grad():
            linear.weight.copy_(gather_from_group(self.weight, self.axis, self.group))
            if self.bias is not None:
                cut = self.axis == 0
                bias = gather_from_group(self.bias, 0, self.group) if cut else self.bias
                linear.bias.copy_(bias)
        return linear

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, part={self.part.start}:{self.part.stop}"
        )


class ColumnParallelLinear(_ParallelLinear):
    """y = x Wᵀ + b, of which each rank computes some of the outputs.

    Args:
        in_features, out_features: of the whole layer; the parts may differ by one.
        bias: whether there is a b, which is cut as the outputs are.
        gather_output: join the outputs, so that every rank has all of them.
        group: the ranks that share the layer.
        device, dtype: of the parameters.

    Input: the same on all ranks. Output: ``(…, out_features)``, or this rank's part of it.

    Raises:
        ShapeError: if there are more ranks than outputs.

    >>> layer = ColumnParallelLinear(512, 2048, gather_output=False)   # doctest: +SKIP
    """

    axis = 0
    # copy_input: False where what is in front sums up the gradients.
    options: ClassVar = {"gather_output": True, "copy_input": True}
    gather_output: bool
    copy_input: bool

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        gather_output: bool = True,
        group: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        linear = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        super().__init__(linear, group)
        self._set_options(gather_output=gather_output)

    def forward(self, input: Tensor) -> Tensor:
        x = copy_to_group(input, self.group) if self.copy_input else input
        y = F.linear(x, self.weight, self.bias)
        return gather_from_group(y, -1, self.group) if self.gather_output else y


class RowParallelLinear(_ParallelLinear):
    """y = x Wᵀ + b, to which each rank contributes what comes from some of the inputs.

    Args:
        in_features, out_features: of the whole layer; the parts may differ by one.
        bias: whether there is a b; all ranks have it, and it is added once.
        input_is_parallel: the input is this rank's part already, as of a ``ColumnParallelLinear``
            that does not gather its output.
        group: the ranks that share the layer.
        device, dtype: of the parameters.

    Output: ``(…, out_features)``, the same on all ranks.

    Raises:
        ShapeError: if there are more ranks than inputs.

    >>> layer = RowParallelLinear(2048, 512, input_is_parallel=True)   # doctest: +SKIP
    """

    axis = 1
    options: ClassVar = {"input_is_parallel": False}
    input_is_parallel: bool

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        input_is_parallel: bool = False,
        group: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        linear = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        super().__init__(linear, group)
        self._set_options(input_is_parallel=input_is_parallel)

    def forward(self, input: Tensor) -> Tensor:
        x = input if self.input_is_parallel else scatter_to_group(input, -1, self.group)
        y = reduce_from_group(F.linear(x, self.weight), self.group)
        return y if self.bias is None else y + self.bias


class OneWeirdTrick(nn.Module):
    """A data-parallel trunk with a model-parallel head (A. Krizhevsky, arXiv:1404.5997).

    Convolutions have most of the work and few parameters, fully connected layers the other way
    round. So each rank runs ``features`` on samples of its own; then all ranks' results are joined,
    and every rank computes a part of each Linear of ``classifier`` for the whole batch. What
    crosses the links is the features' gradients and the activations in front of the Linears, not
    the Linears' gradients.

    Args:
        features: the trunk, the same on all ranks.
        classifier: the head; its Linears are replaced by ``ColumnParallelLinear``s that gather
            their outputs, so that anything may stand between them. Dropout there draws the same
            mask on all ranks if they are seeded alike.
        group: the ranks.

    It is called with this rank's samples, and its output has the rows of all ranks, in their order,
    on every rank; :meth:`gather` joins the labels in the same way. So a mean over the output is the
    mean over the global batch, also where ranks have unequal numbers of samples. The gradients of
    ``features`` are summed over the ranks during ``backward()``.

    Raises:
        ArgumentTypeError: if the classifier has no Linear.

    >>> net = OneWeirdTrick(convolutions, fully_connected)             # doctest: +SKIP
    >>> loss = F.cross_entropy(net(images), net.gather(labels))        # doctest: +SKIP
    """

    def __init__(self, features: nn.Module, classifier: nn.Module, group: Any = None) -> None:
        super().__init__()
        self.group: ProcessGroup = resolve(group, "OneWeirdTrick")
        _take_from_first(features, self.group)
        self.features = features
        # A Linear in front, behind nothing that learns, leaves the sum of its ranks' gradients to
        # the reduce-scatter that is the backward pass of gather_batch.
        self._scattered = _begins_with_linear(classifier)
        self.classifier = _shared(classifier, self.group, not self._scattered)
        for parameter in features.parameters():
            if parameter.requires_grad:
                parameter.register_hook(self._summed)

    def forward(self, *inputs: Any) -> Tensor:
        x = self.features(*inputs)
        if self._scattered:
            return self.classifier(gather_batch(x, self.group))
        return self.classifier(gather_from_group(x, 0, self.group))

    def gather(self, labels: Tensor) -> Tensor:
        """The ranks' labels in the order of the outputs."""
        with no_grad():
            return gather_from_group(labels, 0, self.group)

    def _summed(self, gradient: Tensor) -> Tensor:
        return reduce_from_group(gradient.detach(), self.group)


def _take_from_first(module: nn.Module, group: ProcessGroup) -> None:
    """Parameters and buffers become those of the group's first rank."""
    broadcast_tensors([*module.parameters(), *module.buffers()], 0, group)


def _begins_with_linear(module: nn.Module) -> bool:
    """Whether the first layer that learns is surely a Linear, through which everything goes."""
    if not isinstance(module, nn.Sequential):
        return type(module) is nn.Linear
    for layer in module:
        if isinstance(layer, (nn.Linear, nn.Sequential)):
            return _begins_with_linear(layer)
        if next(layer.parameters(), None) is not None:
            return False
    return False


def _shared(module: nn.Module, group: ProcessGroup, copy_first: bool) -> nn.Module:
    """``module`` with its Linears cut over the ranks, from the weights of the first rank."""
    if isinstance(module, nn.Linear):
        module = nn.Sequential(module)
    _take_from_first(module, group)
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                copy_input = copy_first or count > 0
                part = ColumnParallelLinear.from_linear(child, group, copy_input=copy_input)
                setattr(parent, name, part)
                count += 1
    if not count:
        fail(ArgumentTypeError, "OneWeirdTrick", "the classifier has no Linear")
    return module
