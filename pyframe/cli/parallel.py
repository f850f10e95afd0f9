"""``pyframe parallel plan`` (L6): what a step would take on more ranks than are at hand."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

parallel = typer.Typer(help="Planning for several ranks.", no_args_is_help=True)


@parallel.callback()
def _group() -> None:
    pass  # so that `plan` stays a sub-command while it is the only one


@parallel.command()
def plan(
    model: Annotated[
        str,
        typer.Argument(
            help="mlp, lenet or resnet18; or PROGRAM.py:FUNCTION, which returns "
            "(model, loss, optimizer, samples), loss being a function that computes a batch's loss"
        ),
    ] = "resnet18",
    batch_size: Annotated[int, typer.Option(help="samples per step and rank")] = 32,
    ranks: Annotated[str, typer.Option(help="numbers of ranks")] = "1,2,4,8,64,1024",
    per_node: Annotated[int, typer.Option(help="ranks of a node")] = 8,
    inside: Annotated[
        str, typer.Option(help="link inside a node: a name, or LATENCY,BANDWIDTH in s and bytes/s")
    ] = "nvlink4",
    between: Annotated[str, typer.Option(help="each rank's link to other nodes")] = "ndr",
    device: Annotated[str, typer.Option(help="where the step is measured")] = "cpu",
    step_seconds: Annotated[
        float | None, typer.Option(help="what the step takes on the planned processor")
    ] = None,
    bucket_mb: Annotated[float, typer.Option(help="largest bucket of gradients")] = 25.0,
    contention: Annotated[
        float, typer.Option(help="share of the processor that a transfer takes: 1 on a CPU")
    ] = 0.0,
    zero: Annotated[bool, typer.Option("--zero", help="sharded optimizer state")] = False,
    profile: Annotated[
        Path | None, typer.Option(help="read the step's profile instead of measuring")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="write the step's profile")] = None,
) -> None:
    """Predict step time, exposed communication and memory on more ranks.

    One rank's step is measured here, or read from a profile. The formulas and their sources are in
    pyframe/parallel/link_model.py and plan.py.
    """
    from ..parallel.link_model import NCCL_START, Cluster, link
    from ..parallel.plan import predict, table
    from ..parallel.step_profile import Profile, measure

    numbers = _numbers(ranks)
    cluster = Cluster(per_node, link(inside), link(between), NCCL_START)
    for number in numbers:
        cluster.nodes(number)  # complains before anything is measured
    if profile is not None:
        measured = Profile.load(profile)
    else:
        network, loss, optimizer, samples = _workload(model, batch_size, device)
        measured = measure(network, loss, optimizer, samples=samples, name=model)
    if save is not None:
        measured.save(save)
    if step_seconds is not None:
        measured = measured.scaled(step_seconds)
    typer.echo(
        f"{measured.name}: {measured.samples} samples per rank, step {measured.step * 1e3:.4g} ms "
        f"(forward {measured.forward * 1e3:.3g}, backward {measured.backward * 1e3:.3g}, optimizer "
        f"{measured.optimizer * 1e3:.3g}), {measured.parameter_bytes / 1e6:.4g} MB of parameters"
    )
    limit = int(bucket_mb * 2**20)
    header, rows = table(
        [
            predict(
                measured,
                cluster,
                number,
                bucket_bytes=limit,
                contention=contention,
                sharded=zero,
            )
            for number in numbers
        ]
    )
    _print(header, rows)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part.replace("_", "")) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers", param_hint="--ranks") from None


def _workload(model: str, batch_size: int, device: str) -> tuple[Any, Callable[[], Any], Any, int]:
    if ":" in model:
        path, _, name = model.rpartition(":")
        functions = runpy.run_path(path)
        if name not in functions:
            raise typer.BadParameter(f"{path} has no {name}", param_hint="MODEL")
        return functions[name]()
    from .. import manual_seed, randint, randn
    from ..nn.functional import cross_entropy
    from ..optim import SGD
    from ..train.models import build_model

    shape = (3, 32, 32) if model == "resnet18" else (1, 28, 28)
    manual_seed(0)
    network = build_model(model, shape, 10).to(device)
    images = randn(batch_size, *shape, device=device)
    labels = randint(0, 10, (batch_size,), device=device)
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9)
    return network, lambda: cross_entropy(network(images), labels), optimizer, batch_size


def _print(header: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table()
    for name in header:
        shown.add_column(name, justify="left" if name == "algorithm" else "right")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown, highlight=False)
