"""Creation, copies, moves, filling and randomness against PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pyframe  # noqa: E402
from pyframe.op.registry import exported  # noqa: E402

from .against_torch import close, compare, ours, theirs  # noqa: E402

functional = exported("functional")
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def same(mine, other, rtol=0.0):
    close(mine, other, rtol, "created")
    assert mine.requires_grad == other.requires_grad


def rand(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).uniform(-3, 3, shape).astype(dtype)


# ---- values


@pytest.mark.parametrize("name", ["zeros", "ones"])
@pytest.mark.parametrize("size", [(), (3,), (2, 3), ((2, 3),), ([2, 0],), ((),)])
def test_zeros_and_ones(name, size):
    if size == ():
        with pytest.raises(TypeError):
            getattr(torch, name)()
        with pytest.raises(TypeError):
            getattr(pyframe, name)()
        return
    same(getattr(pyframe, name)(*size), getattr(torch, name)(*size))
    same(
        getattr(pyframe, name)(*size, requires_grad=True),
        getattr(torch, name)(*size, requires_grad=True),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    mine, other = getattr(pyframe, dtype, bool), getattr(torch, dtype)
    same(pyframe.ones(2, 3, dtype=mine), torch.ones(2, 3, dtype=other))
    same(pyframe.full((2,), 1, dtype=mine), torch.full((2,), 1, dtype=other))
    same(pyframe.eye(3, 2, dtype=mine), torch.eye(3, 2, dtype=other))
    same(pyframe.arange(2, dtype=mine), torch.arange(2).to(other))
    x, t = pyframe.ones(2).to(mine), torch.ones(2).to(other)
    same(pyframe.zeros_like(x), torch.zeros_like(t))
    same(pyframe.full_like(x, 1), torch.full_like(t, 1))
    same(x.new_ones(2, 2), t.new_ones(2, 2))
    same(x.new_zeros((2, 2)), t.new_zeros((2, 2)))
    same(x.new_full((2,), 1), t.new_full((2,), 1))
    same(x.new_tensor([0, 1]), t.new_tensor([0, 1]))
    assert x.new_empty(3).dtype == x.dtype
    assert pyframe.empty_like(x).dtype == x.dtype


@pytest.mark.parametrize("value", [True, 2, 2.5, -1.0, np.float64(1.5), np.int32(3)])
def test_full(value):
    same(pyframe.full((2, 2), value), torch.full((2, 2), value))
    same(pyframe.full_like(pyframe.zeros(2), value), torch.full_like(torch.zeros(2), value))
    same(pyframe.full((2,), value, dtype=pyframe.int64), torch.full((2,), value, dtype=torch.int64))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((5,), {}), ((0,), {}), ((2.5,), {}), ((1, 4), {}), ((1, 4, 2), {}), ((4, 1, -1), {}),
        ((0, 1, 0.1), {}), ((0.5, 3), {}), ((3, 0, -0.5), {}), ((), {"end": 3}),
        ((), {"start": 1, "end": 3}), ((5,), {"dtype": "float32"}),
        ((0, 2, 0.5), {"dtype": "float64"}),
        ((True,), {}), ((-3, 3), {}), ((3, 3), {}), ((0, 1, 1 / 3), {}),
    ],
)  # fmt: skip
def test_arange(args, kwargs):
    theirs_kwargs = {k: getattr(torch, v) if k == "dtype" else v for k, v in kwargs.items()}
    same(pyframe.arange(*args, **kwargs), torch.arange(*args, **theirs_kwargs), 1e-6)


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 10])
@pytest.mark.parametrize("bounds", [(0, 1), (-3, 7), (2.5, -1), (1, 1)])
def test_linspace_and_logspace(bounds, steps):
    same(pyframe.linspace(*bounds, steps), torch.linspace(*bounds, steps), 1e-6)
    same(pyframe.logspace(*bounds, steps, base=2), torch.logspace(*bounds, steps, base=2), 1e-6)
    same(
        pyframe.linspace(*bounds, steps, dtype=pyframe.float64),
        torch.linspace(*bounds, steps, dtype=torch.float64),
        1e-12,
    )


@pytest.mark.parametrize(
    "data",
    [
        1, 2.5, True, [], [[]], [1, 2], [1, 2.5], [True, 2], [[1.0, 2.0], [3.0, 4.0]], (1, 2),
        np.arange(3), np.ones((2, 2), "float32"), np.float64(1.5), np.float32(1.5),
        [np.float64(1.0)], [[0.1, 0.2]],
    ],
)  # fmt: skip
def test_tensor(data):
    same(pyframe.tensor(data), torch.tensor(data))
    same(
        pyframe.tensor(data, dtype=pyframe.float64, requires_grad=True),
        torch.tensor(data, dtype=torch.float64, requires_grad=True),
    )


def test_tensor_copies():
    for data in (np.ones(3, "float32"), pyframe.ones(3)):
        x = pyframe.tensor(data)
        x.zero_()
        assert float(data.sum()) == 3
    array = np.ones(3, "float32")
    pyframe.as_tensor(array).zero_()
    assert array.sum() == 0
    assert pyframe.tensor([pyframe.tensor(1.0), pyframe.tensor(2.0)]).tolist() == [1.0, 2.0]
    y = pyframe.ones(2, requires_grad=True)
    assert not pyframe.tensor(y).requires_grad


ERRORS = [
    (lambda m: m.zeros(-1), RuntimeError), (lambda m: m.zeros(2.5), TypeError),
    (lambda m: m.zeros("a"), TypeError), (lambda m: m.full(2, 1.0), TypeError),
    (lambda m: m.ones(2, dtype=m.int64, requires_grad=True), RuntimeError),
    (lambda m: m.ones(2, dtype="nonsense"), TypeError), (lambda m: m.arange(3, 0), RuntimeError),
    (lambda m: m.arange(0, 3, 0), RuntimeError), (lambda m: m.arange(float("nan")), RuntimeError),
    (lambda m: m.linspace(0, 1, -1), RuntimeError), (lambda m: m.eye(-1), RuntimeError),
    (lambda m: m.tensor([[1], [2, 3]]), ValueError), (lambda m: m.tensor("a"), TypeError),
    (lambda m: m.randint(0, 0, (2,)), RuntimeError), (lambda m: m.randperm(-1), RuntimeError),
    (lambda m: m.randint(500, (2,), dtype=m.uint8), RuntimeError),
    (lambda m: m.rand(2, dtype=m.int64), RuntimeError),
    (lambda m: m.rand_like(m.zeros(2).int()), RuntimeError),
    (lambda m: m.normal(0.0, -1.0, (2,)), RuntimeError),
    (lambda m: m.normal(m.zeros(2), -m.ones(2)), RuntimeError),
    (lambda m: m.bernoulli(m.tensor([2.0])), RuntimeError),
    (lambda m: m.bernoulli(m.tensor([1])), RuntimeError),
    (lambda m: m.multinomial(m.ones(3), 4), RuntimeError),
    (lambda m: m.multinomial(m.zeros(3), 1), RuntimeError),
    (lambda m: m.multinomial(m.tensor([-1.0, 2.0]), 1), RuntimeError),
    (lambda m: m.multinomial(m.ones(2, 3, 4), 1), RuntimeError),
    (lambda m: m.multinomial(m.ones(3).long(), 1), RuntimeError),
    (lambda m: m.multinomial(m.ones(3), 0), RuntimeError),
    (lambda m: m.zeros(3).uniform_(1, 0), RuntimeError),
    (lambda m: m.zeros(3).normal_(0, -1), RuntimeError),
    (lambda m: m.zeros(3).bernoulli_(2.0), RuntimeError),
    (lambda m: m.zeros(3).exponential_(-1), RuntimeError),
    (lambda m: m.zeros(3).long().normal_(), RuntimeError),
    (lambda m: m.zeros(3).random_(3, 3), RuntimeError),
    (lambda m: m.zeros(3).fill_(m.ones(1)), RuntimeError),
    (lambda m: m.zeros(3).copy_(m.ones(2)), RuntimeError),
    (lambda m: m.ones(2, requires_grad=True).fill_(1), RuntimeError),
    (lambda m: m.ones(2, requires_grad=True).zero_(), RuntimeError),
    (lambda m: m.ones(2, requires_grad=True).normal_(), RuntimeError),
    (lambda m: m.ones(2, requires_grad=True).copy_(m.ones(2)), RuntimeError),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors_are_of_the_same_type(number):
    function, error = ERRORS[number]
    with pytest.raises(error):
        function(torch)
    with pytest.raises(error) as mine:
        function(pyframe)
    assert isinstance(mine.value, pyframe.errors.PyframeError)


# ---- dtypes and devices


@pytest.mark.parametrize("given", DTYPES)
@pytest.mark.parametrize("wanted", DTYPES)
def test_conversion(given, wanted):
    x = np.array([0, 1, 2, 3]).astype(given)
    mine = ours(x).to(getattr(pyframe, wanted, bool))
    same(mine, theirs(x).to(getattr(torch, wanted)))


def test_short_forms():
    x, t = pyframe.tensor([0.0, 1.5, -2.5]), torch.tensor([0.0, 1.5, -2.5])
    for name in ("float", "double", "half", "int", "long", "short", "char", "bool"):
        same(getattr(x, name)(), getattr(t, name)())
    assert x.bfloat16().dtype == pyframe.bfloat16
    assert x.float() is x
    assert x.to(x.dtype) is x
    assert x.to("cpu") is x
    assert x.cpu() is x
    assert x.to(x.dtype, copy=True) is not x
    assert x.type() == t.type().replace("torch", "pyframe")
    same(x.type("torch.DoubleTensor"), t.type("torch.DoubleTensor"))
    same(x.type(pyframe.int64), t.type(torch.int64))
    same(x.type_as(pyframe.ones(1).long()), t.type_as(torch.ones(1).long()))
    same(x.to(pyframe.ones(1).double()), t.to(torch.ones(1).double()))
    with pytest.raises(TypeError):
        x.to(None, [1])
    with pytest.raises((RuntimeError, ValueError)):
        x.to("nowhere")


def test_gradients_of_conversions():
    compare(lambda x: x.double() * 2, lambda x: x.double() * 2, [rand(3, dtype="float32")])
    compare(lambda x: x.to(pyframe.float64), lambda x: x.to(torch.float64), [rand(3)])
    x = pyframe.ones(2, requires_grad=True)
    assert not x.long().requires_grad
    assert not x.bool().requires_grad


def test_moves_are_differentiable():
    x = pyframe.tensor([1.0, 2.0], requires_grad=True)
    y = x.to("cpu:1")
    assert str(y.device) == "cpu:1"
    assert y.requires_grad
    assert y.array is not x.array
    z = (y * y * y).sum()
    (g,) = pyframe.autograd.grad(z, x, create_graph=True)
    assert g.device is x.device
    assert g.tolist() == [3.0, 12.0]
    (h,) = pyframe.autograd.grad(g.sum(), x)
    assert h.tolist() == [6.0, 12.0]
    assert h.device is x.device
    with pytest.raises(pyframe.errors.DeviceError):
        x + y
    double = x.to("cpu:1", pyframe.float64)
    assert str(double.device) == "cpu:1"
    assert double.dtype == pyframe.float64
    double.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
    assert x.grad.dtype == pyframe.float32
    for name in ("zeros", "ones", "rand", "randn", "empty"):
        assert str(getattr(pyframe, name)(2, device="cpu:1").device) == "cpu:1"
    assert str(pyframe.arange(3, device="cpu:1").device) == "cpu:1"
    assert str(pyframe.zeros_like(y).device) == "cpu:1"
    assert str(pyframe.tensor([1.0], device="cpu:1").device) == "cpu:1"


def test_copies():
    compare(lambda x: x.clone() * x, lambda x: x.clone() * x, [rand(3, 4)])
    compare(lambda x: x.t().contiguous(), lambda x: x.t().contiguous(), [rand(3, 4)])
    x = pyframe.ones(2, 3)
    assert x.contiguous() is x
    assert x.t().contiguous().is_contiguous()
    y = x.clone()
    y.zero_()
    assert x.sum().item() == 6


# ---- in place


def both_modules(function, *arrays, second=False):
    compare(
        lambda *xs: function(pyframe, *xs), lambda *ts: function(torch, *ts), arrays, second=second
    )


def test_filling_cuts_the_gradient():
    def fill(m, x):
        y = x * 2
        z = y * 3
        y.fill_(5.0)
        return y + z

    def zero(m, x):
        y = x * 2
        y.zero_()
        return y + x

    def zero_row(m, x):
        y = x * 2
        y[0].zero_()
        return y * y

    def fill_column(m, x):
        y = x * 2
        y[:, 1].fill_(7)
        return y * x

    def fill_transposed(m, x):
        y = x * 2
        y.t()[1].fill_(7)
        return y * x

    for function in (fill, zero, zero_row, fill_column, fill_transposed):
        both_modules(function, rand(3, 4), second=True)


def test_copying_in_place():
    def whole(m, x, s):
        y = x * 2
        y.copy_(s)
        return y * x

    def broadcast(m, x, s):
        y = x * 2
        y.copy_(s[0])
        return y * y

    def row(m, x, s):
        y = x * 2
        y[1].copy_(s[0])
        return y * y

    def from_itself(m, x, s):
        y = x * 2
        y[1].copy_(y[0])
        return y * s

    def fill_with_tensor(m, x, s):
        y = x * 2
        y[1].fill_(s[0, 0])
        return y * y

    for function in (whole, broadcast, row, from_itself, fill_with_tensor):
        both_modules(function, rand(3, 4), rand(3, 4, seed=1), second=True)
    mixed = pyframe.zeros(2, 3).copy_(pyframe.tensor([1, 2, 3]))
    same(mixed, torch.zeros(2, 3).copy_(torch.tensor([1, 2, 3])))
    whole = pyframe.zeros(2).long().copy_(pyframe.tensor([1.5, 2.5]))
    same(whole, torch.zeros(2).long().copy_(torch.tensor([1.5, 2.5])))
    moved = pyframe.zeros(2)
    source = pyframe.ones(2, device="cpu:1", requires_grad=True)
    (moved.copy_(source) * 2).sum().backward()
    assert source.grad.tolist() == [2.0, 2.0]
    assert source.grad.device is source.device


@pytest.mark.parametrize("dtype", DTYPES)
def test_fill_converts_as_torch_does(dtype):
    for value in (0, 1, 2.7, True):
        same(
            pyframe.zeros(3).to(getattr(pyframe, dtype, bool)).fill_(value),
            torch.zeros(3).to(getattr(torch, dtype)).fill_(value),
        )


def test_random_filling_cuts_the_gradient():
    for name in ("normal_", "uniform_", "bernoulli_", "exponential_", "random_"):
        x = pyframe.ones(4, requires_grad=True)
        y = x * 2
        z = y[1:]
        getattr(z, name)()
        (y * 1).sum().backward()
        assert x.grad.tolist() == [2.0, 0.0, 0.0, 0.0], name
        w = x * 1
        getattr(w, name)()
        x.grad = None
        w.sum().backward()
        assert x.grad.tolist() == [0.0] * 4


def test_overwritten_values_are_noticed():
    x = pyframe.ones(3, requires_grad=True)
    y = x * 2
    z = y * y
    y.zero_()
    with pytest.raises(pyframe.errors.AutogradError):
        z.sum().backward()


def test_leaves_may_be_filled_without_grad():
    x = pyframe.ones(3, requires_grad=True)
    with pyframe.no_grad():
        x.zero_()
        x.copy_(pyframe.ones(3))
        x.normal_()
        x.fill_(2)
    assert x.requires_grad
    assert x.is_leaf
    assert x.tolist() == [2.0] * 3
    assert x._version == 4


# ---- random numbers: distributions, not values, can be compared


def test_moments():
    n = 200_000
    x = pyframe.rand(n)
    assert 0 <= x.min().item()
    assert x.max().item() < 1
    assert abs(x.mean().item() - 0.5) < 0.005
    assert abs(x.std().item() - 12**-0.5) < 0.005
    x = pyframe.randn(n)
    assert abs(x.mean().item()) < 0.01
    assert abs(x.std().item() - 1) < 0.01
    x = pyframe.normal(3.0, 2.0, (n,))
    assert abs(x.mean().item() - 3) < 0.03
    assert abs(x.std().item() - 2) < 0.03
    x = pyframe.empty(n).uniform_(-2, 4)
    assert abs(x.mean().item() - 1) < 0.03
    assert -2 <= x.min().item() < x.max().item() <= 4
    x = pyframe.empty(n).exponential_(2.0)
    assert abs(x.mean().item() - 0.5) < 0.01
    assert x.min().item() > 0
    x = pyframe.bernoulli(pyframe.full((n,), 0.3))
    assert abs(x.mean().item() - 0.3) < 0.01
    assert set(x.unique().tolist()) == {0.0, 1.0}
    x = pyframe.randint(2, 5, (n,))
    counts = pyframe.bincount(x, minlength=6).tolist()
    assert counts[:2] == [0, 0]
    assert counts[5] == 0
    assert all(abs(c / n - 1 / 3) < 0.01 for c in counts[2:5])
    x = pyframe.multinomial(pyframe.tensor([1.0, 0.0, 3.0]), n, replacement=True)
    assert abs((x == 2).float().mean().item() - 0.75) < 0.01
    assert not (x == 1).any()


@pytest.mark.parametrize("name", ["rand", "randn"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_random_dtypes_and_seeds(name, dtype):
    def draw(**k):
        return getattr(pyframe, name)(5, 7, dtype=dtype, **k)

    with pyframe.random.fork_rng():
        pyframe.random.manual_seed(3)
        a, b = draw(), draw()
        pyframe.random.manual_seed(3)
        c = draw(device="cpu:1")
    assert a.dtype == pyframe.dtypes.as_dtype(dtype)
    assert a.shape == (5, 7)
    assert (a.array == c.array).all()
    assert not (a.array == b.array).all()
    generator = pyframe.random.Generator().manual_seed(3)
    assert (draw(generator=generator).array == a.array).all()


def test_shapes_of_random_functions():
    assert pyframe.randperm(5).sort().values.tolist() == [0, 1, 2, 3, 4]
    assert pyframe.randint(5, (2, 3)).dtype == np.int64
    assert pyframe.randint(high=5, size=(2,)).shape == (2,)
    assert pyframe.randint(0, 5, size=(2,), dtype=pyframe.uint8).dtype == np.uint8
    assert pyframe.multinomial(pyframe.ones(2, 3), 2).shape == (2, 2)
    assert sorted(pyframe.multinomial(pyframe.ones(4), 4).tolist()) == [0, 1, 2, 3]
    assert pyframe.normal(pyframe.zeros(2, 1), pyframe.ones(3)).shape == (2, 3)
    assert pyframe.rand(()).shape == ()
    assert pyframe.rand(2, requires_grad=True).requires_grad
    assert pyframe.randn_like(pyframe.zeros(2, 3).double()).dtype == np.float64
    assert pyframe.randn(size=(2, 3)).shape == (2, 3)


# ---- dropout


def test_dropout():
    dropout = functional["dropout"]
    x = pyframe.ones(100, 100, requires_grad=True)
    y = dropout(x, 0.3)
    kept = y.detach() != 0
    assert abs(kept.float().mean().item() - 0.7) < 0.03
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), kept.numpy() / 0.7, rtol=1e-6)
    assert dropout(x, 0.3, training=False) is x
    assert dropout(x, 1.0).sum().item() == 0
    assert (dropout(x, 0.0) == x).all()
    z = x * 2
    assert dropout(z, 0.5, inplace=True) is z
    x.grad = None
    z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), z.detach().numpy(), rtol=1e-6)


def test_dropout_second_derivative():
    x = pyframe.ones(50, requires_grad=True)
    y = functional["dropout"](x, 0.5)
    (g,) = pyframe.autograd.grad((y * y).sum(), x, create_graph=True)
    (h,) = pyframe.autograd.grad(g.sum(), x)
    np.testing.assert_allclose(h.numpy(), 8.0 * (y.detach().numpy() != 0))


@pytest.mark.parametrize(
    ("name", "shape", "lead"),
    [
        ("dropout1d", (4, 6, 5), 2), ("dropout1d", (6, 5), 1), ("dropout2d", (4, 6, 3, 2), 2),
        ("dropout3d", (4, 6, 2, 3, 2), 2), ("dropout3d", (24, 2, 3, 2), 1),
    ],
)  # fmt: skip
def test_dropout_of_channels(name, shape, lead):
    y = functional[name](pyframe.ones(*shape), 0.5).numpy().reshape(math.prod(shape[:lead]), -1)
    assert (y == y[:, :1]).all()
    assert set(np.unique(y)) == {0.0, 2.0}


def test_dropout_errors():
    for p in (1.5, -0.1):
        for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"):
            with pytest.raises(ValueError, match="between 0 and 1"):
                functional[name](pyframe.ones(2, 2, 2), p)
    with pytest.raises(RuntimeError):
        functional["dropout"](pyframe.ones(3).long(), 0.5)


def test_alpha_dropout_keeps_mean_and_variance():
    x = pyframe.randn(200_000)
    y = functional["alpha_dropout"](x, 0.2, training=True)
    assert abs(y.mean().item()) < 0.02
    assert abs(y.std().item() - 1) < 0.02


def test_older_constructors():
    x, t = pyframe.zeros(1).double(), torch.zeros(1).double()
    for data in ([1, 2], (1, 2), [[1.5]]):
        same(x.new(data), t.new(data))
    assert x.new(2, 3).shape == (2, 3)
    assert x.new(2, 3).dtype == x.dtype
    assert x.new(pyframe.ones(2, 4).shape).shape == (2, 4)
    assert x.new().shape == (0,)
    same(pyframe.scalar_tensor(3), torch.scalar_tensor(3))
