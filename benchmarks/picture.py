"""Draws the kernels' times beside torch's: ``python -m benchmarks.picture``.

Writes ``docs/kernels.png`` from ``benchmarks/results/kernels_*.json``: a row per family of kernels,
a dot per measured case.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.timing import RESULTS, geometric_mean
from pyframe.io import atomic_path

TARGET = Path(__file__).parent.parent / "docs" / "kernels.png"


def ratios(folder: Path = RESULTS) -> dict[str, list[float]]:
    """Torch's time over ours of every case, by family."""
    found = {}
    for path in sorted(folder.glob("kernels_*.json")):
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        values = [case["ratio"] for case in cases if case.get("ratio")]
        if values:
            found[path.stem.removeprefix("kernels_")] = values
    return found


def draw(families: dict[str, list[float]], path: Path) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    names = sorted(families, key=lambda name: geometric_mean(families[name]))
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.5 * len(names)), dpi=110)
    for row, name in enumerate(names):
        values, mean = families[name], geometric_mean(families[name])
        colours = ["#c2452d" if value < 1 else "#2a6f97" for value in values]
        axes.scatter(values, [row] * len(values), c=colours, s=22, alpha=0.55, linewidths=0)
        axes.plot([mean, mean], [row - 0.32, row + 0.32], color="black", linewidth=2)
    axes.axvline(1, color="0.4", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 1.5, 2, 3, 5, 10, 20])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter("")
    axes.set_yticks(range(len(names)), [f"{name} ({len(families[name])})" for name in names])
    axes.set_xlabel("PyTorch's time / pyframe's time (right of the dashed line: pyframe is faster)")
    axes.set_title(
        "CPU kernels: one dot per shape, a bar at each family's geometric mean", loc="left"
    )
    axes.grid(axis="x", alpha=0.25)
    save(figure, axes, path)


def save(figure: Any, axes: Any, path: Path) -> None:
    """Write a picture that stands on its lower edge alone, and drop it."""
    from matplotlib import pyplot as plt

    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)


if __name__ == "__main__":
    draw(ratios(), TARGET)
    print(TARGET)
