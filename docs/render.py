"""Writes what is measured or generated into the documentation, between two markers.

Run ``python -m docs.render`` after a benchmark or a change of the code generator; with ``--check``
it only says what is out of date and exits with 1. A marked place looks like this, and whatever
stands between the markers is replaced::

    <!-- results:overhead -->
    <!-- end -->

``results:NAME`` is a table of ``benchmarks/results/NAME.json`` with the command that measured it
(or a line that says that it was not measured yet), ``source:OP:FUNCTION`` the generated source of
one of an op's functions.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- (results|source):([\w:]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """The files that may have marked places."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rendered(text: str, results: Path = RESULTS) -> str:
    """``text`` with every marked place replaced.

    Raises:
        KeyError: if a marker names something that there is no renderer for.
    """

    def replace(match: re.Match) -> str:
        opening, kind, name, _, closing = match.groups()
        body = result(name, results) if kind == "results" else source(name)
        return f"{opening}{body}{closing}"

    return MARKED.sub(replace, text)


# ---- measured figures


def result(name: str, results: Path = RESULTS) -> str:
    """The section of one result file."""
    path = results / f"{name}.json"
    if name.startswith("expected_"):
        return _expected(path)
    table, command = _kernel_table(name) if name.startswith("kernels_") else TABLES[name]
    if not path.exists():
        return f"\nNot measured yet; `{command}` measures it.\n\n"
    document = json.loads(path.read_text(encoding="utf-8"))
    where = _machine(document["machine"])
    verb = "Predicted" if name == "parallel_plan_gpus" else "Measured"
    return f"\n{table(document)}\n{verb} with `{command}` on {where}.\n\n"


def _machine(info: dict[str, Any]) -> str:
    libraries = [("Python", "python"), ("NumPy", "numpy"), ("PyTorch", "torch"), ("CuPy", "cupy")]
    words = [f"{info['cpu']}, {info['cpus']} CPUs"]
    words += [f"{name} {info[key]}" for name, key in libraries if key in info]
    return f"{', '.join(words)} ({info['time'][:10]})"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _time(entry: dict[str, float]) -> str:
    seconds = entry["median_s"]
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _overhead(document: dict[str, Any]) -> str:
    rows = [
        [name, _time(case["pyframe"]), _time(case["torch"]), _ratio(case["ratio"])]
        for name, case in document["cases"].items()
    ]
    mean = _ratio(document["geometric_mean"])
    return (
        _table(["case", "pyframe", "PyTorch", "ratio"], rows)
        + f"\nThe geometric mean of the small cases is {mean} times PyTorch's time; a ratio below "
        "1 is faster. Medians, both in one process, a round of each in turn.\n"
    )


def _host_cost(document: dict[str, Any]) -> str:
    rows = []
    for name, kinds in document["cases"].items():
        cells = []
        for kind in ("forward", "recorded"):
            case = kinds.get(kind)
            times = ["", ""] if case is None else [_time(case[who]) for who in ("pyframe", "torch")]
            cells += [*times, "" if case is None else _ratio(case["ratio"])]
        rows.append([name, *cells])
    each = ["pyframe", "PyTorch, CPU", "ratio"]
    header = ["op", *each, *[f"{name}, recorded" for name in each]]
    forward, recorded = (_ratio(document["geometric_mean"][k]) for k in ("forward", "recorded"))
    return (
        _table(header, rows)
        + f"\nThe geometric means of the ratios are {forward} and, recorded for a gradient, "
        f"{recorded}.\n"
    )


def _allocator(document: dict[str, Any]) -> str:
    rows = [
        [name, _time(case["numpy"]), _time(case["cached"]), _ratio(case["ratio"])]
        for name, case in document["allocator"].items()
        if isinstance(case, dict)
    ]
    return _table(["case", "plain NumPy", "caching allocator", "ratio"], rows)


def _import_time(document: dict[str, Any]) -> str:
    rows = [
        ["`import numpy`", f"{document['numpy_s'] * 1e3:.0f} ms"],
        ["`import pyframe`", f"{document['pyframe_s'] * 1e3:.0f} ms"],
    ]
    return (
        _table(["program", "time"], rows)
        + f"\nThe ratio is {_ratio(document['ratio'])}; the time of an interpreter that imports "
        "nothing is taken off both.\n"
    )


def _dataloader(document: dict[str, Any]) -> str:
    rows = []
    for key, case in document.items():
        if key.startswith("workers_"):
            times = [_time(case[who]) for who in ("pyframe", "torch", "torch_indexed")]
            rows.append([key.removeprefix("workers_"), *times])
    header = ["workers", "pyframe", "PyTorch", "PyTorch, indexed by whole batches"]
    return (
        _table(header, rows)
        + "\nSeconds for one epoch over 60,000 images of 28 × 28, batch 64, shuffled.\n"
    )


