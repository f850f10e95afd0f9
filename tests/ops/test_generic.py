"""Every op × sample × dtype × implementation, derived from the op records."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import pyframe as pf
from pyframe import testing
from pyframe.op.registry import ops
from pyframe.op.samples import Maker
from pyframe.testing.cuda_prebuild import prebuild_cases
from pyframe.testing.op_checks import call, compare, errors_of, mapped
from tests import sweeps
from tests.doubles import strict as double

OWN = [op for op in ops.values() if op.module.startswith("pyframe.ops")]


def _cases(dtype: str) -> list:
    return [
        pytest.param(case, id=case.id)
        for op in OWN
        if np.dtype(pf.dtypes.as_dtype(dtype)) in op.dtypes
        for case in testing.cases(op, dtype)
    ]


ALL = [c for d in pf.dtypes.ALL for c in _cases(d.name)]
DOUBLE = _cases("float64")


@pytest.mark.parametrize("case", ALL)
def test_forward_agrees_with_the_float64_reference(case: testing.Case) -> None:
    testing.check_forward(case)


@pytest.mark.parametrize("case", _cases("float32"))
def test_layouts_do_not_matter(case: testing.Case) -> None:
    testing.check_layouts(case)


@pytest.mark.parametrize("case", _cases("float32"))
def test_the_forward_runs_on_the_strict_array_module(case: testing.Case) -> None:
    """What runs there runs on CuPy and never looks at a value."""
    op, sample = case.op, case.sample
    with pf.kernels("portable"):
        expected = call(op, sample.arrays, sample.params)
        arrays = mapped(sample.arrays, double.to_strict)
        outputs = [double.from_strict(o) for o in call(op, arrays, sample.params)]
    for o, e in zip(outputs, expected, strict=True):
        assert o.dtype == e.dtype and o.shape == e.shape
        if not np.array_equal(o, e, equal_nan=o.dtype.kind in "fV"):
            compare(case, outputs, "strict array module")


@pytest.mark.parametrize("case", _cases("float32"))
def test_the_gradient_runs_on_the_strict_array_module(
    case: testing.Case, strict_device: pf.device
) -> None:
    op, sample = case.op, case.sample
    if op.vjp is None:
        return  # nothing to differentiate; counted by the meta-test below

    def run(wrap: object) -> list:
        tensors = [
            None if a is None else [wrap(x) for x in a] if isinstance(a, list) else wrap(a)
            for a in sample.arrays
        ]
        flat = [t for a in tensors for t in (a if isinstance(a, list) else [a]) if t is not None]
        leaves = [t.requires_grad_() for t in flat if t.is_floating_point()]
        outputs = op.function(*tensors, **sample.params)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        outputs = [o for o in outputs if o.requires_grad]
        if not outputs:
            return []
        seeds = [wrap(Maker("float32", k)(*o.shape)) for k, o in enumerate(outputs)]
        found = pf.autograd.grad(outputs, leaves, seeds, allow_unused=True)
        return [None if g is None else g.array for g in found]

    with pf.kernels("portable"):
        plain = run(lambda a: pf.from_numpy(a.copy()))
        strict = run(lambda a: pf.tensor_on(double.to_strict(a), strict_device))
    for s, p in zip(strict, plain, strict=True):
        assert (s is None) == (p is None)
        if p is not None:
            s = double.from_strict(s)
            assert s.dtype == p.dtype and s.shape == p.shape
            np.testing.assert_allclose(
                s, p, rtol=1e-4, atol=1e-4 * max(1, np.abs(p).max(initial=0))
            )


@pytest.mark.parametrize("case", DOUBLE)
def test_first_derivatives_agree_with_central_differences(case: testing.Case) -> None:
    testing.check_gradient(case)


@pytest.mark.parametrize("case", DOUBLE)
def test_second_derivatives_agree_with_central_differences(case: testing.Case) -> None:
    testing.check_double_gradient(case)


@pytest.fixture(scope="session")
def prebuilt(request: pytest.FixtureRequest) -> None:
    """CUDA kernels of the chosen pointwise cases, compiled for the emulator in a few files."""
    chosen = [getattr(item, "callspec", None) for item in request.session.items]
    found = [c.params for c in chosen if c is not None and c.params.get("kernel") == "cuda"]
    prebuild_cases([params["case"] for params in found])


def _emulated(case: testing.Case, every: int = 4) -> bool:
    """Whether the emulators run a GPU's kernels on this sample: always, or with less in ``every``.

    On all in float32 and on every fourth in another dtype, for which a kernel is the same template;
    of each op and dtype at least one, and others for each dtype.
    """
    if case.dtype == pf.float32:
        return True
    first = pf.dtypes.ALL.index(case.dtype) % COUNTS[case.op.name, case.dtype]
    return case.number % every == first % every


COUNTS = Counter((c.values[0].op.name, c.values[0].dtype) for c in ALL)


def _kernels(kind: str, chosen: list) -> list:
    return [
        pytest.param(c.values[0], k.name, id=f"{c.id}-{k.name}")
        for c in chosen
        for k in c.values[0].op.kernels.get(kind, ())
    ]


def _emulated_kernels() -> list:
    """On CPU arrays, a GPU's kernels run in their emulators: twice as many samples in CI."""
    parts: list[list] = [[], [], []]
    for c in ALL:
        case = c.values[0]
        parts[0 if _emulated(case) else 1 if _emulated(case, 2) else 2].append(c)
    always, more, rest = (_kernels("cuda", part) for part in parts)
    more = sweeps.in_ci(more, "emulated kernels, more samples in other dtypes than float32")
    return always + more + sweeps.in_sweeps(rest, "emulated kernels, all samples in all dtypes")


