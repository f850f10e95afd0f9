"""The main job (L6): train a network on a dataset, in a run folder that can be resumed exactly."""

from .models import MODELS, build_model
from .settings import Settings
from .sources import DATASETS, load_dataset
from .trainer import Interrupted, Trainer

__all__ = [
    "DATASETS",
    "MODELS",
    "Interrupted",
    "Settings",
    "Trainer",
    "build_model",
    "load_dataset",
]
