"""Philox streams: known answers, layout, distributions, the same bits in every array module."""

from __future__ import annotations

import math
import warnings

import ml_dtypes
import numpy as np
import pytest

from pyframe import philox
from pyframe.errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from tests.doubles.strict import from_strict, strict, to_strict

# Random123 1.14, tests/kat_vectors, lines "philox4x32 10": counter, key, result.
KNOWN = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

MODULES = [pytest.param(np, id="numpy"), pytest.param(strict, id="strict")]


@pytest.fixture(autouse=True)
def portable(monkeypatch):
    """The native generator is tested against this one in tests/native/test_random.py."""
    monkeypatch.setattr(philox, "fast", None)


def scalar_philox(counter, key):
    """The definition, one block in Python ints: independent of the vectorised form."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (p1 >> 32) ^ c1 ^ k0,
            p1 & 0xFFFFFFFF,
            (p0 >> 32) ^ c3 ^ k1,
            p0 & 0xFFFFFFFF,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def word(seed, offset, i):
    j = i // 4
    low = 0xFFFFFFFF
    return scalar_philox((j & low, j >> 32, offset & low, offset >> 32), (seed & low, seed >> 32))[
        i % 4
    ]


@pytest.mark.parametrize("xp", MODULES)
@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(xp, counter, key, result):
    first = xp.asarray([counter[0]], dtype=xp.uint32)
    words = from_strict(philox.philox4x32(xp, first, *counter[1:], *key))
    assert tuple(int(w[0]) for w in words) == result == scalar_philox(counter, key)
    assert all(w.dtype == np.uint32 and w.shape == (1,) for w in words)


def test_counters_broadcast():
    words = philox.philox4x32(
        np, np.arange(3, dtype=np.uint32)[:, None], np.arange(2, dtype=np.uint32), 7, 8, 9, 10
    )
    for i in range(3):
        for j in range(2):
            assert tuple(int(w[i, j]) for w in words) == scalar_philox((i, j, 7, 8), (9, 10))


@pytest.mark.parametrize("seed", [0, 1, 0x123456789ABCDEF0, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 5, 0xFEDCBA9876543210, 2**64 - 1])
def test_any_word_can_be_computed_alone(seed, offset):
    n = 4 * philox._COUNTERS + 9  # crosses a block
    stream = philox.bits(np, seed, offset, n)
    for i in (0, 1, 2, 3, 4, 7, 30, n - 10, n - 9, n - 8, n - 1):
        assert int(stream[i]) == word(seed, offset, i), i


def test_words_beyond_32_bit_counters():
    stream = philox._Stream(np, 3, 4, 2)
    out = np.empty((2, 4), np.uint32)
    stream.write(2**32 - 1, out)
    assert out.reshape(-1).tolist() == [word(3, 4, 4 * (2**32 - 1) + i) for i in range(8)]


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1000])
def test_a_shorter_stream_is_a_prefix(n):
    assert np.array_equal(philox.bits(np, 1, 2, n), philox.bits(np, 1, 2, 2000)[:n])


def test_seed_and_offset_count_modulo_2_64():
    assert np.array_equal(philox.bits(np, -1, -2, 9), philox.bits(np, 2**64 - 1, 2**64 - 2, 9))


def test_streams_do_not_share_blocks():
    """No 128-bit block of output appears twice among nearby seeds, offsets and counters."""
    blocks = np.concatenate(
        [
            philox.bits(np, seed, offset, 4 * 512).reshape(-1, 4)
            for seed in (0, 1, 2**32)
            for offset in (0, 1, 2**32)
        ]
    )
    assert len(np.unique(blocks, axis=0)) == len(blocks)


def test_streams_are_uncorrelated():
    n = 1 << 16
    streams = [
        philox.uniform(np, seed, offset, n, "float64") - 0.5
        for seed, offset in [(0, 0), (0, 1), (1, 0), (2**32, 0), (0, 2**32)]
    ]
    streams.append(np.roll(streams[0], 1))
    correlation = np.corrcoef(np.stack(streams)) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / math.sqrt(n)


DRAWS = {
    "bits": lambda xp, n: philox.bits(xp, 3, 4, n),
    **{
        f"{name}-{dtype}": (lambda xp, n, f=name, d=dtype: getattr(philox, f)(xp, 3, 4, (n,), d))
        for name in ("uniform", "normal", "exponential")
        for dtype in ("float16", "bfloat16", "float32", "float64")
    },
    **{
        f"randint-{low}-{high}-{dtype}": (
            lambda xp, n, a=low, b=high, d=dtype: philox.randint(xp, 3, 4, a, b, n, d)
        )
        for low, high, dtype in [
            (0, 10, "int64"),
            (-5, 5, "int8"),
            (0, 256, "uint8"),
            (0, 2, "bool"),
            (-(2**63), 2**63, "int64"),
            (-(2**62), 2**62 + 12345, "int64"),
            (0, 2**32, "int64"),
            (0, 2**32 + 1, "int64"),
            (0, 100, "float32"),
        ]
    },
    "bernoulli": lambda xp, n: philox.bernoulli_mask(xp, 3, 4, n, 0.3),
    "permutation": lambda xp, n: philox.permutation(xp, 3, 4, n),
}


@pytest.mark.parametrize("n", [0, 1, 7, 1001])
@pytest.mark.parametrize("name", DRAWS)
def test_strict_module_gives_the_same_bits(name, n):
    a, b = DRAWS[name](np, n), from_strict(DRAWS[name](strict, n))
    assert a.dtype == b.dtype
    assert a.shape == b.shape == (n,)
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", [name for name in DRAWS if name != "permutation"])
def test_blockwise_work_changes_no_value(name, monkeypatch):
    n = 4001
    whole = DRAWS[name](np, n)
    monkeypatch.setattr(philox, "_COUNTERS", 64)
    assert whole.tobytes() == DRAWS[name](np, n).tobytes()


def test_no_warning_and_no_floating_point_error():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for draw in DRAWS.values():
            draw(np, 100_000)


# ------------------------------------------------------------------------------- values


def ks_statistic(values, cdf):
    """Kolmogorov and Smirnov's distance, times sqrt(n): below 1.95 with probability 0.999."""
    x = np.sort(np.asarray(values, np.float64))
    n = len(x)
    c = cdf(x)
    upper = np.max(np.arange(1, n + 1) / n - c)
    lower = np.max(c - np.arange(n) / n)
    return max(upper, lower) * math.sqrt(n)


