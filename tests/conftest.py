"""Fixtures that several folders of tests use."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import pyframe as pf
from pyframe.backend import register_array_type
from pyframe.backend.base import Backend
from pyframe.device import Device
from tests import sweeps
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker process, the files that take longest come first."""
    if hasattr(config, "workerinput"):
        from tests import scheduling

        items.sort(key=lambda item: scheduling.place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For ``--dist loadfile``."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests import scheduling

    return scheduling.LongestFirst(config, log)


AWAITS = "awaits a GPU"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker process hands on what it left out."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["awaiting"] = [(*key, count) for key, count in sweeps.awaiting.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes what a worker process left out: every worker collects all."""
    for what, command, count in getattr(node, "workeroutput", {}).get("awaiting", ()):
        sweeps.awaiting[what, command] = count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts what was not run, so that nothing is left out silently."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[-1].removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")
    for (what, command), count in sorted(sweeps.awaiting.items()):
        terminalreporter.write_line(f"{count} cases await {command}: {what}")
    count = sum(n for reason, n in reasons.items() if AWAITS in reason)
    if count:
        terminalreporter.write_line(f"{count} tests await a GPU: make gpu-check runs them there")
