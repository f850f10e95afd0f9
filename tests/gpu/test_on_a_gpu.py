"""The items of ``make gpu-check``, run here too where there is a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.runner import Box
from pyframe import cuda
from tests.gpu import check


@pytest.mark.skipif(not cuda.is_available(), reason="awaits a GPU: an item of make gpu-check")
@pytest.mark.parametrize("item", check.ITEMS, ids=lambda item: item.__name__)
def test_item_of_the_check(item: Any, tmp_path: Path) -> None:
    box = Box("check", 120, cuda.get_device_name(0), tmp_path)
    box.run(item.__name__, item)
    assert not box.failures, box.failures[0][1]