def _steps(document: dict[str, Any]) -> str:
    header = ["training step", "pyframe", "PyTorch eager", "eager / pyframe"]
    rows = {
        name: [name, _time(row["pyframe"]), _time(row["torch"]), _ratio(row["ratio"])]
        for name, row in document["steps"].items()
    }
    text = f"\nGeometric mean over PyTorch eager: {_ratio(document['geometric_mean'])}"
    if "compiled_geometric_mean" in document:
        header += ["torch.compile", "compiled / pyframe"]
        for name, row in document["steps"].items():
            rows[name] += [_time(row["compiled"]), _ratio(row["compiled_ratio"])]
        text += f"; over torch.compile: {_ratio(document['compiled_geometric_mean'])}"
    if all("memory" in row for row in document["steps"].values()):
        header += ["peak memory, pyframe", "PyTorch"]
        for name, row in document["steps"].items():
            rows[name] += [f"{row['memory'][who] / 2**20:.0f} MB" for who in ("pyframe", "torch")]
    return (
        _table(header, list(rows.values()))
        + f"{text}. A ratio above 1 means that pyframe is faster; {document['threads']} threads.\n"
    )


def _kernels(document: dict[str, Any]) -> str:
    rows = []
    for case in document["cases"]:
        cells = [_time(case["time"]), "", "", f"{case['% of peak']:.0f} %"]
        if "torch" in case:
            cells[1:3] = [_time(case["torch"]), _ratio(case["ratio"])]
        rows.append([case["case"], *cells])
    peak, bandwidth = document["peak"] / 1e9, document["bandwidth"] / 1e9
    return (
        _table(["kernel", "pyframe", "PyTorch", "PyTorch / pyframe", "of the peak"], rows)
        + f"\nThe peak is that of the same run, {document['threads']} threads: {peak:.0f} GFLOP/s "
        f"of fused multiply-adds or {bandwidth:.0f} GB/s of copying, whichever is nearer; data "
        "that stays in a cache can pass it.\n"
    )


def _expected(path: Path) -> str:
    """Computed times of CUDA kernels: what benchmarks/gpu/expected.py wrote."""
    if not path.exists():
        return "\nNot computed yet; `python -m benchmarks.gpu.expected` computes it.\n\n"
    document = json.loads(path.read_text(encoding="utf-8"))
    if "summary" in document:
        return _summary(document)
    names = list(dict.fromkeys(name for case in document["cases"] for name in case["devices"]))
    header = ["case", "kernel", "registers", "shared", "blocks at once", "blocks"]
    header += [f"{name}" for name in names] + ["bound by"]
    rows = []
    for case in document["cases"]:
        found = case["devices"]
        cells = [case["case"], *_resources(case), f"{case['blocks']}"]
        cells += [_time({"median_s": found[n]["seconds"]}) if n in found else "" for n in names]
        cells.append(" / ".join(dict.fromkeys(entry["bound"] for entry in found.values())))
        rows.append(cells)
    return f"\n{_table(header, rows)}\nComputed with `{document['computed']}`.\n\n"


def _resources(case: dict[str, Any]) -> list[str]:
    """A kernel, its registers, shared memory and how many blocks there are at once."""
    cells = [f"`{case['instance']}`"]
    for what, scale in (("registers", 1), ("shared", 1024), ("resident", 1)):
        values = [f"{entry[what] / scale:.0f}" for entry in case["devices"].values()]
        cells.append(" / ".join(dict.fromkeys(values)) + (" KB" if scale > 1 else ""))
    return cells


def _summary(document: dict[str, Any]) -> str:
    """The times that a family sums up its cases to, and the kernels that take them."""
    summary = document["summary"]
    rows = [
        [_time({"median_s": x}) if isinstance(x, float) else f"{x}" for x in row]
        for row in summary["rows"]
    ]
    kernels = {case["instance"]: _resources(case) for case in document["cases"]}
    header = ["kernel", "registers", "shared", "blocks at once"]
    tables = _table(summary["header"], rows)
    if kernels:
        tables += f"\n{_table(header, list(kernels.values()))}"
    return f"\n{tables}\nComputed with `{document['computed']}`.\n\n"


def _all_reduce(document: dict[str, Any]) -> str:
    rows = [
        [name, _time(case["Allreduce"]), _time(case["all_reduce"]), f"{_ratio(case['times'])}"]
        for name, case in document["all_reduce"].items()
    ]
    header = ["float32", "mpi4py, in-place `Allreduce`", "`all_reduce`", "ratio"]
    return _table(header, rows) + f"\n{document['ranks']} ranks of one machine, a thread each.\n"


