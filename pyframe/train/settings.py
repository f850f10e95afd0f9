"""What a run is: everything that decides its result, as one JSON-able record (L6)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..device import Device
from ..errors import ArgumentError, FileError, fail
from ..io import write_text
from .models import find_model
from .sources import check_dataset


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Args:
        model: ``mlp``, ``lenet`` or ``resnet18``.
        data: ``digits``, ``mnist`` or ``fashion-mnist``.
        data_folder: where IDX files are looked for first.
        epochs: passes over the training data.
        batch_size: samples per step.
        lr: peak learning rate of the one-cycle schedule (AdamW).
        weight_decay: of AdamW.
        label_smoothing: of the cross entropy.
        shift: random shift of training images, in pixels.
        seed: of weights, shuffling, shifts and dropout.
        device: where to train.
        checkpoint_seconds: time between checkpoints inside an epoch.
        ranks: processes that share each batch.
    """

    model: str = "lenet"
    data: str = "digits"
    data_folder: str | None = None
    epochs: int = 30
    batch_size: int = 64
    lr: float = 4e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    shift: int = 1
    seed: int = 0
    device: str = "cpu"
    checkpoint_seconds: float = 10.0
    ranks: int = 1

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("batch_size", 1), ("shift", 0), ("ranks", 1)):
            if getattr(self, name) < low:
                fail(
                    ArgumentError,
                    "train",
                    f"{name} must be at least {low}",
                    **{name: getattr(self, name)},
                )
        if not self.lr > 0:
            fail(ArgumentError, "train", "lr must be positive", lr=self.lr)
        # Here, before a process per rank says so.
        find_model(self.model)
        check_dataset(self.data)
        Device(self.device)

    def save(self, folder: Path) -> None:
        """Writes ``config.json``."""
        write_text(folder / "config.json", json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Settings:
        """Reads ``config.json`` of a run folder.

        Raises:
            FileError: if it is missing or damaged.
        """
        path = Path(folder) / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            known = {f.name for f in fields(cls)}
            return cls(**{k: v for k, v in values.items() if k in known})
        except (FileNotFoundError, NotADirectoryError):
            fail(FileError, "train", f"{folder} is no run folder: it has no config.json")
        except (ValueError, TypeError, AttributeError) as error:
            fail(FileError, "train", f"{path} is damaged ({error})")

    def changed(self, **values: Any) -> Settings:
        """A copy with other values."""
        return replace(self, **values)