def normal_cdf(x):
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("draw", "cdf"),
    [
        (philox.uniform, lambda x: x),
        (philox.normal, normal_cdf),
        (philox.exponential, lambda x: 1 - np.exp(-x)),
    ],
    ids=["uniform", "normal", "exponential"],
)
def test_distribution(draw, cdf, dtype):
    for seed in range(3):
        assert ks_statistic(draw(np, seed, 0, 100_000, dtype), cdf) < 1.95


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_moments(dtype):
    n = 200_000
    x = philox.normal(np, 11, 0, n, dtype).astype(np.float64)
    spread = 5 / math.sqrt(n)
    assert abs(x.mean()) < spread
    assert abs(x.var() - 1) < 2 * spread
    assert abs((x**3).mean()) < 4 * spread
    assert abs((x**4).mean() - 3) < 10 * spread
    assert abs((x[0::2] * x[1::2]).mean()) < 2 * spread  # the two of a pair
    u = philox.uniform(np, 11, 0, n, dtype).astype(np.float64)
    resolution = 2.0 ** -{"float16": 12, "bfloat16": 9}.get(dtype, 24)  # rounded down
    assert abs(u.mean() + resolution - 0.5) < spread
    assert abs(u.var() - 1 / 12) < spread


@pytest.mark.parametrize(
    ("dtype", "b"), [("float32", 24), ("float16", 11), ("bfloat16", 8), ("float64", 53)]
)
def test_uniform_is_exact_and_below_one(dtype, b, monkeypatch):
    words = philox.bits(np, 5, 6, 2000)
    u = philox.uniform(np, 5, 6, 1000, dtype)
    if b == 53:
        pairs = words.reshape(-1, 2).astype(object)
        expected = [((hi << 32 | lo) >> 11) / 2**53 for lo, hi in pairs]
    else:
        expected = [(int(w) >> (32 - b)) / 2**b for w in words[:1000]]
    assert u.astype(np.float64).tolist() == expected
    # The largest word gives the largest number below one, zero gives zero.
    for fill, value in ((0xFFFFFFFF, 1 - 2.0**-b), (0, 0.0)):
        monkeypatch.setattr(
            philox, "bits", lambda xp, s, o, n, fill=fill: np.full(n, fill, np.uint32)
        )
        assert philox.uniform(np, 0, 0, 2, dtype).astype(np.float64).tolist() == [value, value]


