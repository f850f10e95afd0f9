"""``pyframe train`` (L6): a progress bar, a run folder, pictures."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    model: Annotated[
        str | None, typer.Argument(help="mlp, lenet or resnet18", show_default="lenet")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="digits, mnist or fashion-mnist", show_default="digits")
    ] = None,
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
    ranks: Annotated[int | None, typer.Option(help="processes that share each batch")] = None,
) -> None:
    """Train a network and evaluate it on held-out data."""
    from ..train import Interrupted, Settings, Trainer
    from ..train.ranks import ONE, Ranks, inside_a_job

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
        "ranks": ranks,
    }
    if resume is not None:
        settings, folder = _continued(Settings.load(resume), changes), resume
    else:
        settings = Settings(**{k: v for k, v in changes.items() if v is not None})
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = out or Path("runs") / f"{settings.model}-{stamp}"
        _check_new(folder)
    inside = inside_a_job()
    if settings.ranks > 1 and not inside:
        raise typer.Exit(_launch(settings, folder, resume is not None, changes))
    place = Ranks.join(settings.ranks) if inside else ONE
    folder = place.first(folder)  # its name may have the time, which differs a little
    trainer = Trainer(settings, folder, resume=resume is not None, ranks=place)
    _introduce(trainer)
    try:
        if place.rank:
            trainer.run()
        else:
            with _Progress(settings.epochs, trainer.epoch) as progress:
                trainer.run(progress.report)
    except Interrupted:
        if place.rank:  # the job's exit code is rank 0's
            raise typer.Exit from None
        if not inside:
            _say_stopped(folder)
        raise typer.Exit(130) from None
    _finish(trainer)


# What may differ when a run goes on: it decides where and how fast, not what comes out.
_FREE = ("device", "ranks", "data_folder", "checkpoint_seconds")


def _continued(settings: Any, changes: dict[str, Any]) -> Any:
    """The settings of a run that goes on; refuses those that would make it another one."""
    for name, value in changes.items():
        if value is None or name in _FREE or value == getattr(settings, name):
            continue
        raise typer.BadParameter(
            f"the run was started with {getattr(settings, name)}, and goes on as it was started",
            param_hint=f"--{name.replace('_', '-')}",
        )
    return settings.changed(**{k: changes[k] for k in _FREE if changes[k] is not None})


def _check_new(folder: Path) -> None:
    """Refuses to write over a run. One without a checkpoint has nothing to lose."""
    if (folder / "checkpoint.safetensors").exists():
        raise typer.BadParameter(
            f"{folder} has a run. Continue it with --resume {folder}, or choose another folder",
            param_hint="--out",
        )


def _launch(settings: Any, folder: Path, resume: bool, changes: dict[str, Any]) -> int:
    """Starts the same command on every rank."""
    from ..parallel.launch import launch

    command = ["-m", "pyframe", "train"]
    if resume:
        command += ["--resume", str(folder)]
        given = {name: getattr(settings, name) for name in _FREE}
    else:
        command += ["--out", str(folder)]
        given = changes
    for name, value in given.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    code = launch(command, settings.ranks)
    if code == 130:  # here, since mpirun drops what a rank says on its way out
        _say_stopped(folder)
    return code


def _say_stopped(folder: Path) -> None:
    typer.echo(f"Stopped. Continue with: pyframe train --resume {folder}")


def _introduce(trainer: Any) -> None:
    from ..backend import native

    settings, source, ranks = trainer.settings, trainer.source, trainer.ranks
    if ranks.size > 1:
        count = native.num_threads() if native.available() else 1
        threads = f"{count} thread{'s' * (count > 1)}"
        typer.echo(f"[rank {ranks.rank}] of {ranks.size}: process {os.getpid()}, {threads}")
    if ranks.rank:
        return
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
    result = evaluate(trainer.model, trainer.source, trainer.device, ranks=trainer.ranks)
    if trainer.ranks.rank:
        return
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
