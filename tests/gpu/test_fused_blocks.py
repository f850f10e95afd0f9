"""Blocks of networks launch less, and move less, where modules are one op: counted, not timed."""

from __future__ import annotations

from unittest import mock

import pytest

from benchmarks.gpu import expected_blocks as blocks
from pyframe.backend import nvrtc
from pyframe.nn import fusing


@pytest.mark.parametrize("title", list(blocks.CASES))
def test_a_fused_block_launches_and_moves_less(title: str) -> None:
    if why := nvrtc.why_not():
        pytest.skip(why)
    build = blocks.CASES[title]
    with mock.patch.object(fusing, "on_cuda", return_value=False):
        plain = blocks.count(lambda: build(fused=False))
    fused = blocks.count(lambda: build(fused=True))
    assert fused[0] < plain[0]
    assert fused[1] < 0.9 * plain[1]
