"""In-place pointwise ops against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyframe
from tests.parity.pointwise_against_torch import (
    close,
    rand,
    same_outcome,
)

INPLACE = {
    "add_": (2.0,), "sub_": (0.5,), "mul_": (3.0,), "div_": (2.0,), "pow_": (3.0,),
    "clamp_": (0.5, 2.0), "clamp_min_": (1.0,), "remainder_": (0.7,), "fmod_": (0.7,),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        *INPLACE,
        "exp_",
        "sqrt_",
        "rsqrt_",
        "log_",
        "neg_",
        "abs_",
        "sin_",
        "cos_",
        "tanh_",
        "sigmoid_",
        "relu_",
        "floor_",
        "ceil_",
        "round_",
        "trunc_",
        "frac_",
        "reciprocal_",
        "square_",
        "sign_",
        "erf_",
        "log1p_",
        "expm1_",
    ],
)
def test_inplace(name):
    a = rand((3, 4), 0.3, 3)
    x, t = pyframe.as_tensor(a).requires_grad_(), torch.tensor(a, requires_grad=True)
    h, k = x * 1, t * 1
    y, z = getattr(h, name)(*INPLACE.get(name, ())), getattr(k, name)(*INPLACE.get(name, ()))
    assert y is h
    close(y, z)
    (y * y).sum().backward()
    (z * z).sum().backward()
    close(x.grad, t.grad)
    plain = pyframe.as_tensor(a.copy())
    getattr(plain, name)(*INPLACE.get(name, ()))
    close(plain, z)


def test_inplace_with_tensors_and_options():
    a, b, c = rand((3, 4)), rand((4,), seed=1), rand((3, 1), 0.5, 2, seed=2)

    def check(f):
        leaves = [pyframe.as_tensor(v).requires_grad_() for v in (a, b, c)]
        theirs = [torch.tensor(v, requires_grad=True) for v in (a, b, c)]
        y, z = f(leaves[0] * 1, *leaves[1:]), f(theirs[0] * 1, *theirs[1:])
        close(y, z)
        (y * y).sum().backward()
        (z * z).sum().backward()
        for u, v in zip(leaves, theirs, strict=True):
            if v.grad is not None:
                close(u.grad, v.grad)

    def augmented(x, y, z):
        x += y
        x -= z
        x *= y
        x /= z
        return x

    for f in (
        augmented,
        lambda x, y, z: x.add_(y, alpha=2.0),
        lambda x, y, z: x.sub_(y, alpha=0.5),
        lambda x, y, z: x.addcmul_(y, z, value=0.5),
        lambda x, y, z: x.addcdiv_(y, z, value=-2),
        lambda x, y, z: x.lerp_(z, 0.3),
        lambda x, y, z: x.div_(z, rounding_mode="floor").add_(y),
        lambda x, y, z: x.clamp_(y, z),
    ):
        check(f)


def test_inplace_errors_and_dtypes():
    i = np.array([1, 2, 3])
    same_outcome(lambda m, t: t(i).add_(1.5))
    same_outcome(lambda m, t: t(i).div_(2))
    same_outcome(lambda m, t: t(i).add_(t(np.ones((2, 3), "int64"))))
    same_outcome(lambda m, t: t(i.astype("float32")).add_(t(rand((3,)))))
    same_outcome(lambda m, t: t(i.astype("uint8")).add_(300))
    same_outcome(lambda m, t: t(i).mul_(True))

    def bits(m, t):
        x = t(i)
        x &= 6
        x |= 1
        x ^= t(i)
        x <<= 2
        x >>= 1
        x **= 2
        x //= 3
        x %= 5
        return x

    same_outcome(bits)
    leaf = pyframe.as_tensor(rand((3,))).requires_grad_()
    with pytest.raises(RuntimeError, match="mul_: a leaf that requires grad"):
        leaf.mul_(2)
