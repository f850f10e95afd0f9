"""A run's folder: its settings, metrics, checkpoint and weights (L6)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import FileError, fail
from ..io import load, save, write_text


class RunFolder:
    """Files of one run; each is replaced whole, except the metrics, which grow by lines.

    Args:
        path: the folder; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoint_path = self.path / "checkpoint.safetensors"
        self.model_path = self.path / "model.safetensors"

    def append_metrics(self, values: dict[str, Any]) -> None:
        """Adds one line to ``metrics.jsonl``."""
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines so far; one that a crash cut off is left out."""
        if not self.metrics_path.exists():
            return []
        rows = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def keep_metrics(self, count: int) -> None:
        """Cuts the metrics to what they were at the checkpoint."""
        rows = self.read_metrics()[:count]
        write_text(self.metrics_path, "".join(json.dumps(r) + "\n" for r in rows))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replaces the checkpoint."""
        save(state, self.checkpoint_path)

    def load_checkpoint(self) -> dict[str, Any]:
        """The last checkpoint.

        Raises:
            FileError: if there is none or it is damaged.
        """
        if not self.checkpoint_path.exists():
            fail(
                FileError,
                "train",
                f"{self.path} has no checkpoint to resume from",
                "Start without --resume.",
            )
        return load(self.checkpoint_path)

    def save_model(self, state: dict[str, Any], metadata: dict[str, str]) -> None:
        """Replaces the weights."""
        save(state, self.model_path, metadata)
