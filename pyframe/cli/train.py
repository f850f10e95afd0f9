"""``pyframe train`` (L6): a progress bar, a run folder, pictures."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    model: Annotated[str, typer.Argument(help="mlp, lenet or resnet18")] = "lenet",
    data: Annotated[str, typer.Option(help="digits, mnist or fashion-mnist")] = "digits",
    data_folder: Annotated[
        str | None, typer.Option(help="folder with IDX files (mnist, fashion-mnist)")
    ] = None,
    model_option: Annotated[
        str | None, typer.Option("--model", help="the same as the argument")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the data")] = None,
    batch_size: Annotated[int | None, typer.Option(help="samples per step")] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
    seed: Annotated[int | None, typer.Option(help="of weights, shuffling and dropout")] = None,
    out: Annotated[Path | None, typer.Option(help="run folder (default: runs/MODEL-TIME)")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="continue the run in this folder exactly")
    ] = None,
    checkpoint_seconds: Annotated[
        float | None, typer.Option(help="time between checkpoints inside an epoch")
    ] = None,
) -> None:
    """Train a network and evaluate it on held-out data."""
    from ..train import Interrupted, Settings, Trainer

    changes: dict[str, Any] = {
        "model": model_option or model,
        "data": data,
        "data_folder": data_folder,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "device": device,
        "seed": seed,
        "checkpoint_seconds": checkpoint_seconds,
    }
    if resume is not None:
        settings, folder = Settings.load(resume), resume
        if epochs is not None and epochs != settings.epochs:
            raise typer.BadParameter(
                f"the run was started for {settings.epochs} epochs, and its learning rate schedule "
                "depends on that",
                param_hint="--epochs",
            )
        if device is not None:
            settings = settings.changed(device=device)
    else:
        settings = Settings(**{k: v for k, v in changes.items() if v is not None})
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = out or Path("runs") / f"{settings.model}-{stamp}"
    trainer = Trainer(settings, folder, resume=resume is not None)
    _introduce(trainer)
    try:
        with _Progress(settings.epochs, trainer.epoch) as progress:
            trainer.run(progress.report)
    except Interrupted:
        typer.echo(f"Stopped. Continue with: pyframe train --resume {folder}")
        raise typer.Exit(130) from None
    _finish(trainer)


def _introduce(trainer: Any) -> None:
    from ..backend import native

    settings, source = trainer.settings, trainer.source
    count = sum(p.numel() for p in trainer.model.parameters())
    typer.echo(
        f"{settings.model} ({count:,} parameters) on {settings.data} "
        f"({len(source.train)} training images, {len(source.held_out)} held out), {settings.device}"
    )
    if settings.device == "cpu":
        if native.available():
            typer.echo(f"native extension: {native.isa()}, {native.num_threads()} threads")
        else:
            typer.echo(f"without the native extension ({native.why_not()})")
    if trainer.epoch or trainer.totals.steps:
        typer.echo(f"resumed at epoch {trainer.epoch + 1}, step {trainer.totals.steps}")


class _Progress:
    """A bar for the whole run and a line per epoch."""

    def __init__(self, epochs: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console()
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn(
                "loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.2%}  "
                "{task.fields[speed]:,.0f} samples/s"
            ),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task(
            "train",
            total=epochs,
            completed=done,
            epoch=done + 1,
            epochs=epochs,
            loss=0.0,
            accuracy=0.0,
            speed=0.0,
        )

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def report(self, event: dict[str, Any]) -> None:
        """Shows a step or an epoch."""
        if event["event"] == "step":
            self.bar.update(
                self.task,
                completed=event["epoch"] - 1 + event["step"] / event["steps"],
                epoch=event["epoch"],
                loss=event["loss"],
                accuracy=event["accuracy"],
                speed=event["samples_per_second"],
            )
            return
        self.bar.console.print(
            f"epoch {event['epoch']:3d}  loss {event['loss']:.4f}  "
            f"accuracy {event['accuracy']:.2%}  held out: loss {event['held_out_loss']:.4f}  "
            f"accuracy {event['held_out_accuracy']:.2%}  "
            f"({event['samples_per_second']:,.0f} samples/s)",
            highlight=False,
        )


def _finish(trainer: Any) -> None:
    from ..errors import MissingDependencyError
    from ..train.events import write_events
    from ..train.pictures import draw_confusion, draw_curves
    from ..train.trainer import evaluate

    folder, settings = trainer.folder, trainer.settings
    result = evaluate(trainer.model, trainer.source, trainer.device)
    rows = folder.read_metrics()
    try:
        draw_curves(rows, folder.path / "curves.png", f"{settings.model} on {settings.data}")
        draw_confusion(result["confusion"], trainer.source.classes, folder.path / "confusion.png")
    except MissingDependencyError as error:
        typer.echo(f"No pictures: {error}")
    write_events(rows, folder.path)
    typer.echo(
        f"held-out accuracy {result['accuracy']:.2%} "
        f"({int(result['confusion'].trace())} of {int(result['confusion'].sum())}) "
        f"-> {folder.path}/"
    )