@pytest.mark.parametrize("fill", [0, 0xFFFFFFFF])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_extreme_words_give_finite_numbers(dtype, fill, monkeypatch):
    monkeypatch.setattr(philox, "bits", lambda xp, s, o, n: np.full(n, fill, np.uint32))
    with np.errstate(all="raise"):
        z = philox.normal(np, 0, 0, 4, dtype).astype(np.float64)
        e = philox.exponential(np, 0, 0, 4, dtype).astype(np.float64)
    assert np.isfinite(z).all()
    assert np.isfinite(e).all()
    assert (e > 0).all()
    if fill == 0 and dtype == "float32":
        assert z[0] == pytest.approx(math.sqrt(2 * 33 * math.log(2)), rel=1e-6)


def test_normal_pairs_follow_the_formula():
    w = philox.bits(np, 1, 2, 64).astype(np.float64)
    u, v = w[0::2] * 2.0**-32 + 2.0**-33, np.floor(w[1::2] / 256) * 2.0**-24
    radius = np.sqrt(-2 * np.log(u))
    expected = np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)], 1)
    assert np.allclose(philox.normal(np, 1, 2, (4, 16)).reshape(-1, 2), expected, atol=2e-6)
    odd = philox.normal(np, 1, 2, 7)
    assert np.array_equal(odd, philox.normal(np, 1, 2, 8)[:7])


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (0, 6), (-7, 9), (0, 2**32 - 1), (0, 2**32), (0, 2**33 + 7), (5, 2**63)],
)
def test_randint_follows_the_formula(low, high):
    pairs = philox.bits(np, 8, 9, 2000).reshape(-1, 2).astype(object)
    expected = [low + (((hi << 32 | lo) * (high - low)) >> 64) for lo, hi in pairs]
    assert philox.randint(np, 8, 9, low, high, 1000).tolist() == expected


def test_randint_of_every_int64():
    pairs = philox.bits(np, 8, 9, 40).reshape(-1, 2).astype(object)
    expected = [-(2**63) + (hi << 32 | lo) for lo, hi in pairs]
    assert philox.randint(np, 8, 9, -(2**63), 2**63, 20).tolist() == expected


def test_randint_is_uniform():
    counts = np.bincount(philox.randint(np, 2, 0, 0, 10, 100_000), minlength=10)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 27.9  # chi-square, 9 degrees, p = 0.001


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.1, 0.5, 0.9, 1.0])
def test_bernoulli(p):
    n = 100_000
    mask = philox.bernoulli_mask(np, 1, 1, n, p)
    assert mask.dtype == np.bool_
    assert abs(mask.mean() - p) <= 4 * math.sqrt(p * (1 - p) / n) + 1e-12
    assert np.array_equal(mask, philox.bits(np, 1, 1, n) < round(p * 2**32))


def test_permutation():
    p = philox.permutation(np, 1, 0, 1000)
    assert p.dtype == np.int64
    assert np.array_equal(np.sort(p), np.arange(1000))
    orders = {tuple(philox.permutation(np, 1, offset, 3).tolist()) for offset in range(100)}
    assert len(orders) == 6


