"""Fixtures that several folders of tests use."""

from __future__ import annotations

import pytest

import pyframe as pf
from pyframe.backend import register_array_type
from pyframe.backend.base import Backend
from pyframe.device import Device
from tests.doubles import strict as double


class StrictBackend(Backend):
    """The stand-in for CuPy: its names, its keywords, and no look at values."""

    name = "strict"
    xp = double.strict
    array_type = double.StrictArray

    def asarray(self, value: object, dtype: object = None, non_blocking: bool = False) -> object:
        array = value if isinstance(value, double.StrictArray) else double.to_strict(value)
        return array if dtype is None or array.dtype == dtype else array.astype(dtype)

    def device_of(self, array: object) -> Device:
        device = Device("cpu:99")
        device._backend = self
        return device

    def to_numpy(self, array: object, non_blocking: bool = False) -> object:
        return double.from_strict(array)


BACKEND = StrictBackend()
register_array_type(double.StrictArray, BACKEND)


@pytest.fixture(scope="session")
def strict_device() -> Device:
    """A device whose arrays are those of the strict array module."""
    return BACKEND.device_of(None)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random numbers."""
    pf.manual_seed(0)


AWAITS = "awaits a GPU"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts what could not be tested without a GPU, so that nothing is skipped silently."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(AWAITS in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(f"{count} tests await a GPU: make gpu-check runs them there")
