"""The Op record: everything that is said about an op, in one place (L2).

Exports, Tensor methods, generic tests, benchmarks and the op table are all derived from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..dtypes import FLOATING
from ..errors import PyframeError


class Sample:
    """One valid call of an op: arrays positional, parameters by keyword.

    >>> Sample(1, 2, dim=0)
    Sample(1, 2, dim=0)
    """

    def __init__(self, *arrays: Any, **params: Any) -> None:
        self.arrays, self.params = arrays, params

    def __repr__(self) -> str:
        from ..errors import describe

        words = [describe(a) for a in self.arrays]
        words += [f"{k}={v!r}" for k, v in self.params.items()]
        return f"Sample({', '.join(words)})"


class Failing(Sample):
    """One call that must raise ``error`` with a message that matches ``pattern``."""

    def __init__(
        self, error: type[PyframeError], pattern: str, /, *arrays: Any, **params: Any
    ) -> None:
        super().__init__(*arrays, **params)
        self.error, self.pattern = error, pattern


@dataclass(slots=True)
class Kernel:
    """A faster implementation of an op on one device type.

    Args:
        name: how ``explain`` and ``pyframe.kernels(name)`` call it, e.g. ``"native"``.
        run: ``(*arrays, **params) -> outputs`` with the op's own conventions.
        supports: ``(*arrays, **params) -> ""`` if it can run, else the reason why not. May look at
            dtypes, shapes, strides and parameters, never at values; the answer is cached per
            dtypes, shapes, strides and parameters.
        available: ``() -> ""`` if its library is there, else the reason (asked once).
        source: file of the kernel, relative to the repository, if it has one of its own.
        into: ``(target, arrays, params) -> bool`` writes the only output into ``target``, which
            may be one of ``arrays``; False (and nothing written) where it cannot.
        rounds: it rounds intermediate values of half types to that type, as tensor cores need it.
            The generic tests then ask for what is exact for inputs that differ by one rounding.
        trusted: ``(*arrays) -> ""`` if it may be chosen without being forced, else why not: a GPU
            kernel that no emulator runs must have passed ``make gpu-check`` on the architecture.
        repeats: it runs on CUDA devices, and all that it does there are allocations and launches
            that follow from dtypes, shapes, strides, alignment and parameters; see
            :mod:`pyframe.backend.repeated`.
    """

    name: str
    run: Callable
    supports: Callable[..., str] = lambda *arrays, **params: ""
    available: Callable[[], str] = lambda: ""
    source: str = ""
    into: Callable[..., bool] | None = None
    rounds: bool = False
    trusted: Callable[..., str] = lambda *arrays: ""
    repeats: bool = False


@dataclass(slots=True)
class Cost:
    """Floating point operations and bytes that one call must at least move."""

    flops: float
    bytes: float


@dataclass(slots=True, eq=False)
class Op:
    """An op's record. In ``forward``, arrays are positional and parameters keyword-only.

    Args:
        name: the public name.
        forward: ``(xp, *arrays, **params) -> array(s)`` for any array module. Its parameters are in
            the public function's order. An array with default ``None`` is optional; one annotated
            ``list`` takes a sequence of arrays. It must not branch on values.
        vjp: gradient rules: ``{input name: rule}``, or one joint rule. The names in a rule's
            signature choose what the tape saves: ``g`` (the output's cotangent; ``g_NAME`` for one
            of several outputs), an input's name, an output's name (``y`` if there is one output),
            ``NAME_shape``, ``NAME_dtype``, or a parameter. A joint rule may name ``needs`` (a bool
            per input) and returns one gradient (or ``None``) per input. Rules are written with op
            functions, so that they work on raw arrays and, for higher derivatives, on Tensors. They
            return fresh arrays, ``g`` itself or views of those. ``None``: not differentiable.
        check: ``(*arrays, **params) -> tuple`` of canonical parameters in ``forward``'s order;
            raises the documented errors. Runs before any kernel. Must not look at values, except
            under ``backend_of(x).checks_values`` and if ``check_values`` says so.
        check_values: the part of ``check`` that looks at values, ``(*arrays, **canonical params)``,
            called after it; True where all of ``check`` does. What ``check`` alone answers is
            remembered per dtypes, shapes, strides and parameters where a kernel runs.
        outputs: names of the outputs; several names mean that ``forward`` returns a tuple.
        nondiff: outputs that carry no gradient, and inputs that a joint rule has none for.
        promote: names of inputs that are brought to one dtype by PyTorch's promotion.
        half: how float16/bfloat16 are computed: ``"float32"`` (converted, result rounded) or
            ``"native"`` (the forward takes them as they are: views, copies, selections).
        autocast: what :class:`pyframe.autocast` does with the floating point tensors of a call:
            ``"lower"`` (to its dtype), ``"float32"``, ``"promote"`` (to the widest of them, at
            least to its dtype) or ``""`` (nothing).
        view: ``"always"`` if the output is a view of the first input, ``"maybe"`` if it can be.
        part: ``(*params) -> index`` where the output is ``input[index]``, for numbers, slices and
            ``...``. Its gradient is then added in that place, without an array of zeros.
        inplace: make the in-place twin ``NAME_``.
        random: the op draws from a generator (its forward gets ``seed`` and ``offset``).
        reference: float64 reference on NumPy arrays, written independently of ``forward``.
        samples: ``(make) -> iterator of Sample``; see ``pyframe.op.samples.Maker``.
        errors: ``(make) -> iterator of Failing``.
        cost: ``(*arrays, **params) -> Cost`` (arrays are only looked at for shapes and dtypes).
        kernels: ``{"cpu": [Kernel, …], "cuda": […]}``, tried in order before ``forward``.
        sized_by: the input whose size tells how much work a call is (default: the first one), or
            several with spaces between, whose sizes are added.
        kernels_from: elements of that from which CPU kernels are looked for; below, NumPy beats
            what choosing and calling a kernel costs.
        dtypes: dtypes of the differentiated inputs for which the generic tests run the op.
        export: where the function is found: any of ``"pyframe"``, ``"Tensor"``, ``"functional"``.
        method: the method's name on Tensor if it differs from ``name``.
        aliases: further public names.
        dunder: operator name for Tensor (``"add"`` gives ``__add__`` and ``__radd__``).
        renamed: ``{other keyword: parameter}`` besides the usual ``axis``, ``keepdims``, ``x``.
        varargs: the parameter that the method also takes spread out, as in ``x.permute(1, 0)``.
        short: ``(*arrays, *params) -> (output, *canonical params)``, or the output alone for an op
            without parameters: check and forward in one call, for ops whose own work is often so
            little that calls dominate (views, small matrix products). Returns ``None`` or
            raises anything for a call that it leaves to ``check`` and ``forward``. The output must
            be an array, and the parameters good for gradient rules and for repeating the view.
        doc: public docstring: formula, arguments, what is raised, source, example.
    """

    name: str
    forward: Callable
    vjp: Any  # dict[str, Callable] | Callable | None
    check: Callable | None = None
    check_values: Callable | bool = False
    outputs: tuple[str, ...] = ("y",)
    nondiff: tuple[str, ...] = ()
    promote: tuple[str, ...] = ()
    half: str = "float32"
    autocast: str = ""
    view: str = ""
    part: Callable | None = None
    inplace: bool = False
    random: bool = False
    reference: Callable | None = None
    samples: Callable[[Any], Iterator[Sample]] | None = None
    errors: Callable[[Any], Iterator[Failing]] | None = None
    cost: Callable[..., Cost] | None = None
    kernels: dict[str, list[Kernel]] = field(default_factory=dict)
    sized_by: str = ""
    kernels_from: int = 4097
    dtypes: tuple = FLOATING
    export: tuple[str, ...] = ("pyframe", "Tensor")
    method: str = ""
    aliases: tuple[str, ...] = ()
    dunder: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    varargs: str = ""
    short: Callable | None = None
    doc: str = ""
    expr: Any = None
    # Filled in at registration.
    inputs: tuple[Input, ...] = ()
    params: tuple[Param, ...] = ()
    function: Any = None
    record: Any = None
    complete: Any = None
    module: str = ""

    def __post_init__(self) -> None:
        if not self.inputs:
            self.inputs, self.params = read_signature(self.forward)
        if not self.module:
            self.module = getattr(self.forward, "__module__", "")

    @property
    def several(self) -> bool:
        """Whether a call returns a tuple."""
        return len(self.outputs) > 1

    def record_view(self, base: Any, view: Any, edge: Any, params: tuple) -> Any:
        """Records the making of ``view`` from ``base`` once more and returns the new node."""
        view._edge, view._view, kept = None, None, view._view
        self.record((base,), (base.array,), params, (view,))
        view._view = kept
        return view._edge

    def __repr__(self) -> str:
        return f"<op {self.name}>"


@dataclass(frozen=True, slots=True)
class Input:
    """An array argument: its name, whether it may be ``None``, whether it is a sequence."""

    name: str
    optional: bool = False
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Param:
    """A non-array argument and its default (``inspect.Parameter.empty``: required)."""

    name: str
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


def read_signature(forward: Callable) -> tuple[tuple[Input, ...], tuple[Param, ...]]:
    """Inputs and parameters of a forward ``(xp, *arrays, *, **params)``.

    >>> read_signature(lambda xp, x, w=None, *, dim=0: x)[0][1].optional
    True
    """
    inputs, params = [], []
    code = forward.__code__  # inspect.signature costs 10 µs per op at import
    defaults = forward.__defaults__ or ()
    first = code.co_argcount - len(defaults)
    for i, name in enumerate(code.co_varnames[1 : code.co_argcount], 1):
        is_list = forward.__annotations__.get(name) in (list, "list")
        inputs.append(Input(name, i >= first, is_list))
    keyword = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    for name in keyword:
        params.append(
            Param(name, (forward.__kwdefaults__ or {}).get(name, inspect.Parameter.empty))
        )
    return tuple(inputs), tuple(params)
