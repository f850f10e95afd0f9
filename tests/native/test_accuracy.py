"""The error of the vector machine's float32 functions, in units in the last place, against float64.

The normal test looks at every 65,521st of all float32 numbers, with ``CI=true`` at every 2,039th,
and with ``PYFRAME_ALL_FLOATS=1`` at every one (about an hour). docs/accuracy.md has the table.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyframe.backend import native
from pyframe.expr import PRIMITIVES, trace
from pyframe.expr.node import call
from pyframe.tensor.pointwise_native import run_on
from tests import sweeps

if not native.available():
    pytest.skip(f"no native extension: {native.why_not()}", allow_module_level=True)
special = pytest.importorskip("scipy.special")

STEP = (*sweeps.in_ci([2_039], "a denser sample of all float32 values"), 65_521)[0]
if os.environ.get("PYFRAME_ALL_FLOATS"):
    STEP = 1
CHUNK = 1 << 20

# The most units in the last place by which a float32 result may differ from the exact one.
SINGLE: dict[str, tuple[float, Callable]] = {
    "exp": (1.5, np.exp),
    "exp2": (1.0, np.exp2),
    "expm1": (2.1, np.expm1),
    "log": (0.9, np.log),
    "log2": (0.51, np.log2),
    "log10": (0.51, np.log10),
    "log1p": (1.5, np.log1p),
    "sqrt": (0.51, np.sqrt),
    "rsqrt": (1.5, lambda x: 1 / np.sqrt(x)),
    "sin": (0.51, np.sin),
    "cos": (0.51, np.cos),
    "tan": (0.51, np.tan),
    "sinh": (0.51, np.sinh),
    "cosh": (0.51, np.cosh),
    "tanh": (2.5, np.tanh),
    "asin": (0.51, np.arcsin),
    "acos": (0.51, np.arccos),
    "atan": (0.51, np.arctan),
    "asinh": (0.51, np.arcsinh),
    "acosh": (0.51, np.arccosh),
    "atanh": (0.51, np.arctanh),
    "sigmoid": (2.5, special.expit),
    "softplus": (2.0, lambda x: np.logaddexp(0, x)),
    "erf": (1.2, special.erf),
    "erfc": (1.0, np.vectorize(math.erfc, otypes=[np.float64])),
    "erfinv": (1.0, special.erfinv),
}
# The same for float64, in relative terms (units of 2**-52), against scipy and NumPy's own libm.
DOUBLE = {name: (6.0, function) for name, (_, function) in SINGLE.items()}
_NO_FMA = 1.5  # factor for levels without fused multiply-add


def _errors(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Units in the last place of float32; infinite where only one of both is a number."""
    size = np.clip(np.abs(exact), 2.0**-126, 3.4e38)
    unit = np.exp2(np.floor(np.log2(size)) - 23)
    rounded = exact.astype(np.float32)
    same = (found == rounded) | (np.isnan(found) & np.isnan(exact))
    same |= (np.abs(exact) >= 3.4028234e38) & np.isinf(found)
    error = np.abs(found.astype(np.float64) - exact) / unit
    return np.where(same, np.minimum(np.nan_to_num(error), 0.5), np.nan_to_num(error, nan=np.inf))


@pytest.mark.parametrize("name", SINGLE)
def test_float32_functions_are_within_their_stated_error(name: str) -> None:
    bound, reference = SINGLE[name]
    bound *= 1.0 if native.isa() not in ("baseline",) else _NO_FMA
    function = trace(lambda a: call(PRIMITIVES[name], a))
    for start in range(0, 1 << 32, CHUNK * STEP):
        bits = np.arange(start, min(start + CHUNK * STEP, 1 << 32), STEP, dtype=np.uint64)
        x = bits.astype(np.uint32).view(np.float32)
        found = run_on(function, (x,), ())
        with np.errstate(all="ignore"):
            error = _errors(found, reference(x.astype(np.float64)))
        worst = int(error.argmax())
        assert error[worst] <= bound, (
            f"{name}({x[worst]!r}) is {found[worst]!r}: {error[worst]} ULP"
        )


@pytest.mark.parametrize("name", DOUBLE)
def test_float64_functions_agree_with_numpy(name: str) -> None:
    bound, reference = DOUBLE[name]
    function = trace(lambda a: call(PRIMITIVES[name], a))
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(size=20_001), 10.0 ** rng.uniform(-30, 3, 20_001), rng.random(9_999)]
    )
    x = np.concatenate([x, -x])
    found = run_on(function, (x,), ())
    with np.errstate(all="ignore"):
        expected = reference(x)
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        error = np.where(same, 0, np.abs(found - expected) / np.abs(expected) * 2.0**52)
        error = np.where(np.abs(expected) < 1e-300, 0, error)
    worst = int(np.nan_to_num(error, nan=np.inf).argmax())
    assert error[worst] <= bound, f"{name}({x[worst]!r}) is {found[worst]!r}, {error[worst]} off"


POWER = 0.51


def test_float32_powers_are_within_their_stated_error() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 1 << 31, 300_000).astype(np.uint32).view(np.float32)
    base[::3] = np.exp(rng.normal(size=100_000)).astype(np.float32)
    exponent = rng.normal(size=base.size).astype(np.float32) * 40
    exponent[1::4] = np.round(exponent[1::4])
    near = 1 + rng.normal(size=base.size) * 1e-5
    base[::5] = near[::5]
    exponent[::5] = exponent[::5] * 30_000
    base[::7] = -base[::7]
    with np.errstate(all="ignore"):
        exact = np.power(base.astype(np.float64), exponent.astype(np.float64))
        error = _errors(run_on(trace(lambda a, b: a**b), (base, exponent), ()), exact)
    worst = int(error.argmax())
    assert error[worst] <= POWER, f"{base[worst]!r} ** {exponent[worst]!r}: {error[worst]} ULP"


def test_the_documented_table_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([0-9.]+) \|", text, re.MULTILINE)
    assert {name: float(bound) for name, bound in rows} == {
        **{name: bound for name, (bound, _) in SINGLE.items()},
        "pow": POWER,
    }
