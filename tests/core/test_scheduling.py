"""What a worker process is dealt, and that what is left out is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import sweeps

scheduling = pytest.importorskip("tests.scheduling", reason="pytest-xdist is not installed")
ROOT = Path(__file__).resolve().parents[2]


def test_the_longest_files_exist_and_come_first() -> None:
    assert all((ROOT / file).is_file() for file in scheduling.LONGEST)
    names = [f"{file}::test_a" for file in ("tests/a/test_a.py", *scheduling.LONGEST[::-1])]
    placed = sorted(names, key=scheduling.place)
    assert [name.split("::")[0] for name in placed[:-1]] == [*scheduling.LONGEST]


@pytest.mark.parametrize(
    ("test", "piece"),
    [
        ("tests/core/test_io.py::test_a[b]", "tests/core/test_io.py"),
        ("tests/ops/test_generic.py::test_a[sum-0-float32]", "tests/ops/test_generic.py::test_as"),
        ("tests/ops/test_generic.py::test_a", "tests/ops/test_generic.py"),
    ],
)
def test_pieces(test: str, piece: str) -> None:
    assert scheduling.LongestFirst._split_scope(object.__new__(scheduling.LongestFirst), test) == (
        piece
    )


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "awaiting", {})
    for runs in (False, True):
        monkeypatch.setattr(sweeps, "CI", runs)
        assert sweeps.in_ci(range(3), "numbers") == ([0, 1, 2] if runs else [])
        monkeypatch.setattr(sweeps, "SWEEP", runs)
        assert sweeps.in_sweeps(range(2), "others") == ([0, 1] if runs else [])
    assert sweeps.awaiting == {("numbers", "CI=true"): 3, ("others", "make sweep"): 2}
