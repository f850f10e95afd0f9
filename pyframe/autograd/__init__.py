"""Automatic differentiation for users (L3): backward, grad, grad modes, Function, checks."""

from ..tensor import Tensor
from . import functional
from .api import backward, grad
from .checkpoint import checkpoint, checkpoint_sequential
from .function import Function
from .grad_mode import (
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .gradcheck import gradcheck, gradgradcheck


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:  # noqa: N802
    """The tensor itself: what older programs wrap their tensors in.

    >>> import pyframe
    >>> Variable(pyframe.ones(1), requires_grad=True).requires_grad
    True
    """
    return data.detach().requires_grad_() if requires_grad else data


__all__ = [
    "Function",
    "Variable",
    "backward",
    "checkpoint",
    "checkpoint_sequential",
    "detect_anomaly",
    "enable_grad",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
]
