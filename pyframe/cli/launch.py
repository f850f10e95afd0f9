"""``pyframe launch`` (L6): a program on several processes."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer


def launch(
    program: Annotated[
        list[str], typer.Argument(help="a Python file (or: -m MODULE) and its arguments")
    ],
    ranks: Annotated[int, typer.Option("-n", "--ranks", help="processes")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="threads of each rank (default: the CPUs are shared out)")
    ] = None,
    bind: Annotated[bool, typer.Option(help="CPUs of its own for each rank")] = True,
    hosts: Annotated[
        str | None, typer.Option(help="machines and their ranks, such as a:2,b:2")
    ] = None,
    mpirun_options: Annotated[str, typer.Option(help="further options of mpirun")] = "",
) -> None:
    """Run a program on several processes with mpirun.

    Options of pyframe launch come before the program; what follows it is the program's own.
    """
    from ..parallel.launch import launch as run

    names = [name for name in (hosts or "").split(",") if name]
    extra = shlex.split(mpirun_options)
    raise typer.Exit(run(program, ranks, threads=threads, bind=bind, hosts=names, extra=extra))
