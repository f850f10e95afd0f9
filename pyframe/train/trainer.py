"""The training loop (L6): one state, saved whole; a resumed run is the uninterrupted one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import random
from ..autograd import no_grad
from ..backend import native
from ..data import BatchSampler, DataLoader, DistributedSampler, RandomSampler
from ..data.transforms import RandomCrop
from ..device import Device
from ..nn import functional
from ..optim import AdamW
from ..optim.lr_scheduler import OneCycleLR
from .models import build_model
from .ranks import ONE, Ranks
from .run_folder import RunFolder
from .settings import Settings
from .sources import Source, load_dataset

Report = Callable[[dict[str, Any]], None]


class Interrupted(Exception):  # noqa: N818  (no error: the user asked for it)
    """The run was asked to stop; its checkpoint is written."""


class Trainer:
    """Trains ``settings.model`` on ``settings.data``.

    On several ranks each has a part of every batch, the same batches that one rank would have, in
    the same order. Rank 0 writes the folder. A run goes on exactly on the same number of ranks; on
    another one it goes on with the same batches, but other dropout masks and shifts.

    Args:
        settings: what to train.
        folder: the run folder.
        resume: continue from the folder's checkpoint.
        source: the data, if it is already loaded.
        ranks: this process among the ranks; alone by default.

    Raises:
        FileError: if there is nothing to resume, or it is damaged.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        resume: bool = False,
        source: Source | None = None,
        ranks: Ranks = ONE,
    ) -> None:
        self.settings = settings
        self.ranks = ranks
        self.source = source or load_dataset(settings.data, settings.data_folder)
        self.device = Device(settings.device)
        self.device.backend  # noqa: B018  an absent device must not leave an empty run folder
        self.folder = RunFolder(folder)
        random.manual_seed(settings.seed)
        self.model = build_model(settings.model, self.source.shape, len(self.source.classes))
        self.model.to(self.device)
        self.model, self.parallel = ranks.wrapped(self.model)
        ranks.own_stream()
        self.optimizer = AdamW(
            self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        # The order has random numbers of its own: it is the same on all ranks, and for any number.
        order = random.Generator().manual_seed(settings.seed)
        train: Any = self.source.train
        batches = BatchSampler(
            RandomSampler(train, generator=order),
            settings.batch_size,
            drop_last=False,
        )
        self.loader: DataLoader = DataLoader(
            train, batch_sampler=ranks.share(batches), generator=order
        )
        self.schedule = OneCycleLR(
            self.optimizer,
            max_lr=settings.lr,
            epochs=settings.epochs,
            steps_per_epoch=len(self.loader),
        )
        self.shift = None
        if settings.shift:
            self.shift = RandomCrop(
                self.source.shape[1:], settings.shift, generator=random.default_generator
            )
        self.epoch = 0
        self.totals = _Totals()
        self.rows = 0
        self._stop = False
        self._saved_at = time.monotonic()
        if resume:
            self._restore(self.folder.load_checkpoint())
        elif ranks.rank == 0:
            for path in (self.folder.metrics_path, self.folder.checkpoint_path):
                path.unlink(missing_ok=True)
            settings.save(self.folder.path)

    # ---- running

    def run(self, report: Report = lambda event: None) -> dict[str, Any]:
        """Trains to the end and returns the last epoch's metrics.

        Args:
            report: called with ``{"event": "step" | "epoch", …}`` after each step and epoch.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM, when the checkpoint has been written.
        """
        metrics: dict[str, Any] = {}
        with self._stop_at_step_end():
            while self.epoch < self.settings.epochs:
                metrics = self._epoch(report)
        rows = self.folder.read_metrics()
        return metrics or (rows[-1] if rows else {})

    def _epoch(self, report: Report) -> dict[str, Any]:
        self.model.train()
        started = time.perf_counter()
        before = self.totals.seen
        for images, labels in self.loader:
            self._step(images, labels)
            elapsed = time.perf_counter() - started
            report(
                {
                    "event": "step",
                    "epoch": self.epoch + 1,
                    "step": self.totals.steps,
                    "steps": len(self.loader),
                    "loss": self.totals.mean_loss,
                    "accuracy": self.totals.accuracy,
                    "samples_per_second": (self.totals.seen - before) / max(elapsed, 1e-9),
                }
            )
            if self._stop:
                self._checkpoint()
                self.ranks.wait()  # a rank that leaves ends the job, also where it still writes
                raise Interrupted(str(self.folder.path))
            if time.monotonic() - self._saved_at > self.settings.checkpoint_seconds:
                self._checkpoint()
        seconds = time.perf_counter() - started
        held_out = evaluate(self.model, self.source, self.device, ranks=self.ranks)
        metrics = {
            "epoch": self.epoch + 1,
            "loss": self.totals.mean_loss,
            "accuracy": self.totals.accuracy,
            "held_out_loss": held_out["loss"],
            "held_out_accuracy": held_out["accuracy"],
            "lr": self.optimizer.param_groups[0]["lr"],
            "samples_per_second": (self.totals.seen - before) / max(seconds, 1e-9),
        }
        if self.ranks.rank == 0:
            self.folder.append_metrics(metrics)
        self.rows += 1
        self.epoch += 1
        self.totals = _Totals()
        if self.ranks.rank == 0:  # before the checkpoint: a finished run has its weights
            self.folder.save_model(
                self.model.state_dict(),
                {"model": self.settings.model, "epoch": str(self.epoch)},
            )
        self._checkpoint()
        report({"event": "epoch", **metrics})
        return metrics

    def _step(self, images: Any, labels: Any) -> None:
        if self.shift is not None:
            images = self.shift(images)
        images, labels = images.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        logits = self.parallel(images)
        loss = functional.cross_entropy(
            logits, labels, label_smoothing=self.settings.label_smoothing
        )
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        correct = (logits.detach().argmax(1) == labels).sum()
        count = labels.shape[0]  # may be 0 on a rank: then the loss is NaN
        mine = (loss.item() * count if count else 0.0, int(correct.item()), count, self._stop)
        lost, right, seen, stop = self.ranks.sum(mine)
        self.totals.add(lost, int(right), int(seen))
        self._stop = bool(stop)  # all ranks stop after the same step

    @contextmanager
    def _stop_at_step_end(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run between two steps; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: Any) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        previous = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    # ---- state

    def _checkpoint(self) -> None:
        self._saved_at = time.monotonic()
        if self.ranks.rank:
            return
        self.folder.save_checkpoint(
            {
                "model": dict(self.model.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "loader": self.loader.state_dict(),
                "random": random.get_rng_state(),
                "epoch": self.epoch,
                "totals": self.totals.state(),
                "rows": self.rows,
                "threads": native.num_threads(),
            }
        )
        self._saved_at = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.loader.load_state_dict(state["loader"])
        random.set_rng_state(state["random"])
        self.ranks.own_stream()
        self.epoch = state["epoch"]
        self.totals = _Totals(*state["totals"])
        self.rows = state["rows"]
        if self.ranks.rank == 0:
            self.folder.keep_metrics(self.rows)


class _Totals:
    """Sums over the epoch so far."""

    def __init__(self, loss: float = 0.0, correct: int = 0, seen: int = 0, steps: int = 0) -> None:
        self.loss, self.correct, self.seen, self.steps = loss, correct, seen, steps

    def add(self, loss: float, correct: int, samples: int) -> None:
        """Adds one batch, by its sum of losses."""
        self.loss += loss
        self.correct += correct
        self.seen += samples
        self.steps += 1

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.seen, 1)

    @property
    def accuracy(self) -> float:
        return self.correct / max(self.seen, 1)

    def state(self) -> list:
        """What the constructor takes."""
        return [self.loss, self.correct, self.seen, self.steps]


def evaluate(
    model: Any, source: Source, device: Device, batch_size: int = 256, ranks: Ranks = ONE
) -> dict[str, Any]:
    """Mean loss, accuracy and confusion matrix (rows: true class) on the held-out data.

    Each rank reads its share, no sample twice.
    """
    classes = len(source.classes)
    confusion = np.zeros((classes, classes), np.int64)
    total = 0.0
    was_training = model.training
    model.eval()
    with no_grad():
        sampler = DistributedSampler(source.held_out, ranks.size, ranks.rank, shuffle=False)
        loader: DataLoader = DataLoader(source.held_out, batch_size, sampler=sampler)
        for images, labels in loader:
            logits = model(images.to(device))
            total += functional.cross_entropy(logits, labels.to(device), reduction="sum").item()
            guesses = logits.argmax(1).cpu().numpy()
            np.add.at(confusion, (labels.numpy(), guesses), 1)
    model.train(was_training)
    total, *cells = ranks.sum((total, *confusion.reshape(-1).tolist()))
    confusion = np.array(cells, np.int64).reshape(confusion.shape)
    count = max(int(confusion.sum()), 1)
    return {
        "loss": total / count,
        "accuracy": float(np.trace(confusion)) / count,
        "confusion": confusion,
    }