@pytest.mark.usefixtures("prebuilt")
@pytest.mark.parametrize(("case", "kernel"), _kernels("cpu", ALL) + _emulated_kernels())
def test_kernels_are_no_worse_than_the_portable_forward(case: testing.Case, kernel: str) -> None:
    testing.check_kernel(case, kernel)


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in OWN])
def test_error_inputs_raise_what_is_documented(op: object) -> None:
    if op.errors is None:
        assert op.expr is not None or not op.check, (
            f"{op.name} checks its inputs but lists no errors"
        )
        return
    for failing in op.errors(Maker("float32")):
        arrays = [pf.from_numpy(a) if isinstance(a, np.ndarray) else a for a in failing.arrays]
        arrays = [[pf.from_numpy(x) for x in a] if isinstance(a, list) else a for a in arrays]
        for given in (failing.arrays, arrays):
            with pytest.raises(failing.error, match=failing.pattern) as caught:
                op.function(*given, **failing.params)
            assert isinstance(caught.value, pf.errors.PyframeError)


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in OWN])
def test_records_are_complete(op: object) -> None:
    assert op.samples is not None, "no samples"
    assert op.reference is not None, "no float64 reference"
    assert op.doc or not op.export, "public, but not documented"
    assert list(op.samples(Maker("float32"))), "an empty list of samples"


def test_every_op_is_emulated_in_every_dtype() -> None:
    found = {(c.values[0].op.name, c.values[0].dtype) for c in ALL if _emulated(c.values[0])}
    assert found == set(COUNTS)


def test_there_are_enough_cases() -> None:
    layouts = 3 * len(_cases("float32"))
    strict = 2 * len(_cases("float32"))
    assert len(ALL) + layouts + strict + 2 * len(DOUBLE) >= 2500


def test_errors_of_is_zero_for_the_rounded_reference() -> None:
    case = next(testing.cases(ops["mul"], "float32"))
    exact = case.op.reference(*[a.astype(np.float64) for a in case.sample.arrays])
    assert errors_of(case, [np.asarray(exact, np.float32)])[0].max(initial=0) <= 1
