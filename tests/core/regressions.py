"""What the tests of cases that once went wrong share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pyframe as pf

BOTH = pytest.mark.parametrize("m", [pf, torch], ids=["pyframe", "torch"])


def leaf(m: Any, *values: float) -> Any:
    return m.tensor(list(values), requires_grad=True)
