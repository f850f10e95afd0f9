"""What is measured or generated in the documentation is what docs/render.py writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs import render

PAGES = render.pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(render.ROOT)))
def test_the_page_is_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert render.rendered(text) == text, "run: python -m docs.render"


def test_figures_are_not_typed_by_hand() -> None:
    """Outside the rendered places, nothing looks like a time or a factor."""
    figure = re.compile(r"\d\s?(?:×|µs|ns|ms)|\d\s?(?:times|x) (?:faster|slower)|\d %|\d% ")
    for name in ("README.md", "docs/index.md", "docs/benchmarks.md"):
        text = render.MARKED.sub("", (render.ROOT / name).read_text(encoding="utf-8"))
        assert not figure.findall(text), name


def test_a_missing_result_says_so(tmp_path: Path) -> None:
    text = "<!-- results:overhead -->\nold\n<!-- end -->\n"
    shown = render.rendered(text, tmp_path)
    assert "Not measured yet" in shown and "python -m benchmarks.overhead" in shown
    assert "old" not in shown and shown.endswith("<!-- end -->\n")


def test_a_result_is_a_table_with_its_command_and_machine(tmp_path: Path) -> None:
    times = {"median_s": 2e-6, "iqr_s": 1e-7, "best_s": 2e-6, "rounds": 5, "loops": 9}
    document = {
        "machine": {
            "time": "2030-01-02T03:04:05",
            "cpu": "C",
            "cpus": 2,
            "python": "3.11",
            "numpy": "2",
        },
        "geometric_mean": 0.5,
        "cases": {"chain": {"pyframe": times, "torch": times | {"median_s": 4e-6}, "ratio": 0.5}},
    }
    (tmp_path / "overhead.json").write_text(json.dumps(document))
    shown = render.rendered("<!-- results:overhead -->\n<!-- end -->\n", tmp_path)
    assert "| chain | 2 µs | 4 µs | 0.50 |" in shown
    assert (
        "`python -m benchmarks.overhead` on C, 2 CPUs, Python 3.11, NumPy 2 (2030-01-02)" in shown
    )


def test_rendering_twice_changes_nothing() -> None:
    for page in PAGES:
        once = render.rendered(page.read_text(encoding="utf-8"))
        assert render.rendered(once) == once


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        render.rendered("<!-- results:nothing -->\n<!-- end -->\n")


def test_every_result_file_is_shown_somewhere() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for path in render.RESULTS.glob("*.json"):
        if path.stem in render.TABLES or path.stem.startswith(("kernels_", "expected_")):
            assert f"<!-- results:{path.stem} -->" in text, f"{path.name} is shown nowhere"
