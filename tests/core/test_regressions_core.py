"""Cases that once went wrong in the core; each is checked by value, many against PyTorch."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.autograd import Function
from pyframe.errors import ArgumentError, ArgumentTypeError, DeviceError
from pyframe.op import Op
from pyframe.op.registry import ops
from pyframe.tensor import pointwise, register
from tests.core.regressions import BOTH, leaf

_numbers = iter(range(1000))


@pytest.fixture
def fresh() -> Any:
    """Makes ops under names that are free again afterwards."""
    known = set(ops)

    def make(forward: Any, vjp: Any = None, **fields: Any) -> Any:
        fields.setdefault("export", ())
        name = f"regression{next(_numbers)}"
        return register(Op(name, forward=forward, vjp=vjp, **fields))

    yield make
    for name in set(ops) - known:
        del ops[name]


# ---- gradients own their memory


@BOTH
@pytest.mark.filterwarnings("ignore:Using backward.*create_graph")
def test_differentiable_gradients_of_two_leaves_are_two_tensors(m: Any) -> None:
    a, b = leaf(m, 1.0), leaf(m, 1.0)
    v = m.ones(1)
    (a + b).backward(v, create_graph=True)
    (a + b).backward(v)
    assert a.grad.tolist() == b.grad.tolist() == [2.0]
    assert v.tolist() == [1.0]
    a.grad = b.grad = None  # frees the cycle of create_graph


@BOTH
def test_kept_gradients_share_no_memory(m: Any) -> None:
    x = leaf(m, 1.0)
    a, b = x * 2, x * 3
    y = a + b
    for t in (a, b, y):
        t.retain_grad()
    v = m.ones(1)
    y.backward(v)
    a.grad.mul_(5)
    assert [t.grad.tolist() for t in (a, b, y)] == [[5.0], [1.0], [1.0]]
    assert v.tolist() == [1.0]


def test_a_rule_may_return_one_array_and_a_view_of_it(fresh: Any) -> None:
    def rule(g: Any) -> tuple:
        h = g * 1
        return h, h.reshape(2)

    add = fresh(lambda xp, a, b: a + b, rule)
    for first, second in ((0, 1), (1, 0)):
        x = [leaf(pf, 1.0, 2.0), leaf(pf, 3.0, 4.0)]
        y = [t * 1 for t in x]
        # A second gradient is added to one of the two, which must leave the other as it is.
        total = add(*y) + (y[first] * 10)
        total.sum().backward()
        assert x[first].grad.tolist() == [11, 11] and x[second].grad.tolist() == [1, 1]


def test_a_rule_of_several_outputs_may_return_its_cotangent(fresh: Any) -> None:
    both = fresh(
        lambda xp, x: (x + 0, x * 2),
        lambda g_p, g_q: (g_p,),
        outputs=("p", "q"),
    )
    x = leaf(pf, 1.0)
    h = x * 1
    p, q = both(h)
    v = pf.ones(1)
    pf.autograd.backward([p, q, h * 7], [v, pf.ones(1), pf.ones(1)])
    assert x.grad.tolist() == [8.0]
    assert v.tolist() == [1.0]


def test_a_rule_may_return_a_numpy_scalar(fresh: Any) -> None:
    spread = fresh(lambda xp, x: x * xp.ones(3, x.dtype), {"x": lambda g: g.sum()})
    x = pf.tensor(2.0, requires_grad=True)
    spread(x).sum().backward()
    assert x.grad.array.__class__ is np.ndarray and x.grad.item() == 3


# ---- hooks and kept gradients


@BOTH
def test_the_kept_gradient_is_what_hooks_leave(m: Any) -> None:
    x = leaf(m, 1.0)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    y.sum().backward()
    assert y.grad.tolist() == [10.0] and x.grad.tolist() == [20.0]


@BOTH
def test_the_kept_gradient_follows_an_in_place_op(m: Any) -> None:
    x = leaf(m, 1.0, 2.0)
    y = x * 2
    y.retain_grad()
    y.mul_(3)
    y[0] = 0.0
    y.sum().backward()
    assert y.retains_grad
    assert y.grad.tolist() == [1.0, 1.0] and x.grad.tolist() == [0.0, 6.0]


@BOTH
def test_retain_grad_needs_a_graph(m: Any) -> None:
    with pytest.raises(RuntimeError):
        m.ones(1).retain_grad()


def test_a_hook_must_return_a_tensor() -> None:
    x = leaf(pf, 1.0)
    y = x * 2
    y.register_hook(lambda g: 5)
    with pytest.raises(ArgumentTypeError, match="hook: it must return a Tensor or None, not int"):
        y.sum().backward()


# ---- which passes run, and where gradients go


@BOTH
def test_what_saved_no_arrays_can_be_passed_twice(m: Any) -> None:
    x = leaf(m, 1.0, 2.0)
    y = (x.reshape(2, 1).expand(2, 3) + 1).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [6.0, 6.0]
    z = (x * x).sum()
    z.backward()
    with pytest.raises(RuntimeError):
        z.backward()


@BOTH
def test_backward_into_chosen_leaves_accumulates_in_place(m: Any) -> None:
    x, seen = leaf(m, 1.0), []
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    (x * 2).backward()
    kept = x.grad
    (x * 2).backward(inputs=[x, x])
    assert x.grad is kept and kept.tolist() == [4.0] and seen == [2.0, 4.0]


@BOTH
def test_empty_inputs_are_refused(m: Any) -> None:
    x = leaf(m, 1.0)
    with pytest.raises(RuntimeError, match="empty"):
        (x * 2).backward(inputs=[])
    with pytest.raises(RuntimeError, match="empty"):
        m.autograd.grad(x * 2, [])


# ---- writes


@BOTH
def test_a_view_made_to_require_grad_is_a_leaf(m: Any) -> None:
    w = m.zeros(4).view(2, 2).requires_grad_()
    for write in (lambda: w.add_(1), lambda: w.view(4).add_(1), lambda: w.__setitem__(0, 1.0)):
        with pytest.raises(RuntimeError, match="leaf"):
            write()


@BOTH
def test_a_result_of_another_dtype_is_stored_with_its_gradient(m: Any) -> None:
    x = m.ones(3, dtype=m.float64, requires_grad=True)
    for write in ("add_", "sub_", "mul_", "div_"):
        x.grad = None
        y = m.ones(3)
        getattr(y, write)(x)
        y.sum().backward()
        assert x.grad.dtype == m.float64 and abs(x.grad[0].item()) == 1


@BOTH
def test_writing_into_an_integer_tensor_is_not_recorded(m: Any) -> None:
    x = leaf(m, 2.0, 3.0)
    mask, numbers = m.zeros(2, dtype=m.bool), m.zeros(2, dtype=m.int64)
    numbers.copy_(x)
    assert numbers.tolist() == [2, 3] and not numbers.requires_grad
    mask[:] = m.ones(2)
    assert not mask.requires_grad


def test_a_bool_tensor_never_requires_grad() -> None:
    mask = pf.zeros(2, dtype=pf.bool)
    mask[:] = leaf(pf, 2.0, 3.0)
    assert mask.tolist() == [True, True] and not mask.requires_grad


@BOTH
def test_empty_tensors_can_be_written_to(m: Any) -> None:
    x = m.zeros(0, 3) + 1
    x.add_(1).copy_(x)
    x[x > 0] = 1.0
    assert tuple(x.shape) == (0, 3)


@BOTH
def test_a_quotient_may_be_overwritten(m: Any) -> None:
    x, w = leaf(m, 6.0), leaf(m, 2.0)
    y = x / w
    y.add_(1)
    y.sum().backward()
    assert x.grad.tolist() == [0.5] and w.grad.tolist() == [-1.5]


@BOTH
@pytest.mark.parametrize(
    "op",
    [
        lambda m, x: x.softmax(-1),
        lambda m, x: x.log_softmax(0),
        lambda m, x: x.cumsum(-1),
        lambda m, x: x.cumprod(0),
        lambda m, x: x.roll(1, 0),
        lambda m, x: m.cat([x, x]),
        lambda m, x: m.stack([x, x], 1),
    ],
    ids=["softmax", "log_softmax", "cumsum", "cumprod", "roll", "cat", "stack"],
)
def test_results_of_a_transposed_input_can_be_viewed(m: Any, op: Any) -> None:
    assert op(m, m.ones(4, 3).t()).view(-1).ndim == 1


def test_in_place_twins_take_other_names_and_name_what_is_wrong() -> None:
    assert pf.ones(3).cumsum_(axis=0).tolist() == [1, 2, 3]
    with pytest.raises(TypeError, match="cumsum_: missing argument 'dim'"):
        pf.ones(3).cumsum_()
    with pytest.raises(TypeError, match="cumsum_: unexpected argument 'across'"):
        pf.ones(3).cumsum_(across=0)


# ---- generated functions


@pytest.mark.parametrize("name", ["mode", "device", "out", "node", "forward", "a_x", "y_y", "op"])
def test_an_op_cannot_have_an_argument_with_a_generated_name(fresh: Any, name: str) -> None:
    scope: dict = {}
    exec(f"def parameter(xp, x, *, {name}=1): return x\ndef given(xp, x, {name}): return x", scope)
    for function in (scope["parameter"], scope["given"]):
        with pytest.raises(ArgumentError, match=f"cannot be called '{name}'"):
            fresh(function)


def test_defaults_of_any_kind_and_missing_arguments(fresh: Any) -> None:
    def forward(xp: Any, x: Any, w: Any = None, *, low=-np.inf, kind=np.dtype("f4"), k) -> Any:
        return xp.maximum(x, low).astype(kind) * k

    op = fresh(forward, {"x": lambda g, k: g * k})
    x = leaf(pf, 1.0)
    assert op(x, k=2.0).tolist() == [2.0]
    for value in (x, np.ones(1, np.float32)):
        with pytest.raises(TypeError, match="missing argument 'k'"):
            op(value)
    scale = pointwise(f"regression{next(_numbers)}", lambda x, *, top=np.inf, k: x * k + 0 / top)
    assert scale(x, k=3.0).tolist() == [3.0]
    with pytest.raises(TypeError, match="missing argument 'k'"):
        scale(x)


def test_a_rule_for_what_is_no_input_is_refused(fresh: Any) -> None:
    op = fresh(lambda xp, x: x * 2, {"q": lambda g: g})
    with pytest.raises(TypeError, match="'q', which is no input"):
        op(leaf(pf, 1.0))


# ---- dtypes


@pytest.mark.parametrize("dtype", [pf.float16, pf.bfloat16, pf.float32])
def test_unpickled_arrays_take_the_short_paths(dtype: Any) -> None:
    array = pickle.loads(pickle.dumps(np.ones(3, dtype)))
    assert pf.from_numpy(array).dtype is dtype
    tensor = pickle.loads(pickle.dumps(pf.ones(3, dtype=dtype)))
    assert tensor.dtype is dtype
    if dtype is pf.float16:  # raw arrays as they are: still computed in float32
        big = np.full(3, 60000, np.float16)
        assert pf.mean(pickle.loads(pickle.dumps(big))) == 60000


def test_bfloat16_gradients_of_scaled_products() -> None:
    b, x, y = (pf.ones(2, 2, dtype=pf.bfloat16, requires_grad=True) for _ in range(3))
    pf.addmm(b, x, y, beta=0.5, alpha=2.0).sum().backward()
    assert b.grad.dtype == x.grad.dtype == y.grad.dtype == pf.bfloat16
    assert b.grad[0, 0].item() == 0.5 and x.grad[0, 0].item() == 4


@BOTH
def test_the_gradient_of_atan2_at_the_origin(m: Any) -> None:
    a, b = leaf(m, 0.0, 1.0), leaf(m, 0.0, 1.0)
    m.atan2(a, b).sum().backward()
    assert a.grad.tolist() == [0.0, 0.5] and b.grad.tolist() == [0.0, -0.5]


# ---- long chains


def test_a_long_chain_of_views_whose_base_is_written_to() -> None:
    x = leaf(pf, 1.0, 2.0)
    base = x * 1
    view = base
    for _ in range(5000):
        view = view.view(2)
    base.mul_(2)
    view.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


@BOTH
def test_vjp_of_outputs_that_do_not_depend_on_the_inputs(m: Any) -> None:
    values, product = m.autograd.functional.vjp(
        lambda x: (x * 2, m.ones(1)), m.ones(2), (m.ones(2), m.ones(1))
    )
    assert [v.tolist() for v in values] == [[2, 2], [1]] and product.tolist() == [2, 2]


# ---- devices


def test_a_number_in_a_cpu_tensor_goes_with_any_device() -> None:
    x = pf.ones(3, device="cpu:1")
    s = pf.tensor(2.0, requires_grad=True)
    y = x * s + pf.tensor(1) * x
    y.sum().backward()
    assert y.device == x.device and s.grad.device == s.device and s.grad.item() == 3
    x.mul_(s.detach())
    assert x.tolist() == [2, 2, 2]
    with pytest.raises(DeviceError, match="mul_: a tensor on cpu cannot hold a result on cpu:1"):
        pf.tensor(1.0).mul_(x.sum())
    with pytest.raises(DeviceError):
        x * pf.ones(3)


def test_a_kept_gradient_stays_on_its_device() -> None:
    x = leaf(pf, 1.0)
    y = x.to("cpu:1") * 2
    y.retain_grad()
    z = y.to("cpu:2")
    pf.autograd.grad(z.sum(), x, create_graph=True)
    z.sum().backward()
    assert y.grad.device == y.device and y.grad.tolist() == [2.0]


def test_cotangents_of_a_function_are_on_the_device_of_its_output() -> None:
    seen = []

    class To(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.to("cpu:1"), x.to("cpu:1") * 2

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            seen.extend(str(g.device) for g in cotangents)
            return cotangents[0].to("cpu")

    To.apply(leaf(pf, 1.0))[0].backward(pf.ones(1, device="cpu:1"))
    assert seen == ["cpu:1", "cpu:1"]
