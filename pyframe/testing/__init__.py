"""Checks that an op's record drives, for pyframe's own tests and for ops of users (L6)."""

from ..autograd.gradcheck import gradcheck, gradgradcheck
from .accuracy import condition, tolerance
from .op_checks import (
    Case,
    cases,
    check_double_gradient,
    check_forward,
    check_gradient,
    check_kernel,
    check_layouts,
    check_op,
)

__all__ = [
    "Case",
    "cases",
    "check_double_gradient",
    "check_forward",
    "check_gradient",
    "check_kernel",
    "check_layouts",
    "check_op",
    "condition",
    "gradcheck",
    "gradgradcheck",
    "tolerance",
]
