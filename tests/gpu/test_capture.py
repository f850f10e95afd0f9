"""What is captured into a graph follows the host: counts of steps, settings, random streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import philox
from pyframe.amp import grad_scaler
from pyframe.backend import _cpu, capture
from pyframe.errors import AutogradError, KernelError
from tests.doubles import strict as double
from tests.doubles.captured import Emulated
from tests.gpu.test_cuda import cupy  # noqa: F401  (a fixture)
from tests.gpu.test_optim_kernels import CASES

SHAPES = [(3,), (4, 5), (130,)]
RATES = [0.1, 0.1, 0.02, 0.02, 0.3]


def _optimizer(cls: type, options: dict, on_device: bool) -> tuple[Any, list]:
    random = np.random.default_rng(0)
    params = [
        pf.tensor(random.standard_normal(s).astype(np.float32), requires_grad=True) for s in SHAPES
    ]

    class Chosen(cls):  # type: ignore[misc]
        fused = {"cpu": cls.fused["cuda"]} if on_device else {}

    for p in params:
        p.grad = pf.zeros(p.shape)
    return Chosen(params, **options), params


def _new_gradients(params: list, step: int) -> None:
    for k, p in enumerate(params):
        p.grad.array[...] = np.random.default_rng([step, k]).standard_normal(p.shape)


def _values(optimizer: Any, params: list) -> list:
    states = [
        v.array for p in params for v in optimizer.state.get(p, {}).values() if hasattr(v, "array")
    ]
    return [p.detach().array.copy() for p in params] + [s.copy() for s in states]


@pytest.mark.parametrize(("cls", "options"), CASES)
def test_a_replayed_step_is_the_next_step(cls: type, options: dict) -> None:
    """With a learning rate that changes, and a step without the graph in between."""
    wanted, plain = _optimizer(cls, options, False)
    found, params = _optimizer(cls, options, True)
    graph = Emulated()
    for number, rate in enumerate(RATES):
        for optimizer, tensors in ((wanted, plain), (found, params)):
            optimizer.param_groups[0]["lr"] = rate
            _new_gradients(tensors, number)
        wanted.step()
        if number in (0, 3):
            found.step()
        else:
            if number == 1:
                before = _values(found, params)
                graph.capture(found.step)
                for a, b in zip(_values(found, params), before, strict=True):
                    np.testing.assert_array_equal(a, b, err_msg="capturing is no step")
            graph.replay()
    for a, b in zip(_values(found, params), _values(wanted, plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=3e-5)
    if found.counted:
        assert [float(found.state[p]["step"]) for p in params] == [5.0] * 3


def test_the_table_of_new_gradients_is_filled_after_the_capture() -> None:
    optimizer, (p, *_) = _optimizer(pf.optim.SGD, {"lr": 0.5}, True)
    optimizer.step()
    start, kept, graph = p.detach().array.copy(), [], Emulated()

    def step() -> None:
        for q in optimizer.param_groups[0]["params"]:
            q.grad = pf.ones(q.shape)  # as backward makes it, in the graph's own memory
            kept.append(q.grad)
        optimizer.step()

    graph.capture(step)
    for _ in range(2):
        graph.replay()
    np.testing.assert_allclose(p.detach().array, start - 1.0, rtol=1e-6)


def test_the_graph_keeps_what_its_kernels_read_by_address() -> None:
    optimizer, params = _optimizer(pf.optim.SGD, {"lr": 0.5}, True)
    optimizer.step()
    graph = Emulated()
    graph.capture(optimizer.step)
    rows, table, _ = graph.region.kept[-1]
    for p in params:  # steps beside the graph may lie elsewhere, and make another table
        p.grad = pf.ones(p.shape)
    optimizer.step()
    assert table.rows is not rows
    again = Emulated()
    array = again.capture(lambda: capture.constant(_cpu, np.arange(3)))
    assert any(kept is array for kept in again.region.kept)
    np.testing.assert_array_equal(array, np.arange(3))


def test_a_loaded_count_reaches_the_device() -> None:
    wanted, plain = _optimizer(pf.optim.Adam, {"lr": 0.1}, False)
    found, params = _optimizer(pf.optim.Adam, {"lr": 0.1}, True)
    for optimizer, tensors in ((wanted, plain), (found, params)):
        for number in range(3):
            _new_gradients(tensors, number)
            optimizer.step()
            for p in tensors:
                optimizer.state[p]["step"].fill_(10 * number)
    for a, b in zip(_values(found, params), _values(wanted, plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=3e-5)


SKIPPED = (1, 4)


@pytest.mark.parametrize(("cls", "options"), CASES)
def test_the_device_skips_steps_and_counts_those_that_are_made(cls: type, options: dict) -> None:
    """Against steps that are just left out, also with steps outside of the graph in between."""
    wanted, plain = _optimizer(cls, options, False)
    found, params = _optimizer(cls, options, True)
    graph, flag = Emulated(), np.zeros((), np.int32)
    for number in range(6):
        for tensors in (plain, params):
            _new_gradients(tensors, number)
        if number not in SKIPPED:
            wanted.step()
        if number in (0, 3):
            found.step()
            continue
        if number == 1:
            found.found_inf = flag
            graph.capture(found.step)
            found.found_inf = None
        flag[...] = number in SKIPPED
        graph.replay()
    found.state_dict()
    for a, b in zip(_values(found, params), _values(wanted, plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-5, atol=3e-5)
    if found.counted:
        assert [float(found.state[p]["step"]) for p in params] == [4.0] * 3


def test_counts_that_somebody_sets_while_the_device_counts() -> None:
    found, params = _optimizer(pf.optim.Adam, {"lr": 0.1}, True)
    found.step()
    graph, found.found_inf = Emulated(), np.zeros((), np.int32)
    graph.capture(found.step)
    found.found_inf = None
    graph.replay()
    graph.replay()
    assert found.state_dict()["state"][0]["step"] == 3
    for p in params:
        found.state[p]["step"].fill_(10)
    graph.replay()
    assert found.state_dict()["state"][0]["step"] == 11
    graph.replay()
    for p in params:
        found.state[p]["step"].fill_(20)
    found.step()
    assert found.state_dict()["state"][0]["step"] == 21


def test_a_scaled_step_is_captured() -> None:
    """What GradScaler hands to the optimizer; the scale follows on the device, as on a GPU."""
    optimizer, params = _optimizer(pf.optim.SGD, {"lr": 1.0}, True)
    scaler = pf.amp.GradScaler("cpu", init_scale=4.0)
    with pytest.raises(AutogradError, match=r"scale is made in the captured region.*warmup=1"):
        Emulated().capture(lambda: scaler.scale(pf.ones(())))
    for p in params:
        p.grad.fill_(4.0)
    scaler.scale(pf.ones(()))
    scaler.step(optimizer)
    scaler.update()
    before, graph, flags = params[0].detach().numpy().copy(), Emulated(), []
    with pytest.MonkeyPatch.context() as patch:
        # The emulator's stand-in for a graph notes launches: unscaling by NumPy would run at once.
        patch.setattr(grad_scaler, "_unscale", lambda grads, device, inverse, f: flags.append(f))
        graph.capture(lambda: scaler.step(optimizer))
    assert optimizer.found_inf is None
    for bad in (1, 0):
        flags[0][...] = bad
        graph.replay()
        expected = before if bad else before - params[0].grad.numpy()
        np.testing.assert_allclose(params[0].detach().numpy(), expected)


def test_an_optimizer_of_ones_own_is_not_captured_with_a_scaler() -> None:
    class Own(pf.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            raise AssertionError

    p = pf.ones(2, requires_grad=True)
    p.grad = pf.ones(2)
    optimizer, scaler = Own([p], {}), pf.amp.GradScaler("cpu")
    scaler.scale(pf.ones(()))
    with pytest.raises(AutogradError, match="Own cannot skip a step on the device"):
        Emulated().capture(lambda: scaler.step(optimizer))


@pytest.mark.parametrize(
    ("cls", "warm", "pattern"),
    [
        (pf.optim.Adam, False, r"Adam.step: its state is made in the captured.*warmup=1"),
        (pf.optim.NAdam, True, r"NAdam.step: its numbers lie on the host.*float32 or float64"),
    ],
)
def test_what_a_replay_would_do_wrong_is_refused(cls: type, warm: bool, pattern: str) -> None:
    p = pf.tensor([1.0, 2.0], requires_grad=True)
    p.grad = pf.ones(2)
    optimizer = cls([p])
    if warm:
        optimizer.step()
    with pytest.raises(KernelError, match=pattern):
        Emulated().capture(optimizer.step)
    optimizer.step()


def test_every_optimizer_can_be_captured() -> None:
    found = [getattr(pf.optim, name) for name in pf.optim.__all__ if name[0].isupper()]
    assert len(found) == 10
    assert [c for c in found if "cuda" not in getattr(c, "fused", ())] == [pf.optim.Optimizer]
    assert {c for c in found if c is not pf.optim.Optimizer} == {cls for cls, _ in CASES}


def test_gradients_are_clipped_in_a_graph() -> None:
    from pyframe.op import cuda_lists

    graph, arrays = Emulated(), [np.ones(9, np.float32), np.ones((4, 4), np.float32)]
    graph.capture(lambda: cuda_lists.clip(arrays, 1.0, cuda_lists.norm(arrays)))
    assert arrays[0][0] == 1
    for value in (3.0, 5.0):
        for a in arrays:
            a[...] = value
        graph.replay()
        for a in arrays:
            np.testing.assert_allclose(a, 0.2, rtol=1e-5)


# ---- random numbers


def test_dropout_draws_the_streams_that_it_would_draw_without_a_graph() -> None:
    x, g = pf.ones(500, requires_grad=True), pf.ones(500)

    def run() -> tuple:
        with pf.kernels("cuda"):
            y = pf.nn.functional.dropout(x, 0.5)
            z = pf.nn.functional.dropout(g, 0.25)
            (gx,) = pf.autograd.grad([y], [x], [g])
        return y, z, gx

    pf.manual_seed(5)
    wanted = [[t.detach().array.copy() for t in run()] for _ in range(4)]
    graph = Emulated()
    pf.manual_seed(5)
    state = pf.get_rng_state()
    out = graph.capture(run)
    assert np.array_equal(pf.get_rng_state(), state), "capturing draws nothing"
    for number in range(4):
        if number == 2:  # without the graph in between
            found = [t.detach().array for t in run()]
        else:
            graph.replay()
            found = [t.detach().array for t in out]
        for a, b in zip(found, wanted[number], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(wanted[0][0], wanted[1][0])
    pf.manual_seed(5)
    graph.replay()
    np.testing.assert_array_equal(out[0].detach().array, wanted[0][0])


def test_generators_have_streams_of_their_own() -> None:
    from pyframe.tensor.dispatch import draw

    one, two, graph = pf.Generator().manual_seed(1), pf.Generator().manual_seed(2), Emulated()
    x = np.zeros(3)
    found = graph.capture(lambda: [draw(x, g) for g in (one, two, two)])
    two.reserve()
    graph.replay()
    values = [(int(s.value()[0]), int(o.value()[0])) for s, o in found]
    assert values == [(1, 0), (2, 1), (2, 2)]
    assert (one.reserve()[1], two.reserve()[1]) == (1, 3)


@pytest.mark.parametrize("name", ["uniform", "normal"])
@pytest.mark.parametrize("seed", [3, (1 << 64) - 5])
def test_random_arrays_read_their_stream_on_the_device(name: str, seed: int) -> None:
    words = double.to_strict(np.array([seed, (1 << 63) + 7], np.uint64))
    key, offset = capture.OnDevice(words, 0, 0), capture.OnDevice(words, 1, 2)
    found = getattr(philox, name)(double.strict, key, offset, (7, 3), "float32")
    expected = getattr(philox, name)(np, seed, (1 << 63) + 9, (7, 3), "float32")
    np.testing.assert_allclose(double.from_strict(found), expected, rtol=1e-6, atol=1e-7)


# ---- pyframe.cuda.Graph


def test_a_graph_prepares_before_each_replay(cupy: Any) -> None:  # noqa: F811
    graph, log = pf.cuda.Graph(), []

    def region() -> None:
        captured = capture.current()
        if captured is not None:
            captured.at_end.append(lambda: log.append("end"))
            captured.before_replay.append(lambda: log.append("before"))

    graph.capture(region)
    assert log == ["end"] and capture.current() is None
    mark = len(cupy.log)
    graph.replay()
    graph.replay()
    assert log == ["end", "before", "before"] and cupy.log[mark:] == ["replay"] * 2


def test_a_capture_that_fails_is_left(cupy: Any) -> None:  # noqa: F811
    with pytest.raises(ZeroDivisionError):
        pf.cuda.Graph().capture(lambda: 1 / 0, warmup=0)
    assert capture.current() is None
