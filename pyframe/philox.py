"""Counter-based random numbers (L1): Philox4x32-10 for every array module, with the same bits.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011, https://doi.org/10.1145/2063384.2063405 (the authors' library is Random123).

**The stream.** A stream is named by ``(seed, offset)``, two unsigned 64-bit integers. Its word
``i`` (uint32, ``0 <= i < 2**66``) is word ``i % 4`` of the Philox block with this key and counter::

    key     = (seed & 0xFFFFFFFF, seed >> 32)
    counter = (j & 0xFFFFFFFF, j >> 32, offset & 0xFFFFFFFF, offset >> 32)      with j = i // 4

so a GPU thread computes any word alone, and streams with different offsets share no counter.
The value at flat (C order) index ``v`` of an array is made of these words:

=========================================  ====================================================
uniform, exponential, bernoulli_mask       word ``v``; float64: words ``2v`` (low), ``2v+1`` (high)
randint, permutation keys                  words ``2v`` (low half) and ``2v+1`` (high half)
normal                                     words ``2p``, ``2p+1`` with ``p = v // 2``; float64:
                                           words ``4p … 4p+3``, two for each uniform number
=========================================  ====================================================

Integers, uniform numbers and masks have the same bits on every device; ``normal``, ``exponential``
and ``categorical`` differ by the rounding of the device's ``log``, ``cos`` and ``cumsum``.

Functions take the array module first (``numpy``, ``cupy``, or a test double) and use only integer
operations that wrap silently, never a value on the host. ``seed`` and ``offset`` are Python ints
and count modulo 2**64. With NumPy the work goes through blocks that stay in the cache.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import dtypes
from .errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError, fail

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # of words 0 and 2 of the counter
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key after each round: golden ratio, sqrt(3) - 1
ROUNDS = 10

_LOW = 0xFFFFFFFF
_LOW64 = 0xFFFFFFFFFFFFFFFF
_COUNTERS = 8192  # counters in a block of NumPy's path: about 0.5 MB of scratch, fits a 1 MB L2

# The native extension, set by the backend that loads it: the same streams, for NumPy.
fast: Any = None


def _fast_draw(function: str, seed: int, offset: int, shape: Any, dtype: Any, *more: int) -> Any:
    """An array of ``shape`` filled by a function of the extension."""
    shape = _shape(shape)
    out = fast.empty(shape, dtype)
    n = math.prod(shape)
    if n:
        getattr(fast, function)(out, seed & _LOW64, offset & _LOW64, n, *more)
    return out


# Bits of one word that become a uniform number: all that the significand can hold.
_UNIFORM_BITS = {
    dtypes.bfloat16: 8,
    dtypes.float16: 11,
    dtypes.float32: 24,
}


@functools.lru_cache(maxsize=64)
def _numpy_constants(k0: int, k1: int) -> tuple[Any, ...]:
    keys = [
        [[(k + r * w) & _LOW] for k, w in zip((k0, k1), WEYL, strict=True)] for r in range(ROUNDS)
    ]
    arrays = [np.array(v, np.uint64) for v in ([[m] for m in MULTIPLIERS], keys, 32, _LOW)]
    for array in arrays:
        array.flags.writeable = False  # shared by all calls
    multipliers, columns, shift, mask = arrays
    return multipliers, tuple(columns), shift, mask


def _constants(xp: Any, k0: int, k1: int) -> tuple[Any, ...]:
    """The multipliers, uint64[2,1], the key of each round, uint64[2,1], and the numbers 32 and
    2**32 - 1 (NumPy takes half the time for 0-d arrays that it takes for Python ints).
    """
    if xp is np:
        return _numpy_constants(k0, k1)
    # Computed on the device: a copy from the host could not be captured in a CUDA graph.
    row = xp.arange(2, dtype=xp.uint64).reshape(2, 1)
    index = xp.arange(ROUNDS, dtype=xp.uint64).reshape(ROUNDS, 1, 1)

    def pair(a: int, b: int) -> Any:
        return (1 - row) * a + row * b

    return pair(*MULTIPLIERS), (pair(k0, k1) + index * pair(*WEYL)) & _LOW, 32, _LOW


def _rounds(xp: Any, even: Any, odd: Any, scratch: Any, constants: tuple[Any, ...]) -> Any:
    """Ten rounds in place on uint64 rows ``even`` = (word 0, word 2), ``odd`` = (word 3, word 1).

    Returns (even, odd): words 0 and 2 below 2**32, and words 3 and 1 in the low half of the
    other. ``odd`` is kept as the whole 64-bit product (its high half is masked away after the
    exclusive or) and with its rows swapped, which saves two of seven passes over memory.
    """
    multipliers, keys, shift, low = constants
    multiply, right_shift = xp.multiply, xp.right_shift
    xor, bitwise_and = xp.bitwise_xor, xp.bitwise_and
    product, swapped_product, swapped_odd = scratch, scratch[::-1], odd[::-1]
    for r in range(ROUNDS):
        multiply(even, multipliers, product)
        right_shift(swapped_product, shift, even)
        xor(even, swapped_odd, even)
        xor(even, keys[r], even)
        bitwise_and(even, low, even)
        product, odd = odd, product
        swapped_product, swapped_odd = swapped_odd, swapped_product
    return even, odd


def philox4x32(
    xp: Any, c0: Any, c1: Any, c2: Any, c3: Any, k0: int, k1: int
) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four random words for each 128-bit counter under a 64-bit key.

    One round maps, with ``M0, M1 = MULTIPLIERS`` and 32-bit words, ``(c0, c1, c2, c3)`` to
    ``(hi(M1*c2) ^ c1 ^ k0, lo(M1*c2), hi(M0*c0) ^ c3 ^ k1, lo(M0*c0))``; then ``k0 += WEYL[0]``
    and ``k1 += WEYL[1]``.

    Args:
        xp: the array module.
        c0: first words of the counters: an array of an unsigned dtype or an int, values in
            [0, 2**32). The four broadcast together; at least one is an array.
        c1: second words.
        c2: third words.
        c3: fourth words.
        k0: first word of the key, an int.
        k1: second word of the key.

    Returns:
        Four uint32 arrays of the broadcast shape.

    >>> [hex(w[0]) for w in philox4x32(np, np.zeros(1, np.uint32), 0, 0, 0, 0, 0)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    words = (c0, c1, c2, c3)
    shape = np.broadcast_shapes(*(w.shape for w in words if hasattr(w, "shape")))
    even = xp.empty((2, *shape), dtype=xp.uint64)
    odd = xp.empty((2, *shape), dtype=xp.uint64)
    even[0], even[1], odd[0], odd[1] = c0, c2, c3, c1
    size = math.prod(shape)
    even, odd = _rounds(
        xp,
        even.reshape(2, size),
        odd.reshape(2, size),
        xp.empty((2, size), dtype=xp.uint64),
        _constants(xp, k0 & _LOW, k1 & _LOW),
    )
    odd = odd & _LOW
    w0, w1, w2, w3 = (
        w.astype(xp.uint32).reshape(shape) for w in (even[0], odd[1], even[1], odd[0])
    )
    return w0, w1, w2, w3


class _Stream:
    """Words of the stream (seed, offset), a run of whole counters at a time."""

    def __init__(self, xp: Any, seed: int, offset: int, counters: int) -> None:
        seed, self.offset, self.xp = seed & _LOW64, offset & _LOW64, xp
        self.constants = _constants(xp, seed & _LOW, seed >> 32)
        self.scratch = xp.empty((3, 2, counters), dtype=xp.uint64)

    def write(self, first: int, out: Any) -> None:
        """Fills ``out``, uint32[counters,4], from counter ``first`` on."""
        xp = self.xp
        n = out.shape[0]
        even, odd, product = self.scratch[0], self.scratch[1], self.scratch[2]
        if n != even.shape[1]:
            even, odd, product = even[:, :n], odd[:, :n], product[:, :n]
        index = xp.arange(first, first + n, dtype=xp.uint64)
        xp.bitwise_and(index, self.constants[3], out=even[0])
        xp.right_shift(index, self.constants[2], out=odd[1])
        even[1] = self.offset & _LOW
        odd[0] = self.offset >> 32
        even, odd = _rounds(xp, even, odd, product, self.constants)
        # Storing into uint32 keeps the low half.
        out[:, 0], out[:, 1], out[:, 2], out[:, 3] = even[0], odd[1], even[1], odd[0]


def bits(xp: Any, seed: int, offset: int, n: int) -> Any:
    """The first ``n`` words of the stream (seed, offset), uint32[n].

    Word ``i`` is word ``i % 4`` of the Philox block of counter ``(i // 4, offset)`` under the key
    ``seed``; see the module's docstring for the layout.

    Raises:
        ArgumentError: ``n`` is negative.

    >>> bits(np, 0, 0, 4)
    array([1713891541, 3781805453, 3159862348, 2600524760], dtype=uint32)
    >>> bits(np, 0, 0, 6)[5] == bits(np, 0, 0, 8)[5]
    np.True_
    """
    if n < 0:
        fail(ArgumentError, "bits", "the number of words must not be negative", n=n)
    if xp is np and fast is not None:
        return _fast_draw("philox_words", seed, offset, (n,), np.dtype(np.uint32))
    counters = -(-n // 4)
    out = xp.empty((counters, 4), dtype=xp.uint32)
    step = min(counters, _COUNTERS) if xp is np else counters
    if counters:
        stream = _Stream(xp, seed, offset, step)
        for first in range(0, counters, step):
            stream.write(first, out[first : first + step])
    return out.reshape(-1)[:n]


def _shape(shape: Any) -> tuple[int, ...]:
    shape = (int(shape),) if hasattr(shape, "__index__") else tuple(shape)
    if any(size < 0 for size in shape):
        fail(ShapeError, "random", "a shape must not have a negative size", shape=shape)
    return shape


def _draw(
    xp: Any,
    seed: int,
    offset: int,
    shape: Any,
    dtype: Any,
    words: int,
    values: Callable[[Any], Any],
) -> Any:
    """An array of ``values(words of the stream)``, with ``words`` words to a value.

    ``values`` may overwrite its argument, gets the words of an even number of values, and must
    give the same value wherever a block begins.
    """
    shape = _shape(shape)
    n = math.prod(shape)
    step = 4 * _COUNTERS // words
    if xp is not np or n <= step:
        return values(bits(xp, seed, offset, (n + n % 2) * words))[:n].reshape(shape)
    out = np.empty(n, dtype)
    block = np.empty((_COUNTERS, 4), np.uint32)
    stream = _Stream(np, seed, offset, _COUNTERS)
    for first in range(0, n, step):
        count = min(step, n - first)
        used = -(-(count + count % 2) * words // 4)
        stream.write(first * words // 4, block[:used])
        flat = block.reshape(-1)[: (count + count % 2) * words]
        out[first : first + count] = values(flat)[:count]
    return out.reshape(shape)


def _joined(xp: Any, words: Any) -> Any:
    """uint64 numbers from pairs of words, the low half first."""
    if sys.byteorder == "little":
        return words.view(xp.uint64)
    return words[0::2].astype(xp.uint64) | (words[1::2].astype(xp.uint64) << 32)


def _floating(op: str, dtype: Any) -> np.dtype:
    dtype = dtypes.as_dtype(dtype)
    if not dtypes.is_floating(dtype):
        fail(DtypeError, op, f"random numbers of {dtype} are not defined", "Use a floating dtype.")
    return dtype


def _unit53(xp: Any, words: Any, plus: int = 0) -> Any:
    """float64 multiples of 2**-53 from pairs of words: [0, 1), or (0, 1] with ``plus=1``."""
    x = _joined(xp, words)
    x >>= 11
    x += plus
    result = x.astype(xp.float64)
    result *= 2.0**-53
    return result


def _open_unit32(xp: Any, words: Any) -> Any:
    """float32 in (0, 1] from words: ``float32(w) * 2**-32 + 2**-33`` (the smallest is 2**-33)."""
    result = words.astype(xp.float32)
    result *= 2.0**-32
    result += 2.0**-33
    return result


def _rounded(values: Any, dtype: np.dtype) -> Any:
    """The values in ``dtype``; a user's ``np.seterr`` does not see float16's subnormals."""
    if not dtypes.is_half(dtype):
        return values
    with np.errstate(under="ignore"):
        return values.astype(dtype)


def uniform(xp: Any, seed: int, offset: int, shape: Any, dtype: Any = "float32") -> Any:
    """Uniform random numbers in [0, 1): never 1.0, in any dtype.

    ``(w >> (32 - b)) * 2**-b`` with b = 24, 11, 8 for float32, float16, bfloat16: every value is
    a multiple of ``2**-b`` and exact. float64 has 53 bits, ``(w64 >> 11) * 2**-53``, of two words.

    Raises:
        DtypeError: the dtype is not floating.
        ShapeError: a size is negative.

    >>> uniform(np, 0, 0, (2, 2))
    array([[0.39904642, 0.88052016],
           [0.73571277, 0.6054818 ]], dtype=float32)
    """
    dtype = _floating("uniform", dtype)
    if xp is np and fast is not None and dtype.itemsize >= 4:
        return _fast_draw("philox_uniform", seed, offset, shape, dtype)
    if dtype == dtypes.float64:
        return _draw(xp, seed, offset, shape, dtype, 2, lambda w: _unit53(xp, w))
    kept = _UNIFORM_BITS[dtype]

    def values(words: Any) -> Any:
        words >>= 32 - kept
        result = words.astype(xp.float32)
        result *= 2.0**-kept
        return result.astype(dtype, copy=False)

    return _draw(xp, seed, offset, shape, dtype, 1, values)


def normal(xp: Any, seed: int, offset: int, shape: Any, dtype: Any = "float32") -> Any:
    """Standard normal random numbers, by the transform of Box and Muller.

    Values ``2p`` and ``2p+1`` are ``r cos t`` and ``r sin t`` with ``r = sqrt(-2 log u)``,
    ``t = 2 pi v``; u in (0, 1] and v in [0, 1) are the first and the second uniform number of the
    pair. float64 uses 53-bit u and v; the others compute in float32, with a u of 32 bits
    (``float32(w) 2**-32 + 2**-33``, so that values reach 6.76) and a v of 24 bits.

    Source: G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates",
    Annals of Mathematical Statistics 29 (1958).

    Raises:
        DtypeError: the dtype is not floating.
        ShapeError: a size is negative.

    >>> x = normal(np, 1, 0, 10000)
    >>> bool(abs(x.mean()) < 0.05), bool(abs(x.std() - 1) < 0.05)
    (True, True)
    """
    dtype = _floating("normal", dtype)
    double = dtype == dtypes.float64
    if xp is np and fast is not None and dtype.itemsize >= 4:
        return _fast_draw("philox_normal", seed, offset, shape, dtype)

    def values(words: Any) -> Any:
        if double:
            pairs = words.reshape(-1, 2, 2)
            radius = _unit53(xp, xp.ascontiguousarray(pairs[:, 0]).reshape(-1), 1)
            angle = _unit53(xp, xp.ascontiguousarray(pairs[:, 1]).reshape(-1))
        else:
            radius = _open_unit32(xp, words[0::2])
            angle = (words[1::2] >> 8).astype(xp.float32)
            angle *= 2.0**-24
        xp.log(radius, out=radius)
        radius *= -2.0
        xp.sqrt(radius, out=radius)
        angle *= 2.0 * math.pi
        result = xp.empty((radius.shape[0], 2), dtype=radius.dtype)
        xp.multiply(radius, xp.cos(angle), out=result[:, 0])
        xp.multiply(radius, xp.sin(angle), out=result[:, 1])
        return _rounded(result.reshape(-1), dtype)

    return _draw(xp, seed, offset, shape, dtype, 2 if double else 1, values)


def exponential(xp: Any, seed: int, offset: int, shape: Any, dtype: Any = "float32") -> Any:
    """Exponential random numbers of rate 1: ``max(-log u, tiny)`` with u in (0, 1].

    u has 53 bits in float64 and 32 bits otherwise (see ``normal``). No value is 0: ``tiny`` is
    2**-54 for float64, 2**-25 for float32 and bfloat16 (half the spacing just below u = 1), and
    2**-24, its least number, for float16.

    Raises:
        DtypeError: the dtype is not floating.
        ShapeError: a size is negative.

    >>> bool(exponential(np, 3, 0, 1000).min() > 0)
    True
    """
    dtype = _floating("exponential", dtype)
    double = dtype == dtypes.float64
    tiny = 2.0**-54 if double else 2.0 ** (-24 if dtype == dtypes.float16 else -25)

    def values(words: Any) -> Any:
        result = _unit53(xp, words, 1) if double else _open_unit32(xp, words)
        xp.log(result, out=result)
        xp.negative(result, out=result)
        xp.maximum(result, tiny, out=result)
        return _rounded(result, dtype)

    return _draw(xp, seed, offset, shape, dtype, 2 if double else 1, values)


def _times_high(xp: Any, x: Any, factor: int) -> Any:
    """``(x * factor) >> 64`` of uint64 x and a Python int factor in [1, 2**64]."""
    if factor > _LOW64:
        return x
    high, low = x >> 32, x & _LOW
    f_high, f_low = factor >> 32, factor & _LOW
    # The sum of two products' halves never overflows: (2**32-1)**2 + 2*(2**32-1) = 2**64-1.
    middle = high * f_low + ((low * f_low) >> 32)
    if f_high == 0:
        return middle >> 32
    middle_low = (middle & _LOW) + low * f_high
    return high * f_high + (middle >> 32) + (middle_low >> 32)


def randint(
    xp: Any, seed: int, offset: int, low: int, high: int, shape: Any, dtype: Any = "int64"
) -> Any:
    """Random integers in [low, high): ``low + ((w64 * (high - low)) >> 64)``.

    Multiply-shift of a 64-bit number. The probability of each integer is within 2**-64 of
    ``1 / (high - low)``: a relative bias below 2**-32 for ranges up to 2**32.

    Args:
        xp: the array module.
        seed: names the stream, with ``offset``.
        offset: names the stream, with ``seed``.
        low: the least value, an int.
        high: one more than the greatest value, an int above ``low``. Every value must fit the
            dtype; floating dtypes take all of int64 and round it (float16: up to 65504).
        shape: an int or a tuple.
        dtype: integer, bool or floating.

    Raises:
        ArgumentError: an empty range, or one that does not fit the dtype.
        ArgumentTypeError: low or high is not an int.
        ShapeError: a size is negative.

    >>> randint(np, 0, 0, 0, 6, 5)
    array([5, 3, 2, 0, 1])
    """
    dtype = dtypes.as_dtype(dtype)
    for name, value in (("low", low), ("high", high)):
        if not isinstance(value, (int, np.integer)):
            fail(ArgumentTypeError, "randint", f"{name} must be an int", low=low, high=high)
    low, high = int(low), int(high)
    if low >= high:
        fail(ArgumentError, "randint", "low must be less than high", low=low, high=high)
    if dtype == dtypes.bool_:
        first, last = 0, 1
    elif dtypes.is_integral(dtype):
        first, last = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    elif dtype == dtypes.float16:
        first, last = -65504, 65504
    else:
        first, last = -(2**63), 2**63 - 1
    if low < first or high - 1 > last:
        fail(ArgumentError, "randint", f"the range does not fit {dtype}", low=low, high=high)

    def values(words: Any) -> Any:
        result = _times_high(xp, _joined(xp, words), high - low).astype(xp.int64)
        result += low
        return result.astype(dtype, copy=False)

    return _draw(xp, seed, offset, shape, dtype, 2, values)


def bernoulli_mask(xp: Any, seed: int, offset: int, shape: Any, keep_prob: float) -> Any:
    """A bool array, True with probability ``keep_prob`` (to within 2**-33): ``w < T``.

    ``T = round(keep_prob * 2**32)`` is compared with the words as integers, so the mask is the
    same on every device. 0.0 gives all False and 1.0 all True.

    Raises:
        ArgumentError: ``keep_prob`` is not in [0, 1].
        ShapeError: a size is negative.

    >>> bernoulli_mask(np, 0, 0, 6, 0.5)
    array([ True, False, False, False, False,  True])
    """
    keep_prob = float(keep_prob)
    if not 0.0 <= keep_prob <= 1.0:
        fail(ArgumentError, "bernoulli_mask", "keep_prob must be in [0, 1]", keep_prob=keep_prob)
    threshold = round(keep_prob * 2.0**32)
    if threshold > _LOW:
        return xp.ones(_shape(shape), dtype=xp.bool_)
    if xp is np and fast is not None:
        bool_ = np.dtype(np.bool_)
        return _fast_draw("philox_mask", seed, offset, shape, bool_, threshold)
    return _draw(xp, seed, offset, shape, np.bool_, 1, lambda words: words < threshold)


def permutation(xp: Any, seed: int, offset: int, n: int) -> Any:
    """A random permutation of ``range(n)``, int64[n]: the stable argsort of 64-bit random keys.

    Equal keys (probability below ``n**2 / 2**65``) keep their order, on every device.

    Raises:
        ArgumentError: ``n`` is negative.

    >>> permutation(np, 0, 0, 6)
    array([3, 5, 4, 2, 1, 0])
    """
    if n < 0:
        fail(ArgumentError, "permutation", "n must not be negative", n=n)
    keys = _draw(xp, seed, offset, n, np.uint64, 2, lambda words: _joined(xp, words))
    return xp.argsort(keys, kind="stable").astype(xp.int64, copy=False)


def categorical(
    xp: Any, seed: int, offset: int, weights: Any, num_samples: int, replacement: bool = True
) -> Any:
    """Draws ``num_samples`` indices along the last axis of ``weights``, int64[..., num_samples].

    With replacement by inverse CDF: the first index whose cumulative weight exceeds
    ``u * total``, u uniform with 53 bits; an index of weight zero is never drawn (a vector of
    weights is searched, rows are compared with their samples, which takes ``num_samples`` bytes
    per weight). Without replacement by an exponential race: the indices of the largest
    ``weights / e`` with e exponential, in descending order, which follow the law of drawing one
    after the other.

    Args:
        xp: the array module.
        seed: names the stream, with ``offset``.
        offset: names the stream, with ``seed``.
        weights: non-negative array with at least one axis; rows need not sum to one. The
            values are not checked: rows without a positive weight give arbitrary indices.
        num_samples: how many from each row.
        replacement: whether one index may be drawn again.

    Raises:
        ArgumentError: a negative ``num_samples``, no weights, or more samples without
            replacement than weights.
        ShapeError: ``weights`` has no axis.

    Source: inverse CDF: L. Devroye, "Non-uniform random variate generation" (1986), III.2; race:
    P. S. Efraimidis, P. G. Spirakis, "Weighted random sampling with a reservoir", Information
    Processing Letters 97 (2006).

    >>> categorical(np, 0, 0, np.array([1.0, 0.0, 3.0]), 8)
    array([2, 2, 2, 0, 2, 2, 2, 2])
    """
    op = "categorical"
    if weights.ndim < 1:
        fail(ShapeError, op, "weights must have at least one axis", weights=weights)
    classes = weights.shape[-1]
    if num_samples < 0 or classes < 1 or (not replacement and num_samples > classes):
        fail(
            ArgumentError,
            op,
            f"cannot draw {num_samples} of {classes} {'with' if replacement else 'without'} "
            "replacement",
            weights=weights,
        )
    weights = weights.astype(xp.float64)
    if not replacement:
        race = weights / exponential(xp, seed, offset, weights.shape, dtypes.float64)
        order = xp.argsort(-race, axis=-1, kind="stable")
        return order[..., :num_samples].astype(xp.int64, copy=False)
    cumulative = xp.cumsum(weights, axis=-1)
    shape = (*weights.shape[:-1], num_samples)
    target = uniform(xp, seed, offset, shape, dtypes.float64) * cumulative[..., -1:]
    if weights.ndim == 1:
        index = xp.searchsorted(cumulative, target, side="right")
    else:
        index = (cumulative[..., None, :] <= target[..., :, None]).sum(axis=-1)
    return index.astype(xp.int64, copy=False)
