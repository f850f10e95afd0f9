"""Predicted against measured steps of two ranks, and the prediction for many GPUs.

Run with ``python -m benchmarks.parallel_plan [network...]``. Two ranks of this machine, one thread
each, take turns between steps without communication, all-reduces alone, and steps with
``DistributedDataParallel``. The first two are what ``pyframe.parallel.plan`` is given, the third is
what it has to predict.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import networks
from benchmarks.timing import print_table, write_result

TARGET = 0.15
ROUNDS = 8
BUCKET = 25 << 20
SIZES = tuple(1 << power for power in range(12, 27, 2))  # bytes of the all-reduces: 4 KiB to 64 MiB

# An assumption, no measurement: what a training step gets out of an H100 (SXM). Makers' figures:
# 989 TFLOP/s of dense bfloat16 products, 3.35 TB/s.
GPU_FLOPS = 0.4 * 989e12
GPU_BANDWIDTH = 0.8 * 3.35e12
GPUS = (1, 8, 64, 1024)


def _workloads() -> dict[str, Callable[[Any], tuple[Any, Any, Any, Any]]]:
    """By name: a function of the framework that gives net, inputs, labels and optimizer's class."""

    def images(count: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(2)
        return (
            random.standard_normal((count, *shape)).astype(np.float32),
            random.integers(0, 10, count),
        )

    def text(count: int, length: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.random.default_rng(2).integers(0, vocabulary, (count, length + 1))
        return np.ascontiguousarray(tokens[:, :-1]), tokens[:, 1:].reshape(-1)

    return {
        "MLP 784-1024-1024-10 b128": lambda pf: (
            networks.mlp(pf, (784, 1024, 1024, 10)),
            *images(128, 784),
            pf.optim.SGD,
        ),
        "ResNet-18 CIFAR b32": lambda pf: (
            networks.resnet18(pf),
            *images(32, 3, 32, 32),
            pf.optim.SGD,
        ),
        "GPT 4x256 b8 T128": lambda pf: (networks.gpt(pf), *text(8, 128, 256), pf.optim.AdamW),
    }


# ---------------------------------------------------------------- on the ranks


def on_a_rank(name: str, rounds: int, path: Path) -> None:
    """Measures one network; the first rank writes the figures."""
    import pyframe as pf
    from pyframe import parallel
    from pyframe.parallel.step_profile import measure

    parallel.init_process_group()
    ranks = parallel.get_world_size()

    def prepare() -> tuple[Any, Any, Any, Any]:
        pf.manual_seed(1)
        net, x, y, kind = _workloads()[name](pf)
        return net, pf.from_numpy(x), pf.from_numpy(y), kind

    cross_entropy = pf.nn.functional.cross_entropy

    def step_of(net: Any, optimizer: Any, x: Any, y: Any) -> Callable[[], None]:
        def step() -> None:
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()

        return step

    net, x, y, kind = prepare()
    optimizer = kind(net.parameters(), lr=1e-3)
    parallel.barrier()
    profile = measure(net, lambda: cross_entropy(net(x), y), optimizer, samples=len(x), name=name)
    lone = step_of(net, optimizer, x, y)
    net, x, y, kind = prepare()
    net = parallel.DistributedDataParallel(net, bucket_cap_mb=BUCKET / 2**20)
    joint = step_of(net, kind(net.parameters(), lr=1e-3), x, y)
    arrays = {n: np.zeros(n // 4, np.float32) for n in SIZES}
    tiny = np.zeros(2, np.int64)
    gathered = np.zeros((ranks, 2), np.int64)
    largest = np.zeros(SIZES[-1] // 4, np.float32)

    def alone() -> None:
        work = parallel.all_reduce(arrays[size], async_op=True)
        work.wait()

    def tell() -> None:
        parallel.all_gather_into_tensor(gathered, tiny)

    def copy() -> None:
        np.multiply(largest, 0.5, out=arrays[SIZES[-1]])

    times: dict[str, list[float]] = {}

    def sample(key: str, case: Callable[[], None], count: int) -> None:
        for _ in range(count):
            parallel.barrier()
            start = time.perf_counter()
            case()
            times.setdefault(key, []).append(time.perf_counter() - start)

    for _ in range(3):
        joint()
    for turn in range(rounds):
        for step in range(6):  # by turns, so that other load on the machine concerns both
            cases = (("lone", lone), ("joint", joint))
            for key, case in cases if (turn + step) % 2 else cases[::-1]:
                sample(key, case, 1)
        for size in SIZES:
            sample(f"reduce {size}", alone, 2)
        sample("tell", tell, 5)
        sample("copy", copy, 2)
    # A step, as a transfer, ends on the slower rank.
    everyone: list[Any] = [None] * ranks
    parallel.all_gather_object(everyone, times)
    figures = {
        key: median(max(column) for column in zip(*(t[key] for t in everyone), strict=True))
        for key in times
    }
    if parallel.get_rank() == 0:
        document = {"profile": asdict(profile), "seconds": figures}
        path.write_text(json.dumps(document), encoding="utf-8")
    parallel.destroy_process_group()


# ---------------------------------------------------------------- predictions


def measured(name: str, ranks: int, rounds: int) -> dict[str, Any]:
    """The figures of one network on ``ranks`` ranks of this machine."""
    from pyframe.parallel.launch import launch

    root = str(Path(__file__).parent.parent)
    search = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        command = ["-m", "benchmarks.parallel_plan", name, "--rounds", str(rounds)]
        command += ["--on-a-rank", str(path)]
        if launch(command, ranks, threads=1, environment={"PYTHONPATH": search}):
            raise SystemExit("the ranks failed, see above")
        return json.loads(path.read_text(encoding="utf-8"))


def compare(name: str, figures: dict[str, Any], ranks: int) -> dict[str, Any]:
    """What is predicted from the parts, beside what was measured of the whole."""
    from pyframe.parallel.link_model import Cluster, Link
    from pyframe.parallel.plan import predict
    from pyframe.parallel.step_profile import Profile

    seconds = figures["seconds"]
    profile = Profile(**figures["profile"]).scaled(seconds["lone"])
    # A rank's own transfers use its core: contention is 1.
    link = Link.fitted(SIZES, [seconds[f"reduce {n}"] for n in SIZES], ranks)
    prediction = predict(
        profile,
        Cluster(ranks, link),
        ranks,
        bucket_bytes=BUCKET,
        contention=1.0,
        filling=SIZES[-1] / seconds["copy"],
        overhead=seconds["tell"],
    )
    return {
        "lone_s": seconds["lone"],
        "measured_s": seconds["joint"],
        "predicted_s": prediction.step,
        "exposed_s": prediction.exposed,
        "ratio": prediction.step / seconds["joint"],
        "parameter_bytes": profile.parameter_bytes,
        "link": asdict(link),
    }


def many_gpus() -> dict[str, Any]:
    """The step of a GPT of 163 million parameters on GPUs, predicted.

    The order and the places of its gradients are measured here, on a short text; operations and
    bytes give the time, with the assumed speeds above. 6 operations per parameter and token: J.
    Kaplan et al., arXiv:2001.08361.
    """
    import pyframe as pf
    from pyframe.parallel.link_model import LINKS, NCCL_START, Cluster
    from pyframe.parallel.plan import predict
    from pyframe.parallel.step_profile import measure

    pf.manual_seed(0)
    net = networks.gpt(pf, vocabulary=50257, width=768, heads=12, length=1024, layers=12)
    count = sum(p.numel() for p in net.parameters())
    short, tokens = 128, 8 * 1024
    x = pf.randint(0, 50257, (1, short))
    y = pf.randint(0, 50257, (short,))
    optimizer = pf.optim.AdamW(net.parameters(), lr=1e-4)
    cross_entropy = pf.nn.functional.cross_entropy
    here = measure(net, lambda: cross_entropy(net(x), y), optimizer, repeats=3)
    operations = 6 * count * tokens / GPU_FLOPS
    # AdamW reads weight, gradient and two moments and writes three of them: 28 bytes per parameter.
    update = 28 * count / GPU_BANDWIDTH
    scale = operations * 2 / 3 / here.backward
    profile = replace(
        here,
        forward=operations / 3,
        backward=operations * 2 / 3,
        optimizer=update,
        gradients=tuple((ready * scale, nbytes) for ready, nbytes in here.gradients),
        activation_bytes=here.activation_bytes * tokens // short,
        samples=8,
        name="GPT",
    )
    cluster = Cluster(8, LINKS["nvlink4"], LINKS["ndr"], NCCL_START)
    ways: dict[str, dict[str, Any]] = {
        "float32 gradients": {},
        "bfloat16 gradients": {"compression": 0.5},
        "bfloat16 gradients, ZeRO-1": {"compression": 0.5, "sharded": True},
    }
    rows = [
        {"way": way, **asdict(predict(profile, cluster, gpus, bucket_bytes=BUCKET, **options))}
        for way, options in ways.items()
        for gpus in GPUS
    ]
    return {
        "parameters": count,
        "tokens_per_gpu": tokens,
        "flops_per_s": GPU_FLOPS,
        "bytes_per_s": GPU_BANDWIDTH,
        "inside": asdict(cluster.inside),
        "between": asdict(LINKS["ndr"]),
        "rows": rows,
    }


def show_gpus(document: dict[str, Any]) -> None:
    """Prints the table."""
    print_table(
        "predicted steps",
        ["way", "GPUs", "step", "exposed", "efficiency", "all-reduce"],
        [
            [
                row["way"],
                row["ranks"],
                f"{row['step'] * 1e3:.4g} ms",
                f"{row['exposed'] * 1e3:.3g} ms",
                row["efficiency"],
                row["algorithm"],
            ]
            for row in document["rows"]
        ],
    )


# ---------------------------------------------------------------- program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of networks' names (default: all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--gpus", action="store_true", help="only the prediction for many GPUs")
    parser.add_argument("--on-a-rank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on_a_rank:
        on_a_rank(options.names[0], options.rounds, options.on_a_rank)
        return
    if options.gpus:
        document = many_gpus()
        show_gpus(document)
        write_result("parallel_plan_gpus", document)
        return
    known = _workloads()
    wanted = options.names or [""]
    names = [n for n in known if any(w.lower() in n.lower() for w in wanted)]
    if not names:
        parser.error(f"no network's name contains {options.names}; there are {list(known)}")
    rows = {name: compare(name, measured(name, 2, options.rounds), 2) for name in names}
    print_table(
        f"steps of two ranks (target: within {TARGET:.0%})",
        ["step", "without", "predicted", "measured", "predicted / measured"],
        [
            [
                name,
                *(f"{row[key] * 1e3:.4g} ms" for key in ("lone_s", "predicted_s", "measured_s")),
                row["ratio"],
            ]
            for name, row in rows.items()
        ],
    )
    worst = max(abs(row["ratio"] - 1) for row in rows.values())
    print(f"farthest off: {worst:.1%} (target {TARGET:.0%})")
    if len(names) == len(known):
        write_result("parallel_plan", {"ranks": 2, "steps": rows, "worst": worst})


if __name__ == "__main__":
    main()
