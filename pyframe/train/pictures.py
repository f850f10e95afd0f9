"""Pictures of a run: ``curves.png`` and ``confusion.png`` (L6; needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import missing
from ..io import atomic_path


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise missing("matplotlib", "drawing curves.png and confusion.png", "plots") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_curves(rows: list[dict[str, Any]], path: Path, title: str) -> None:
    """Loss and accuracy per epoch, training and held out.

    Raises:
        MissingDependencyError: if matplotlib is not installed.
    """
    plt = _pyplot()
    epochs = [r["epoch"] for r in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    for axis, key, name in ((left, "loss", "loss"), (right, "accuracy", "accuracy")):
        axis.plot(epochs, [r[key] for r in rows], label="training", color="tab:blue")
        axis.plot(
            epochs, [r[f"held_out_{key}"] for r in rows], label="held out", color="tab:orange"
        )
        axis.set_xlabel("epoch")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        axis.legend()
    left.set_yscale("log")
    best = max(r["held_out_accuracy"] for r in rows)
    right.set_title(f"held out: {rows[-1]['held_out_accuracy']:.2%} (best {best:.2%})", fontsize=10)
    low = min(r["held_out_accuracy"] for r in rows[len(rows) // 4 :])
    right.set_ylim(max(0.0, 2 * low - 1.02), 1.005)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def draw_confusion(confusion: np.ndarray, classes: tuple[str, ...], path: Path) -> None:
    """The confusion matrix with counts; correct ones in blue, mistakes in red.

    Raises:
        MissingDependencyError: if matplotlib is not installed.
    """
    plt = _pyplot()
    n = len(classes)
    figure, axis = plt.subplots(figsize=(0.55 * n + 2, 0.55 * n + 1.6), layout="constrained")
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    right = np.where(np.eye(n, dtype=bool), share, np.nan)
    wrong = np.where(np.eye(n, dtype=bool), np.nan, np.where(confusion > 0, share, np.nan))
    axis.imshow(right, cmap="Blues", vmin=0, vmax=1.2)
    axis.imshow(wrong, cmap="Reds", vmin=0, vmax=max(0.05, np.nanmax(np.append(wrong, 0.0))))
    for i in range(n):
        for j in range(n):
            if confusion[i, j]:
                color = "white" if i == j else "black"
                axis.text(j, i, confusion[i, j], ha="center", va="center", fontsize=9, color=color)
    axis.set_xticks(range(n), classes, rotation=45 if max(map(len, classes)) > 2 else 0)
    axis.set_yticks(range(n), classes)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    count = confusion.sum()
    axis.set_title(f"{np.trace(confusion)} of {count} correct")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
