"""``pyframe ops`` (L6): the op table, from the records."""

from __future__ import annotations

from typing import Annotated

import typer


def list_ops(
    pattern: Annotated[str, typer.Argument(help="show only ops whose name contains this")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="print a Markdown table")] = False,
) -> None:
    """List the ops: inputs, parameters, gradient and kernels."""
    rows = op_rows(pattern)
    header = ["op", "inputs", "parameters", "gradient", "kernels", "exported as"]
    if markdown:
        typer.echo(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for row in rows:
            typer.echo("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(rows)} ops")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table, highlight=False)


def op_rows(pattern: str = "") -> list[list[str]]:
    """One row of text per op, sorted by name."""
    from .. import nn  # noqa: F401  (its functions register ops too)
    from ..op.registry import ops

    rows = []
    for name in sorted(ops):
        op = ops[name]
        if pattern not in name:
            continue
        inputs = ", ".join(
            i.name + ("?" if i.optional else "[]" if i.is_list else "") for i in op.inputs
        )
        params = ", ".join(p.name if p.required else f"{p.name}={p.default!r}" for p in op.params)
        gradient = "-" if op.vjp is None else "symbolic" if op.expr is not None else "rule"
        kernels = ", ".join(f"{k}: {', '.join(x.name for x in v)}" for k, v in op.kernels.items())
        where = ", ".join(
            {"pyframe": "pf", "functional": "F", "Tensor": "Tensor"}[e] for e in op.export
        )
        rows.append([name, inputs, params, gradient, kernels or "portable", where])
    return rows