@pytest.mark.parametrize("xp", MODULES)
def test_categorical(xp):
    weights = np.array([0.0, 1.0, 3.0, 0.0, 4.0, 0.0], np.float32)
    draw = philox.categorical(xp, 1, 2, xp.asarray(weights), 40_000)
    x = from_strict(draw)
    counts = np.bincount(x, minlength=6)
    assert x.dtype == np.int64
    assert np.array_equal(counts > 0, weights > 0)
    assert np.allclose(counts / 40_000, weights / 8, atol=0.01)
    rows = from_strict(philox.categorical(xp, 1, 2, xp.asarray(np.stack([weights] * 2)), 20_000))
    assert np.array_equal(rows.reshape(-1), x)  # one uniform number per sample in either form


@pytest.mark.parametrize("xp", MODULES)
def test_categorical_without_replacement(xp):
    weights = xp.asarray(np.tile(np.array([1.0, 2.0, 5.0]), (20_000, 1)))
    x = from_strict(philox.categorical(xp, 1, 2, weights, 2, replacement=False))
    assert x.shape == (20_000, 2)
    assert (x[:, 0] != x[:, 1]).all()
    assert np.allclose(np.bincount(x[:, 0]) / 20_000, [1 / 8, 2 / 8, 5 / 8], atol=0.01)
    second = x[x[:, 0] == 2, 1]
    assert np.allclose(np.bincount(second) / len(second), [1 / 3, 2 / 3], atol=0.02)


def test_shapes_and_dtypes():
    assert philox.uniform(np, 0, 0, ()).shape == ()
    assert philox.uniform(np, 0, 0, np.int64(3)).shape == (3,)
    assert isinstance(philox.uniform(np, 0, 0, ()), np.ndarray)
    assert philox.normal(np, 0, 0, (3, 0, 2)).shape == (3, 0, 2)
    assert philox.uniform(np, 0, 0, 5, ml_dtypes.bfloat16).dtype == ml_dtypes.bfloat16
    assert philox.randint(np, 0, 0, 0, 5, [2, 2], "uint8").dtype == np.uint8
    assert philox.normal(np, 0, 0, (2, 3)).flags.writeable


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: philox.bits(np, 0, 0, -1), ArgumentError),
        (lambda: philox.uniform(np, 0, 0, 3, "int64"), DtypeError),
        (lambda: philox.normal(np, 0, 0, 3, "bool"), DtypeError),
        (lambda: philox.exponential(np, 0, 0, 3, "uint8"), DtypeError),
        (lambda: philox.uniform(np, 0, 0, (2, -1)), ShapeError),
        (lambda: philox.bernoulli_mask(np, 0, 0, (-1,), 1.0), ShapeError),
        (lambda: philox.randint(np, 0, 0, 3, 3, 1), ArgumentError),
        (lambda: philox.randint(np, 0, 0, 0, 257, 1, "uint8"), ArgumentError),
        (lambda: philox.randint(np, 0, 0, -1, 5, 1, "uint8"), ArgumentError),
        (lambda: philox.randint(np, 0, 0, 0, 2**63 + 1, 1), ArgumentError),
        (lambda: philox.randint(np, 0, 0, 0, 2.5, 1), ArgumentTypeError),
        (lambda: philox.randint(np, 0, 0, 0, 65506, 1, "float16"), ArgumentError),
        (lambda: philox.bernoulli_mask(np, 0, 0, 3, 1.5), ArgumentError),
        (lambda: philox.bernoulli_mask(np, 0, 0, 3, math.nan), ArgumentError),
        (lambda: philox.permutation(np, 0, 0, -1), ArgumentError),
        (lambda: philox.categorical(np, 0, 0, np.float64(1.0), 1), ShapeError),
        (lambda: philox.categorical(np, 0, 0, np.ones(0), 1), ArgumentError),
        (lambda: philox.categorical(np, 0, 0, np.ones(3), 4, False), ArgumentError),
    ],
)
def test_errors(call, error):
    with pytest.raises(error):
        call()


def test_strict_arrays_never_leave_the_module():
    x = philox.normal(strict, 0, 0, (2, 3))
    assert type(x) is type(to_strict(np.zeros(1)))
