"""The autotuner: what it measures, where it keeps it, and that it is off by default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.backend import capture, native
from pyframe.errors import ArgumentError, KernelError
from pyframe.op import autotune, choice
from pyframe.op.record import Kernel, Op


class Clock:
    """Time that passes only in kernels."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def kernel(self, name: str, seconds: float, **fields: Any) -> Kernel:
        def run(x: Any, **params: Any) -> Any:
            self.calls.append(name)
            self.now += seconds
            return x + 1

        return Kernel(name, run, **fields)

    def op(self, *kernels: Kernel, portable: float = 1.0) -> Op:
        def forward(xp: Any, x: Any, *, k: Any = 0) -> Any:
            self.calls.append("portable")
            self.now += portable
            return x + 1

        return Op("tuned", forward, None, kernels={"cpu": list(kernels)})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setenv("PYFRAME_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotune, "time", SimpleNamespace(perf_counter=made.perf_counter))
    monkeypatch.setattr(autotune, "_tables", {})
    monkeypatch.setattr(autotune, "counts", autotune.Counts())
    pf.set_autotune(True, budget=10.0)
    yield made
    pf.set_autotune(False, budget=0.1)


def _call(op: Op, x: Any = None, **params: Any) -> Any:
    return choice.run(op, (np.zeros(8) if x is None else x,), params or {"k": 0})


def _ran(clock: Clock, op: Op, x: Any = None, **params: Any) -> str:
    """What runs in a call that is not measured any more."""
    _call(op, x, **params)
    clock.calls.clear()
    _call(op, x, **params)
    assert len(clock.calls) == 1
    return clock.calls[0]


@pytest.mark.parametrize(
    ("first", "second", "portable", "expected"),
    [
        (1.0, 0.5, 2.0, "b"),
        (0.5, 1.0, 2.0, "a"),
        (1.0, 1.0, 0.2, "portable"),
        (1.0, 0.99, 2.0, "a"),  # within the margin the record's order stands
    ],
)
def test_the_fastest_runs(
    clock: Clock, first: float, second: float, portable: float, expected: str
) -> None:
    op = clock.op(clock.kernel("a", first), clock.kernel("b", second), portable=portable)
    assert _ran(clock, op) == expected


def test_without_it_the_order_of_the_record_decides(clock: Clock) -> None:
    pf.set_autotune(False)
    op = clock.op(clock.kernel("a", 3.0), clock.kernel("b", 0.5), portable=0.1)
    _call(op)
    assert clock.calls == ["a"]
    assert not autotune.folder().exists()


def test_measuring_stays_in_its_budget(clock: Clock) -> None:
    op = clock.op(clock.kernel("a", 3.0), clock.kernel("b", 2.0), portable=4.0)
    _call(op)
    # One run of each to warm up, rounds of 9 s until 10 s are over, and the call itself.
    assert len(clock.calls) == 3 + 2 * 3 + 1
    assert autotune.counts.measured == 1
    assert autotune.counts.seconds == 27.0


def test_kernels_that_cannot_run_are_not_measured(clock: Clock) -> None:
    def broken(x: Any, **params: Any) -> Any:
        raise KernelError("does not compile")

    op = clock.op(
        clock.kernel("absent", 0.1, available=lambda: "no library"),
        clock.kernel("untrusted", 0.1, trusted=lambda *arrays: "not checked"),
        clock.kernel("small", 0.1, supports=lambda x, **params: "too small" if x.size < 9 else ""),
        Kernel("broken", broken),
        clock.kernel("slow", 0.5),
    )
    assert _ran(clock, op) == "slow"


def test_a_choice_holds_for_the_class_of_its_call(clock: Clock) -> None:
    op = clock.op(clock.kernel("a", 1.0), clock.kernel("b", 0.5))
    for x in (np.zeros(8), np.zeros(6), np.zeros(7)):
        _call(op, x)
    assert autotune.counts.measured == 1
    others = [np.zeros(9), np.zeros(8, np.float32), np.zeros((1, 8)), np.zeros((8, 2))[:, 0]]
    for count, x in enumerate(others, 2):
        _call(op, x)
        assert autotune.counts.measured == count
    _call(op, k=1)
    assert autotune.counts.measured == len(others) + 2
    assert _ran(clock, op, np.zeros(8), k=[1]) == "a", "a list cannot be a key: the record's order"


def test_a_kernel_that_cannot_take_another_call_of_the_class_is_left_out(clock: Clock) -> None:
    even = clock.kernel("even", 0.1, supports=lambda x, **params: "odd" if x.size % 2 else "")
    op = clock.op(clock.kernel("a", 1.0), even)
    assert _ran(clock, op, np.zeros(8)) == "even"
    assert _ran(clock, op, np.zeros(7)) == "a"
    assert autotune.counts.measured == 1


def test_choices_are_kept_on_disk_and_merged(clock: Clock) -> None:
    op = clock.op(clock.kernel("a", 1.0), clock.kernel("b", 0.5))
    _call(op)
    (path,) = autotune.folder().iterdir()
    kept = json.loads(path.read_text())
    assert [entry["kernel"] for entry in kept.values()] == ["b"]
    kept["another process's"] = {"kernel": "x", "times": {"x": 1.0}}
    path.write_text(json.dumps(kept))
    _call(op, np.zeros(100))
    assert len(json.loads(path.read_text())) == 3
    assert autotune.on_disk() == 3
    assert [p.name for p in autotune.folder().iterdir()] == [path.name], "no temporary file is left"
    autotune._tables.clear()  # as a new process
    choice.clear_choices()
    clock.calls.clear()
    _call(op)
    assert clock.calls == ["b"]


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": 3}', '{"a": {"kernel": "b", "times": []}}', "{"]
)
def test_a_file_that_is_damaged_counts_as_none(clock: Clock, text: str) -> None:
    op = clock.op(clock.kernel("a", 1.0), clock.kernel("b", 0.5))
    path = autotune._file(choice._backend((np.zeros(1),)))
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert _ran(clock, op) == "b"


def test_a_folder_that_cannot_be_written_to_keeps_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYFRAME_CACHE_DIR", str(tmp_path / "file"))
    op = clock.op(clock.kernel("a", 1.0), clock.kernel("b", 0.5))
    assert _ran(clock, op) == "b"


def test_nothing_is_measured_in_a_capture(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    op = clock.op(clock.kernel("a", 1.0), clock.kernel("b", 0.5))
    monkeypatch.setattr(capture, "current", lambda: object())
    _call(op)
    assert clock.calls == ["a"]


def test_a_forced_kernel_is_forced(clock: Clock) -> None:
    op = clock.op(clock.kernel("a", 1.0), clock.kernel("b", 0.5))
    choice.run(op, (np.zeros(8),), {"k": 0}, "a")
    assert clock.calls == ["a"]


def test_explain_shows_what_was_measured(clock: Clock) -> None:
    op = clock.op(clock.kernel("a", 1.0), clock.kernel("b", 0.5), portable=2.0)
    op.kernels_from = 1
    arrays = (np.zeros(8),)
    before = choice.candidates(op, arrays, {"k": 0})
    assert before[0] == ("a", "chosen")
    _call(op)
    assert choice.candidates(op, arrays, {"k": 0}) == [
        ("a", "slower (1000000.0 µs)"),
        ("b", "chosen (500000.0 µs)"),
        ("portable", "slower (2000000.0 µs)"),
    ]


def test_each_gpu_has_its_own_choices(clock: Clock) -> None:
    names = [b"A", b"B", b"A"]
    current = SimpleNamespace(id=0)

    def properties(number: int) -> dict:
        return {"name": names[number]}

    runtime = SimpleNamespace(getDeviceProperties=properties, driverGetVersion=lambda: 13000)
    cuda = SimpleNamespace(runtime=runtime, Device=lambda: current)

    class Gpu:
        name, xp = "cuda", SimpleNamespace(cuda=cuda)

        def synchronize(self) -> None:
            clock.calls.append("wait")

    backend: Any = Gpu()
    op = clock.op(clock.kernel("a", 1.0), clock.kernel("b", 0.5))
    files = []
    for current.id in range(3):
        kernel = autotune.choose(op, (np.zeros(8),), {"k": 0}, op.kernels["cpu"], backend)
        assert kernel is not None
        assert kernel.name == "b"
        files.append(autotune._file(backend).name)
    assert files[0] == files[2] != files[1]
    assert autotune.counts.measured == 2, "two GPUs of one kind share choices"
    at = clock.calls.index("wait")
    assert clock.calls[at : at + 4] == ["wait", "a", "wait", "wait"], "a kernel is waited for"


@pytest.mark.skipif(not native.available(), reason=f"no native extension: {native.why_not()}")
def test_real_kernels_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PYFRAME_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotune, "_tables", {})
    x = pf.randn(64, 200)
    expected = x.softmax(-1)
    pf.set_autotune(True, budget=0.005)
    try:
        for _ in range(3):
            found = x.softmax(-1)
        rows = dict(pf.explain(pf.softmax, x, -1))
    finally:
        pf.set_autotune(False, budget=0.1)
    assert pf.allclose(found, expected)
    (entry,) = json.loads(next(autotune.folder().glob("*.json")).read_text()).values()
    assert entry["times"].keys() == {"native", "portable"}
    assert all(seconds > 0 for seconds in entry["times"].values())
    assert rows[entry["kernel"]].startswith("chosen (")


def test_the_environment_switches_it_on() -> None:
    program = "import pyframe; print(pyframe.is_autotune_enabled())"
    for value, expected in (("1", "True"), ("0", "False"), (None, "False")):
        assert _printed(program, value) == expected


def _printed(program: str, value: str | None) -> str:
    env = {k: v for k, v in os.environ.items() if k != "PYFRAME_AUTOTUNE"}
    if value is not None:
        env["PYFRAME_AUTOTUNE"] = value
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_errors() -> None:
    with pytest.raises(ArgumentError, match="at least 0"):
        pf.set_autotune(False, budget=-1.0)
    assert not pf.is_autotune_enabled()
