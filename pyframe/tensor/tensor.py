"""Tensor: a raw array, its device and its place on the tape (L3).

Most methods are put here by the op records at registration; this file has what is not an op.
"""

from __future__ import annotations

import copy
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .. import config, dtypes, memory_formats
from ..device import Device, as_device, cpu
from ..errors import (
    ArgumentTypeError,
    AutogradError,
    DeviceError,
    DtypeError,
    ShapeError,
    fail,
)
from ..tape.node import Handle, Keep, Leaf, Node
from .size import Size

if TYPE_CHECKING:  # what op records add to Tensor, for tools that only read sources
    from .methods import Methods
else:
    Methods = object

_new = object.__new__
# Stands in ``_view`` for a view made without grad: writing through it cannot be recorded.
NO_GRAD_VIEW = (None, None, (), 0)
# The same of a Tensor that is on the tape: no write through it in grad mode can be right.
LOST_VIEW = (None, None, (), -1)
# Classes whose instances ops treat as Tensors; subclasses add themselves.
tensor_types: set[Any] = set()  # not set[type]: mypy would narrow to object


class Tensor(Methods):
    """An n-dimensional array that can take part in automatic differentiation.

    Args:
        *data: nothing, sizes (``Tensor(2, 3)``: uninitialised), or a nested sequence or array,
            converted to the default dtype. Use :func:`pyframe.tensor` to keep the data's dtype.

    Attributes:
        array: the raw NumPy or CuPy array.
        device: where it lives.
        grad: the accumulated gradient of a leaf, or ``None``.

    >>> import pyframe
    >>> x = pyframe.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """

    __slots__ = ("__dict__", "__weakref__", "_cell", "_edge", "_grad", "_view", "array", "device")
    __array_priority__ = 1000  # NumPy arrays on the left leave the operator to us

    array: Any
    device: Device
    _grad: Tensor | None  # what grad shows
    _edge: Node | None  # the node that made it; a Leaf if it is a leaf that requires grad
    _cell: list  # [version, rewrites of the storage that moved edges], shared by all views
    _view: tuple | None  # (base, op, parameters, rewrites seen), for views that are on the tape

    def __new__(cls, *data: Any, device: Any = None) -> Tensor:
        """A new Tensor; see the class."""
        if len(data) == 1 and not isinstance(data[0], int):
            value = data[0]
            if isinstance(value, Tensor):
                value = value.array
            device = as_device(device)
            array = device.backend.asarray(value, dtypes.get_default_dtype())
            if array is value:
                array = array.view()
            return make(array, device, cls)
        device = as_device(device)
        return make(device.backend.empty(data or (0,), dtypes.get_default_dtype()), device, cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        tensor_types.add(cls)

    # ---- what it is

    @property
    def shape(self) -> Size:
        """Lengths of the dimensions."""
        return Size(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.array.ndim

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.array.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.array.nbytes

    @property
    def is_cuda(self) -> bool:
        """Whether it is on a GPU."""
        return self.device.type == "cuda"

    def dim(self) -> int:
        """Number of dimensions."""
        return self.array.ndim

    ndimension = dim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or its length along ``dim``."""
        if dim is None:
            return Size(self.array.shape)
        return self.array.shape[dim]

    def numel(self) -> int:
        """Number of elements."""
        return self.array.size

    nelement = numel

    def element_size(self) -> int:
        """Bytes per element."""
        return self.array.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements."""
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        return strides if dim is None else strides[dim]

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether elements are without gaps in C order, or in that of ``memory_format``."""
        if memory_format is None:
            return self.array.flags.c_contiguous
        if memory_format.dims is not None and len(memory_format.dims) != self.array.ndim:
            return False
        order = memory_formats.order_of("is_contiguous", memory_format, self.array)
        return memory_formats.laid_out(self.array, order)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating point dtype."""
        return dtypes.is_floating(self.array.dtype)

    def get_device(self) -> int:
        """The device's number; -1 for the CPU."""
        return -1 if self.device.type == "cpu" else int(self.device.index or 0)

    def data_ptr(self) -> int:
        """Address of the first element."""
        if self.device.type == "cpu":
            return self.array.__array_interface__["data"][0]
        return self.array.data.ptr

    def __len__(self) -> int:
        if not self.array.ndim:
            fail(ArgumentTypeError, "len", "a 0-d tensor has no length")
        return self.array.shape[0]

    def __iter__(self) -> Any:
        if not self.array.ndim:
            fail(ArgumentTypeError, "iter", "cannot iterate over a 0-d tensor", "Use item().")
        return iter([self[i] for i in range(self.array.shape[0])])

    # ---- values on the host

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The values as a NumPy array that shares memory.

        Raises:
            AutogradError: if it requires grad (call ``detach()`` first) and not ``force``.
            DeviceError: if it is on a GPU and not ``force``.
        """
        if not force:
            if self.requires_grad:
                fail(
                    AutogradError,
                    "numpy",
                    "the tensor requires grad, and NumPy would lose the gradient",
                    "Use tensor.detach().numpy().",
                )
            if self.device.type != "cpu":
                fail(DeviceError, "numpy", f"the tensor is on {self.device}", "Use .cpu() first.")
        return self.device.backend.to_numpy(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        from .exchange import to_array

        return to_array(self, dtype, copy)

    def __array_function__(self, func: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        from .exchange import numpy_function

        return numpy_function(func, args, kwargs)

    def item(self) -> bool | int | float:
        """The only element as a Python number.

        Raises:
            ShapeError: if there is not exactly one element.
        """
        if self.array.size != 1:
            what = "the tensor does not have exactly one element"
            fail(ShapeError, "item", what, "Index it, or use tolist().", tensor=self)
        value = self.device.backend.to_numpy(self.array).item()
        return value if isinstance(value, (bool, int)) else float(value)

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        array = self.device.backend.to_numpy(self.array)
        if dtypes.is_half(array.dtype):
            array = array.astype(np.float32)
        return array.tolist()

    def __bool__(self) -> bool:
        if self.array.size != 1:
            fail(
                ShapeError,
                "bool",
                f"the truth value of a tensor with {self.array.size or 'no'} elements is ambiguous",
                "Use any() or all().",
                tensor=self,
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.array.size != 1 or self.array.dtype.kind not in "iub":
            fail(ArgumentTypeError, "index", "only one integer can be an index", tensor=self)
        return int(self.item())

    def __format__(self, spec: str) -> str:
        if self.array.ndim or self.__class__ is not Tensor:
            return object.__format__(self, spec)
        return format(self.item(), spec)

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        from .printing import tensor_repr

        return tensor_repr(self)

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    # ---- exchange with other libraries

    @property
    def __cuda_array_interface__(self) -> dict:
        if self.device.type != "cuda":
            raise AttributeError("__cuda_array_interface__: the tensor is not on a CUDA device")
        return self.array.__cuda_array_interface__

    def __dlpack__(self, **kwargs: Any) -> Any:
        from .exchange import dlpack

        return dlpack(self, **kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    # ---- the tape

    def _set_grad(self, value: Tensor | None) -> None:
        if value is not None and (
            value.__class__ not in tensor_types
            or value.array.shape != self.array.shape
            or value.array.dtype != self.array.dtype
            or value.device is not self.device
            or value is self
        ):
            _refuse_grad(self, value)
        self._grad = value

    if TYPE_CHECKING:
        grad: Tensor | None
    else:  # a getter written in C: it is read as often as an attribute
        grad = property(attrgetter("_grad"), _set_grad, doc="The accumulated gradient, or None.")

    @property
    def requires_grad(self) -> bool:
        """Whether ops on it are recorded."""
        return self.grad_fn_or_leaf is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def grad_fn_or_leaf(self) -> Node | None:
        """Its node on the tape: the op that made it, or a :class:`Leaf`."""
        return current_edge(self) if self._cell[1] > 0 else self._edge

    @property
    def grad_fn(self) -> Node | None:
        """The node of the op that made it; ``None`` for a leaf."""
        edge = self.grad_fn_or_leaf
        return None if edge.__class__ is Leaf else edge

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user, not by a recorded op."""
        return self.grad_fn is None

    def is_inference(self) -> bool:
        """Whether it was made in inference mode."""
        return self._cell is config.INFERENCE_CELL

    @property
    def _version(self) -> int:
        return self._cell[0]

    @property
    def output_nr(self) -> int:
        """Which of its op's outputs it is."""
        return getattr(self._edge, "index", 0)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Makes a leaf require grad (or not) and returns it.

        Raises:
            AutogradError: for a dtype without gradients, or a non-leaf that should stop requiring.
        """
        if requires_grad:
            if self.requires_grad:
                return self
            if not dtypes.is_floating(self.array.dtype):
                fail(
                    AutogradError,
                    "requires_grad_",
                    f"only floating point tensors can require gradients, not {self.array.dtype}",
                )
            if self.is_inference():
                fail(AutogradError, "requires_grad_", "this is an inference tensor", "clone() it.")
            self._edge = Leaf(self)
        elif self.grad_fn is not None:
            fail(
                AutogradError,
                "requires_grad_",
                "only a leaf's requires_grad can be changed",
                "Use detach() for a tensor that does not require grad.",
            )
        else:
            self._edge = None
        return self

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Accumulates d(self)/d(leaf) into every leaf's ``grad``; see ``autograd.backward``."""
        from ..autograd.api import backward

        backward(self, gradient, retain_graph, create_graph, inputs=inputs)

    def detach(self) -> Tensor:
        """A Tensor that shares memory and version, and is not on the tape."""
        out = make(self.array, self.device)
        out._cell = self._cell
        return out

    def detach_(self) -> Tensor:
        """Takes it off the tape."""
        if self._view is not None:
            fail(AutogradError, "detach_", "a view cannot be detached in place", "Use detach().")
        self._edge = None
        return self

    @property
    def data(self) -> Tensor:
        """As :meth:`detach`, but the tape does not notice writes through it (PyTorch's alias)."""
        return make(self.array, self.device)

    @data.setter
    def data(self, value: Tensor) -> None:
        self.array, self.device = value.array, value.device

    def register_hook(self, hook: Any) -> Handle:
        """Calls ``hook(gradient)`` when the gradient is known; a returned Tensor replaces it."""
        edge = self.grad_fn_or_leaf
        if edge is None:
            fail(AutogradError, "register_hook", "the tensor does not require grad")
        device = self.device

        def here(gradient: Tensor) -> Any:
            # The backward pass runs on raw arrays and knows only the device that it began on.
            return hook(gradient if gradient.device is device else make(gradient.array, device))

        return Handle.into(edge, here)

    def register_post_accumulate_grad_hook(self, hook: Any) -> Handle:
        """Calls ``hook(tensor)`` after a leaf's ``grad`` was accumulated.

        In ``backward()`` that is as soon as the gradient is complete, not at the end of the pass.
        """
        edge = self.grad_fn_or_leaf
        if edge.__class__ is not Leaf:
            fail(
                AutogradError,
                "register_post_accumulate_grad_hook",
                "the tensor is not a leaf that requires grad",
            )
        if edge.post_hooks is None:
            edge.post_hooks = []
        edge.post_hooks.append(hook)
        Leaf.hooked = True
        return Handle(edge.post_hooks, hook)

    def retain_grad(self) -> None:
        """Keeps ``grad`` of a non-leaf after backward (the gradient as hooks leave it).

        Raises:
            AutogradError: if it does not require grad.
        """
        edge = self.grad_fn_or_leaf
        if edge is None:
            fail(AutogradError, "retain_grad", "the tensor does not require grad")
        if edge.__class__ is not Leaf and Keep.of(edge, self) is None:
            Handle.into(edge, Keep(self))

    @property
    def retains_grad(self) -> bool:
        """Whether :meth:`retain_grad` was called on this non-leaf."""
        return Keep.of(self.grad_fn, self) is not None

    # ---- copying, moving

    def _like(self, array: Any) -> Tensor:
        return make(array, self.device)

    def __deepcopy__(self, memo: dict) -> Tensor:
        if not self.is_leaf:
            fail(AutogradError, "deepcopy", "only leaves can be copied", "detach() it first.")
        out = make(self.array.copy(), self.device, self.__class__)
        memo[id(self)] = out
        if self.requires_grad:
            out._edge = Leaf(out)
        if self.grad is not None:
            out._grad = self.grad.__deepcopy__(memo)
        out.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return out

    def __reduce__(self) -> Any:
        # As in PyTorch: without grad, and a non-leaf comes back as a leaf.
        array = self.device.backend.to_numpy(self.array)
        arguments = (self.__class__, array, str(self.device), self.requires_grad)
        return _rebuild, arguments, (self.__dict__ or None)


tensor_types.add(Tensor)


def make(array: Any, device: Device = cpu, cls: type = Tensor) -> Any:
    """A Tensor around a raw array, without a copy and off the tape."""
    if device._backend is None:
        device.backend  # noqa: B018  loads it: compiled functions rely on that
    out: Any = _new(cls)
    out.array = array
    out.device = device
    out._grad = None
    out._edge = None
    out._cell = config.get_mode().cell or [0, 0]
    out._view = None
    return out


def _refuse_grad(x: Tensor, value: Any) -> NoReturn:
    if value.__class__ not in tensor_types:
        kind = type(value).__name__
        fail(ArgumentTypeError, "grad", f"a gradient must be a Tensor or None, not {kind}")
    if value is x:
        fail(AutogradError, "grad", "a tensor cannot be its own gradient", "clone() it.")
    for error, what in ((DeviceError, "device"), (ShapeError, "shape"), (DtypeError, "dtype")):
        theirs, ours = getattr(value, what), getattr(x, what)
        if theirs != ours:
            text = f"a gradient must have its tensor's {what}"
            fail(error, "grad", text, gradient=value, tensor=x)
    raise AssertionError("the gradient fits")


def _rebuild(cls: type, array: np.ndarray, device: str, requires_grad: bool) -> Tensor:
    place = Device(device)
    out = make(place.backend.asarray(dtypes.canonical(array)), place, cls)
    return out.requires_grad_() if requires_grad else out


def current_edge(x: Tensor) -> Node | None:
    """``x._edge``, made anew if ``x`` is a view whose storage was written through another view."""
    rewrites = x._cell[1]
    if rewrites < 0:  # an inference tensor
        return x._edge
    stale = []
    while (view := x._view) is not None and view[0] is not None and view[3] != rewrites:
        stale.append(x)
        x = view[0]
    edge = x._edge
    for x in reversed(stale):
        view = x._view
        base, op, params, _ = view  # type: ignore[misc]  # not None: that is what made it stale
        old = x._edge
        keep = Keep.of(old, x)
        edge = x._edge = None if edge is None else op.record_view(base, x, edge, params)
        if keep is not None and old is not None and edge is not None:
            keep.move(old, edge)
        x._view = (base, op, params, rewrites)
    return edge


def unrecorded_view(x: Tensor) -> tuple:
    """What stands in ``_view`` of a view of ``x`` that is made without grad."""
    return NO_GRAD_VIEW if x._edge is None and x._view is not LOST_VIEW else LOST_VIEW
