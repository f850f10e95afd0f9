"""Einstein summation: any number of operands, contracted pairwise by matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backend import backends
from ..errors import ArgumentTypeError, ShapeError, fail
from ..op.record import Cost, Failing, Op, Sample
from ..op.samples import Maker
from ..op.windows import product
from ..tensor.register import composite, register
from .expand import expand
from .matmul import check_dtypes, matmul

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


# ---------------------------------------------------------------- one operand


def _single_forward(xp: Any, input: Any, *, equation: str) -> Any:
    before, after = equation.split("->")
    if sorted(before) == sorted(after) and len(set(before)) == len(before):
        return input.transpose([before.index(c) for c in after])
    return xp.einsum(equation, input)


def _single_vjp(g: Any, input_shape: tuple, equation: str) -> Any:
    """Spreads ``g`` over the summed indices, and over the diagonals that were read."""
    before, after = equation.split("->")
    distinct = "".join(dict.fromkeys(before))
    order = "".join(c for c in distinct if c in after)
    if order != after:
        g = einsum_single(g, f"{after}->{order}")
    length = dict(zip(before, input_shape, strict=True))
    # Every first occurrence of an index keeps its axis; a repeated one is a one-hot selection.
    seen: set[str] = set()
    shape = []
    for c in before:
        shape.append(length[c] if c in after and c not in seen else 1)
        seen.add(c)
    places = [i for i, c in enumerate(before) if before.index(c) == i and c in after]
    assert [before[i] for i in places] == list(order)
    g = expand(g.reshape(tuple(shape)), tuple(input_shape))
    for i, c in enumerate(before):
        if before.index(c) != i:
            g = g * _diagonal(g, before.index(c), i)
    return g


def _diagonal(g: Any, first: int, second: int) -> Any:
    """Ones where the indices of two axes are equal, broadcasting with ``g``."""
    raw = getattr(g, "array", g)
    n = raw.shape[first]
    shape = [1] * raw.ndim
    shape[first] = shape[second] = n
    eye = backends[raw.__class__].xp.eye(n, dtype=raw.dtype).reshape(shape)
    return eye if raw is g else g._like(eye)


def _single_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(3, 4), equation="ab->ba")
    yield Sample(make(3, 4), equation="ab->")
    yield Sample(make(3, 4, 2), equation="abc->ca")
    yield Sample(make(3, 3), equation="aa->a")
    yield Sample(make(3, 3, 2, 3), equation="aaba->b")


def _single_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "3 subscripts", make(2, 3), equation="abc->a")


def _check_single(input: Any, *, equation: str) -> tuple:
    before = equation.split("->")[0]
    if len(before) != input.ndim:
        fail(ShapeError, "einsum", f"{len(before)} subscripts for an operand", input=input)
    return (equation,)


def _loops(equation: str, *arrays: np.ndarray) -> np.ndarray:
    """Einstein summation by plain loops over all indices."""
    before, after = equation.split("->")
    terms = before.split(",")
    length: dict[str, int] = {}
    for term, array in zip(terms, arrays, strict=True):
        for c, s in zip(term, array.shape, strict=True):
            length[c] = max(length.get(c, s), s)
    letters = list(length)
    y = np.zeros([length[c] for c in after])
    for values in np.ndindex(*[length[c] for c in letters]):
        at = dict(zip(letters, values, strict=True))
        value = 1.0
        for term, array in zip(terms, arrays, strict=True):
            value *= array[tuple(at[c] for c in term)]
        y[tuple(at[c] for c in after)] += value
    return y


einsum_single = register(
    Op(
        "einsum_single",
        _single_forward,
        autocast="lower",
        vjp={"input": _single_vjp},
        view="maybe",
        check=_check_single,
        export=(),
        reference=lambda input, equation: _loops(equation, input),
        samples=_single_samples,
        errors=_single_errors,
        cost=lambda input, *, equation: Cost(input.size, input.nbytes),
        doc="""Einstein summation of one operand: reads diagonals, sums and permutes.

    Args:
        input: tensor.
        equation: such as ``"aab->b"``, with ``->`` and without blanks or dots.

    Raises:
        ShapeError: if the number of subscripts differs from that of dimensions.
    """,
    )
)


# ---------------------------------------------------------------- two operands


def _split(equation: str) -> tuple[str, str, str]:
    before, after = equation.split("->")
    first, second = before.split(",")
    return first, second, after


def _pair_forward(xp: Any, input: Any, other: Any, *, equation: str) -> Any:
    """One batched matrix product of both, with axes ordered (batch, kept, summed)."""
    first, second, after = _split(equation)
    batch = [c for c in first if c in second and c in after]
    summed = [c for c in first if c in second and c not in after]
    rows = [c for c in first if c not in second]
    columns = [c for c in second if c not in first]
    length = dict(zip(first + second, input.shape + other.shape, strict=True))

    def size(letters: list[str]) -> int:
        return product(length[c] for c in letters)

    left = input.transpose([first.index(c) for c in batch + rows + summed])
    right = other.transpose([second.index(c) for c in batch + summed + columns])
    shape = tuple(length[c] for c in batch + rows + columns)
    if not batch:
        y = left.reshape(size(rows), size(summed)).dot(right.reshape(size(summed), size(columns)))
    elif not summed:
        left = left.reshape(size(batch), size(rows), 1)
        y = left * right.reshape(size(batch), 1, size(columns))
    else:
        left = left.reshape(size(batch), size(rows), size(summed))
        y = xp.matmul(left, right.reshape(size(batch), size(summed), size(columns)))
    y = y.reshape(shape)
    made = batch + rows + columns
    order = [made.index(c) for c in after]
    return y if order == sorted(order) else xp.ascontiguousarray(y.transpose(order))


def _pair_input(g: Any, other: Any, equation: str) -> Any:
    first, second, after = _split(equation)
    return einsum_pair(g, other, f"{after},{second}->{first}")


def _pair_other(g: Any, input: Any, equation: str) -> Any:
    first, second, after = _split(equation)
    return einsum_pair(g, input, f"{after},{first}->{second}")


def _check_pair(input: Any, other: Any, *, equation: str) -> tuple:
    check_dtypes("einsum", input, other)
    first, second, _after = _split(equation)
    if len(first) != input.ndim or len(second) != other.ndim:
        fail(ShapeError, "einsum", "wrong numbers of subscripts", input=input, other=other)
    for c, s in zip(first, input.shape, strict=True):
        if c in second and other.shape[second.index(c)] != s:
            fail(ShapeError, "einsum", f"lengths of {c!r} differ", input=input, other=other)
    return (equation,)


def _pair_samples(make: Maker) -> Iterator[Sample]:
    yield Sample(make(2, 3), make(3, 4), equation="ab,bc->ac")
    yield Sample(make(2, 3), make(4, 3), equation="ab,cb->ca")
    yield Sample(make(2, 3, 4), make(2, 5, 4), equation="abc,adc->dab")
    yield Sample(make(2, 3), make(2, 3), equation="ab,ab->ba")
    yield Sample(make(2), make(3), equation="a,b->ba")
    yield Sample(make(2, 3), make(2, 3), equation="ab,ab->")
    yield Sample(make(2, 0), make(0, 3), equation="ab,bc->ac")


def _pair_errors(make: Maker) -> Iterator[Failing]:
    yield Failing(ShapeError, "lengths of 'b'", make(2, 3), make(2, 3), equation="ab,bc->ac")
    yield Failing(ShapeError, "numbers of subscripts", make(2, 3), make(2), equation="a,b->ab")


def _pair_cost(input: Any, other: Any, *, equation: str) -> Cost:
    first, second, after = _split(equation)
    length = dict(zip(first + second, input.shape + other.shape, strict=True))
    out = product(length[c] for c in after)
    size = input.dtype.itemsize
    return Cost(2.0 * product(length.values()), (input.size + other.size + out) * size)


einsum_pair = register(
    Op(
        "einsum_pair",
        _pair_forward,
        autocast="lower",
        vjp={"input": _pair_input, "other": _pair_other},
        check=_check_pair,
        export=(),
        reference=lambda input, other, equation: _loops(equation, input, other),
        samples=_pair_samples,
        errors=_pair_errors,
        cost=_pair_cost,
        doc="""Einstein summation of two operands, as one batched matrix product.

    Args:
        input, other: tensors of one dtype.
        equation: such as ``"ab,bc->ac"``; within an operand and within the output all subscripts
            differ, and each of an operand's is also in the other one or in the output.

    Raises:
        ShapeError: if the shapes do not fit.
        DtypeError: if the dtypes differ.
    """,
    )
)


# ---------------------------------------------------------------- the public function


def _from_lists(operands: tuple) -> tuple[str, list]:
    """The form ``einsum(x, [0, 1], y, [1, 2], [0, 2])`` as an equation and operands."""
    words, arrays = [], list(operands[: len(operands) // 2 * 2 : 2])
    for subscripts in [*operands[1::2], *([operands[-1]] if len(operands) % 2 else [])]:
        words.append("".join("..." if s is Ellipsis else LETTERS[s] for s in subscripts))
    if len(operands) % 2:
        return ",".join(words[:-1]) + "->" + words[-1], arrays
    return ",".join(words), arrays


def _bad(what: str, equation: str) -> None:
    fail(ShapeError, "einsum", what, equation=equation)


def _parse(equation: str, ndims: list[int]) -> tuple[list[str], str]:
    """Subscripts per operand and of the output, with letters in the place of an ellipsis."""
    text = equation.replace(" ", "")
    before, arrow, after = text.partition("->")
    terms = before.split(",")
    if len(terms) != len(ndims):
        _bad(f"{len(ndims)} operands for {len(terms)} terms", equation)
    for c in text.replace("->", "").replace("...", "").replace(",", ""):
        if c not in LETTERS:
            _bad(f"invalid subscript {c!r}", equation)
    free = [c for c in LETTERS if c not in text]
    extras = []
    for term, ndim in zip(terms, ndims, strict=True):
        named = len(term.replace("...", ""))
        if ndim < named or (ndim > named and "..." not in term):
            _bad(f"{named} subscripts for an operand with {ndim} dimensions", equation)
        extras.append(ndim - named)
    dots = "".join(free[: max(extras, default=0)])
    full = [t.replace("...", dots[len(dots) - e :]) for t, e in zip(terms, extras, strict=True)]
    if not arrow:
        letters = "".join(terms).replace(".", "")
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        return full, dots + "".join(once)
    out = after.replace("...", dots)
    for c in out:
        if c not in "".join(full):
            _bad(f"output subscript {c!r} is in no operand", equation)
        if out.count(c) > 1:
            _bad(f"output subscript {c!r} appears more than once", equation)
    return full, out


def _reduce(value: Any, term: str, kept: str) -> tuple[Any, str]:
    """Reads diagonals and sums over subscripts that nothing else needs."""
    new = "".join(c for c in dict.fromkeys(term) if c in kept)
    return (value, term) if new == term else (einsum_single(value, f"{term}->{new}"), new)


def _fitting(values: list, terms: list[str], equation: str) -> tuple[list, list[str]]:
    """Drops dimensions of length 1 where the same subscript is longer elsewhere (broadcasting)."""
    length: dict[str, int] = {}
    for value, term in zip(values, terms, strict=True):
        for c, s in zip(term, value.shape, strict=True):
            if s != 1 and length.setdefault(c, s) != s:
                _bad(f"subscript {c!r} stands for lengths {length[c]} and {s}", equation)
    for i, term in enumerate(terms):
        shape = values[i].shape
        long = [k for k, c in enumerate(term) if shape[k] == 1 and length.get(c, 1) != 1]
        if long and len(set(term)) != len(term):
            _bad("a repeated subscript stands for different lengths", equation)
        if long:
            kept = [k for k in range(len(term)) if k not in long]
            values[i] = values[i].reshape(tuple(shape[k] for k in kept))
            terms[i] = "".join(term[k] for k in kept)
    return values, terms


@composite(export=("pyframe",))
def einsum(equation: Any, *operands: Any) -> Any:
    """Sums of products, written with subscripts: ``einsum("bij,bjk->bik", x, y)``.

    Operands are contracted from left to right.

    Args:
        equation: subscripts (letters and ``...``) per operand, then ``->`` and the output's (left
            out: all that occur once, in alphabetical order). Or tensors and lists of integers in
            turn.
        *operands: tensors of one dtype, or one list of them.

    Raises:
        ShapeError: if equation and shapes do not fit.
        ArgumentTypeError: if ``equation`` is neither.

    >>> import pyframe
    >>> x = pyframe.ones(2, 3)
    >>> pyframe.einsum("ij,kj->ik", x, x)
    tensor([[3., 3.],
            [3., 3.]])
    """
    if equation.__class__ is not str:
        if not operands:
            fail(ArgumentTypeError, "einsum", "the equation must be a string")
        equation, values = _from_lists((equation, *operands))
    elif len(operands) == 1 and operands[0].__class__ in (list, tuple):
        values = list(operands[0])
    else:
        values = list(operands)
    terms, out = _parse(equation, [len(v.shape) for v in values])
    values, terms = _fitting(values, terms, equation)
    result, term = values[0], terms[0]
    for i in range(1, len(values)):
        later = out + "".join(terms[i + 1 :])
        result, term = _reduce(result, term, later + terms[i])
        value, second = _reduce(values[i], terms[i], later + term)
        joined = "".join(c for c in dict.fromkeys(term + second) if c in later)
        if i == len(values) - 1:
            joined = out
        result, term = _contract(result, value, term, second, joined), joined
    if term != out:
        result = einsum_single(result, f"{term}->{out}")
    return result


def _contract(a: Any, b: Any, first: str, second: str, after: str) -> Any:
    if len(first) == len(second) == 2 and first[1] == second[0] and after == first[0] + second[1]:
        return matmul(a, b)  # the usual matrix product, on its short path
    return einsum_pair(a, b, f"{first},{second}->{after}")
