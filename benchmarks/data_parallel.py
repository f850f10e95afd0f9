"""Data parallel training of ResNet-18 on two ranks: ``python -m benchmarks.data_parallel``.

Measured with batches of 32 images of 3 x 32 x 32, by turns in processes of their own:

* two ranks with one thread each, 16 images per rank, against one rank with two threads;
* the same with 32 images per rank;
* what of the communication is exposed in a step: gathering gradients into buckets, waiting, and
  handing the averages out, as a share of the step; and how much shorter steps are in ``no_sync``,
  where nothing is sent, which also counts what the transfers take from the computation;
* how much of transfers over a slow link is hidden behind backward. The link is a transport that
  waits before it hands on, so that it takes time but no processor.

``--picture`` draws the last one's timeline from the results into ``docs/overlap.png``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import networks
from benchmarks.picture import save
from benchmarks.timing import RESULTS, Stats, print_table, write_result

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "overlap.png"
BATCH = 32
ROUNDS = 3
WARM_UP = 3
TARGETS = {"throughput": 0.9, "exposed": 0.10, "hidden": 0.80}
SHARE = 0.5  # of backward that transfers over the slow link take together
BUCKET = 4.0  # MiB, there: a link that slow needs small buckets to end soon after backward


class SlowLink:
    """A transport whose reductions take ``seconds_per_byte`` longer; notes when they ran."""

    def __init__(self, inner: Any, seconds_per_byte: float) -> None:
        self.inner, self.seconds_per_byte = inner, seconds_per_byte
        self.spans: list[tuple[float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def all_reduce(self, array: Any, op: Any, watch: Any) -> None:
        """Waits, then reduces."""
        begun = time.perf_counter()
        time.sleep(array.nbytes * self.seconds_per_byte)
        self.inner.all_reduce(array, op, watch)
        self.spans.append((begun, time.perf_counter()))


def _stepper(images: int, bucket: float | None = None) -> tuple[Any, Any]:
    """(the network on its ranks, a function that makes one step) for a batch of ``images``."""
    import pyframe as pf
    from pyframe import parallel

    pf.manual_seed(0)
    net: Any = networks.resnet18(pf)
    if parallel.is_initialized():
        net = parallel.DistributedDataParallel(net, bucket_cap_mb=bucket)
    optimizer = pf.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    random = np.random.default_rng(2)
    x = pf.from_numpy(random.standard_normal((images, 3, 32, 32)).astype(np.float32))
    y = pf.from_numpy(random.integers(0, 10, images))

    def step() -> None:
        optimizer.zero_grad()
        pf.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return net, step


def _times(step: Any, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return seconds


def _exposed(trace: list[tuple[str, float, float]]) -> float:
    """Seconds in which the program gathered, waited and handed out."""
    kinds = ("send", "wait", "deliver")
    return sum(end - begun for what, begun, end in trace if what.split()[0] in kinds)


def work(path: Path, what: str, images: int, count: int) -> None:
    """What a rank runs; rank 0 writes its figures as JSON."""
    from pyframe import parallel

    found: dict[str, Any] = {}
    if what != "alone":
        parallel.init_process_group(timeout=300.0)
    net, step = _stepper(images, BUCKET if what == "overlap" else None)
    _times(step, WARM_UP)
    if what == "overlap":
        found = _overlap(net, step)
    else:
        if what == "ranks":
            parallel.barrier()
            net.trace = []
        found["steps"] = _times(step, count)
        if what == "ranks":
            found["exposed"] = _exposed(net.trace) / sum(found["steps"])
            net.trace = None
            with net.no_sync():
                _times(step, 1)
                parallel.barrier()
                found["no_sync"] = _times(step, count)
    if what == "alone" or parallel.get_rank() == 0:
        path.write_text(json.dumps(found))
    if what != "alone":
        parallel.barrier()
        parallel.destroy_process_group()


def _overlap(net: Any, step: Any) -> dict[str, Any]:
    from pyframe import parallel

    size = sum(bucket.size * bucket.dtype.itemsize for bucket in net._buckets)
    net.trace = []
    _times(step, 3)
    backward = min(end - begun for what, begun, end in net.trace if what == "backward")
    seconds = np.array([SHARE * backward / size])
    parallel.broadcast(seconds, 0)
    link = SlowLink(net._group.control, float(seconds[0]))
    net._group.control = link
    rows = []
    for _ in range(3):
        parallel.barrier()
        net.trace, link.spans = [], []
        begun = time.perf_counter()
        step()
        end = time.perf_counter()
        waits = sum(b - a for what, a, b in net.trace if what.startswith("wait"))
        transfers = sum(b - a for a, b in link.spans)
        rows.append(
            {
                "hidden": 1 - waits / transfers,
                "step": end - begun,
                "transfers": [[a - begun, b - begun] for a, b in link.spans],
                "trace": [[what, a - begun, b - begun] for what, a, b in net.trace],
            }
        )
    net._group.control = link.inner
    return sorted(rows, key=lambda row: row["hidden"])[1]  # the median one


def _run(what: str, images: int, count: int, ranks: int, threads: int) -> dict[str, Any]:
    from pyframe.parallel.launch import launch

    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = ["-m", "benchmarks.data_parallel", "--work", str(file), what]
        command += ["--images", str(images), "--count", str(count)]
        variables = {"PYTHONPATH": path}
        if launch(command, ranks, threads=threads, environment=variables):
            raise SystemExit("the ranks failed, see above")
        return json.loads(file.read_text())


def main() -> None:
    """Measure, print and write ``benchmarks/results/data_parallel.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of few steps, not written")
    parser.add_argument("--picture", action="store_true", help="draw from the results")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=BATCH, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=8, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(Path(options.work[0]), options.work[1], options.images, options.count)
        return
    if options.picture:
        results = json.loads((RESULTS / "data_parallel.json").read_text(encoding="utf-8"))
        draw(results["overlap"], PICTURE)
        return
    rounds, count = (1, 3) if options.quick else (ROUNDS, options.count)
    alone: list[float] = []
    halves: dict[str, list] = {"steps": [], "exposed": [], "no_sync": []}
    wholes: dict[str, list] = {"steps": [], "exposed": [], "no_sync": []}
    for _ in range(rounds):
        alone.append(median(_run("alone", BATCH, count, 1, 2)["steps"]))
        for images, rows in ((BATCH // 2, halves), (BATCH, wholes)):
            found = _run("ranks", images, count, 2, 1)
            for name, values in rows.items():
                values.append(found[name] if name == "exposed" else median(found[name]))
    overlap = _run("overlap", BATCH // 2, count, 2, 1)
    one = Stats(tuple(alone), 1)
    cases: dict[str, Any] = {}
    table: list[list[object]] = [["one rank, two threads", one, BATCH / one.median, 1.0, "", ""]]
    for images, rows in ((BATCH // 2, halves), (BATCH, wholes)):
        steps, quiet = Stats(tuple(rows["steps"]), 1), Stats(tuple(rows["no_sync"]), 1)
        speed = one.ratio_to(steps) * 2 * images / BATCH
        cost = median(1 - q / s for s, q in zip(steps.samples, quiet.samples, strict=True))
        cases[f"{images} images per rank"] = {
            "steps": steps,
            "no_sync": quiet,
            "throughput": speed,
            "exposed": median(rows["exposed"]),
            "cost": cost,
        }
        name = f"two ranks, one thread, {images} images each"
        samples = 2 * images / steps.median
        table.append([name, steps, samples, speed, median(rows["exposed"]), cost])
    header = ["ResNet-18", "step", "samples/s", "relative", "exposed", "less in no_sync"]
    targets = ", ".join(f"{name} {value}" for name, value in TARGETS.items())
    print_table(f"data parallel training (targets: {targets})", header, table)
    print(f"hidden on a slow link: {overlap['hidden']:.1%}")
    if not options.quick:
        document = {"alone": one, "cases": cases, "overlap": overlap, "targets": TARGETS}
        write_result("data_parallel", document)


def draw(overlap: dict[str, Any], path: Path) -> None:
    """The timeline of one step on rank 0: what it computes, and what is on its way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colours = {"forward": "#8fb8d0", "backward": "#2a6f97", "wait": "#c2452d", "deliver": "#d9a441"}
    figure, axes = plt.subplots(figsize=(10, 3.4), dpi=110)
    seen: set[str] = set()
    for what, begun, end in overlap["trace"]:
        kind = what.split()[0]
        if kind in colours:
            label = None if kind in seen else kind
            seen.add(kind)
            left, width = 1e3 * begun, 1e3 * (end - begun)
            axes.barh(1, width, left=left, height=0.5, color=colours[kind], label=label)
    for number, (begun, end) in enumerate(overlap["transfers"]):
        label = None if number else "transfer of a bucket"
        shade = "#5b8c5a" if number % 2 else "#87b386"
        left, width = 1e3 * begun, 1e3 * (end - begun)
        axes.barh(0, width, left=left, height=0.5, color=shade, label=label)
    axes.axvline(1e3 * overlap["step"], color="0.4", linewidth=1, linestyle="--")
    axes.text(1e3 * overlap["step"], 1.62, "end of the step", ha="right", fontsize=8, color="0.3")
    axes.set_yticks([0, 1], ["on the link", "computing"])
    axes.set_ylim(-0.5, 1.8)
    axes.set_xlabel("milliseconds from the beginning of the step")
    axes.set_title(
        f"ResNet-18 on two ranks over a slow link: {overlap['hidden']:.0%} of the transfers' time "
        "is hidden",
        loc="left",
        fontsize=11,
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=5, frameon=False, fontsize=9)
    save(figure, axes, path)


if __name__ == "__main__":
    sys.exit(main())
