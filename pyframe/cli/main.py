"""The ``pyframe`` command: its sub-commands and how errors are shown (L6)."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..errors import PyframeError
from .doctor import doctor
from .launch import launch
from .ops import list_ops
from .parallel import parallel
from .predict import predict
from .train import train

app = typer.Typer(
    name="pyframe",
    help="Tensors with gradients on NumPy and CuPy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(predict)
app.command()(doctor)
app.command("ops")(list_ops)
# What follows the program is the program's own, options too.
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    launch
)
app.add_typer(parallel, name="parallel")


def _version(value: bool) -> None:
    if value:
        from .. import __version__

        print(f"pyframe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command line. An error of pyframe's own is one message, not a traceback."""
    try:
        app()
    except PyframeError as error:
        from rich.console import Console
        from rich.markup import escape

        text = f"[bold red]error[/]: {escape(str(error))}"
        Console(stderr=True).print(text, highlight=False)
        sys.exit(1)