def _data_parallel(document: dict[str, Any]) -> str:
    rows = [["one rank, two threads", _time(document["alone"]), "1.00", "", ""]]
    for name, case in document["cases"].items():
        cells = [_time(case["steps"]), _ratio(case["throughput"])]
        cells += [f"{case[key] * 100:.1f} %" for key in ("exposed", "cost")]
        rows.append([f"two ranks, one thread, {name}", *cells])
    header = ["ResNet-18", "step", "samples/s, relative", "exposed", "less in `no_sync`"]
    return (
        _table(header, rows)
        + "\n*Exposed* is what filling buckets, waiting and handing out averages takes of a step. "
        f"Of transfers over a slow link {document['overlap']['hidden'] * 100:.0f} % are hidden "
        "behind the backward pass.\n"
    )


def _parallel_plan(document: dict[str, Any]) -> str:
    rows = [
        [name, *(f"{row[key] * 1e3:.4g} ms" for key in keys), _ratio(row["ratio"])]
        for keys in [("lone_s", "predicted_s", "measured_s")]
        for name, row in document["steps"].items()
    ]
    header = ["step", "without communication", "predicted", "measured", "predicted / measured"]
    return (
        _table(header, rows)
        + f"\nThe farthest is {document['worst'] * 100:.1f} % off; {document['ranks']} ranks, a "
        "thread each.\n"
    )


def _parallel_plan_gpus(document: dict[str, Any]) -> str:
    header = ["way", "GPUs", "step", "exposed", "efficiency", "tokens/s", "all-reduce"]
    rows = []
    for row in document["rows"]:
        exposed = f"{row['exposed'] * 1e3:.2f} ms"
        tokens = row["ranks"] * document["tokens_per_gpu"] / row["step"]
        cells = [f"{row['ranks']:,}", f"{row['step'] * 1e3:.2f} ms", exposed]
        cells += [f"{row['efficiency'] * 100:.1f} %", f"{tokens / 1e6:,.2f} million"]
        memory = sum(row["memory"].values()) / 2**30
        rows.append([row["way"], *cells, row["algorithm"], f"{memory:.1f} GiB"])
    inside, between = document["inside"], document["between"]
    return (
        _table([*header, "memory per GPU"], rows)
        + f"\nA GPT of {document['parameters'] / 1e6:.0f} million parameters with AdamW, "
        f"{document['tokens_per_gpu']:,} tokens per GPU and step. **Predicted, not measured**: a "
        f"GPU is assumed to do {document['flops_per_s'] / 1e12:.0f} TFLOP/s and to move "
        f"{document['bytes_per_s'] / 1e12:.2f} TB/s, eight of them to have "
        f"{inside['bandwidth'] / 1e9:.0f} GB/s to each other (NVLink 4) and "
        f"{between['bandwidth'] / 1e9:.0f} GB/s each to other nodes (InfiniBand NDR). The order of "
        "gradients and the bytes of activations are measured, with kernels of the CPU.\n"
    )


def _kernel_table(name: str) -> tuple[Callable[[dict[str, Any]], str], str]:
    return _kernels, f"python -m benchmarks.kernels {name.removeprefix('kernels_')}"


TABLES: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "overhead": (_overhead, "python -m benchmarks.overhead"),
    "host_cost": (_host_cost, "python -m benchmarks.gpu.host_cost"),
    "allocator": (_allocator, "python -m benchmarks.allocator"),
    "dataloader": (_dataloader, "python -m benchmarks.dataloader"),
    "import_time": (_import_time, "python -m benchmarks.import_time"),
    "steps": (_steps, "python -m benchmarks.steps --compile --memory"),
    "all_reduce": (_all_reduce, "python -m benchmarks.all_reduce"),
    "data_parallel": (_data_parallel, "python -m benchmarks.data_parallel"),
    "parallel_plan": (_parallel_plan, "python -m benchmarks.parallel_plan"),
    "parallel_plan_gpus": (_parallel_plan_gpus, "python -m benchmarks.parallel_plan --gpus"),
}


# ---- generated code


def source(name: str) -> str:
    """The generated source of ``OP:FUNCTION``, as a code block."""
    import numpy as np

    from pyframe.op.registry import ops

    op, _, function = name.partition(":")
    record = ops[op]
    if not hasattr(record.function, "source"):  # a pointwise op is compiled by its first call
        record.function(*[np.ones(1, np.float32) for _ in record.inputs])
    for part in record.function.source.strip().split("\n\n"):
        if part.startswith(f"def {function}("):
            fence = f"```python no-run generated from the record of {op}"
            return f"\n<!-- fmt: off -->\n\n{fence}\n{part.rstrip()}\n```\n\n<!-- fmt: on -->\n\n"
    raise KeyError(f"the generated source of {op} has no function {function!r}")


def main(arguments: list[str] | None = None) -> int:
    """Renders all pages, or checks them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = rendered(before)
        if before != after:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(after, encoding="utf-8")
    for page in stale:
        print(f"{page}: " + ("out of date, run python -m docs.render" if check else "written"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
