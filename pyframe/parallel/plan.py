"""Predicts data-parallel steps on more ranks than are at hand: time and memory (L6).

From one rank's :class:`~pyframe.parallel.step_profile.Profile` and the links of a
:class:`~pyframe.parallel.link_model.Cluster`. The schedule is that of ``DistributedDataParallel``
(S. Li et al., "PyTorch Distributed", arXiv:2006.15704): buckets are all-reduced one after the
other, each as soon as its gradients are ready and the one before is done, while the backward pass
goes on. What is left when the backward pass ends is exposed.

Not in it: ranks that are slower than others, other jobs on the network, input pipelines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import ArgumentError, fail
from .link_model import Cluster, Link
from .step_profile import Profile


@dataclass(frozen=True)
class Prediction:
    """A step on ``ranks`` ranks; seconds and bytes of one rank.

    Attributes:
        ranks: how many.
        step: seconds of the step.
        compute: seconds of it that one rank alone would take.
        communication: seconds in which something is on its way.
        exposed: seconds by which communication makes the step longer.
        efficiency: compute / step: the share of the ranks' work that is left.
        samples_per_second: of all ranks together.
        algorithm: of the largest bucket's all-reduce.
        memory: bytes of parameters, gradients, buckets, optimizer, buffers and activations.
    """

    ranks: int
    step: float
    compute: float
    communication: float
    exposed: float
    efficiency: float
    samples_per_second: float
    algorithm: str
    memory: dict[str, int]

    @property
    def total_memory(self) -> int:
        """Bytes of everything in ``memory``."""
        return sum(self.memory.values())


def predict(
    profile: Profile,
    cluster: Cluster,
    ranks: int,
    *,
    bucket_bytes: int = 25 << 20,
    contention: float = 0.0,
    sharded: bool = False,
    compression: float = 1.0,
    filling: float = float("inf"),
    overhead: float = 0.0,
) -> Prediction:
    """The step of ``profile`` on ``ranks`` ranks, each with a batch of its own.

    Args:
        profile: one rank's step.
        cluster: how ranks are linked.
        ranks: how many.
        bucket_bytes: the largest bucket.
        contention: how much of the processor a transfer takes from the backward pass: 0 for a copy
            engine, 1 where the same core computes and copies (ranks on a CPU).
        sharded: optimizer state in shards (ZeRO-1: S. Rajbhandari et al., arXiv:1910.02054): each
            rank updates its share of the parameters, and an all-gather follows, all of it exposed.
        compression: bytes sent per byte of gradient, 0.5 for float32 sent as bfloat16.
        filling: bytes of gradients per second that are copied into buckets, by the processor that
            computes.
        overhead: seconds of a step in which the ranks tell each other their numbers of samples.

    Raises:
        ArgumentError: for a contention outside 0 … 1, or ranks that do not fill whole nodes.

    >>> from pyframe.parallel.link_model import Cluster, Link
    >>> profile = Profile(0.1, 0.2, 0.01, ((0.1, 40_000_000), (0.2, 40_000_000)), samples=32)
    >>> cluster = Cluster(8, Link(2e-6, 4e9))
    >>> eight = predict(profile, cluster, 8, bucket_bytes=40_000_000)
    >>> round(eight.communication, 4), round(eight.exposed, 4), round(eight.efficiency, 3)
    (0.0351, 0.0175, 0.946)
    """
    if not 0 <= contention <= 1:
        fail(ArgumentError, "predict", "contention must be from 0 to 1", contention=contention)
    if ranks == 1:
        filling, overhead = float("inf"), 0.0
    algorithm, largest, transfers = "none", 0, []
    communication = copying = 0.0
    for ready, nbytes in profile.buckets(bucket_bytes):
        seconds, name = cluster.all_reduce(nbytes * compression, ranks)
        copying += nbytes / filling
        transfers.append((ready + copying, seconds))
        communication += seconds
        if nbytes > largest:
            largest, algorithm = nbytes, name
    compute, optimizer = profile.step, profile.optimizer
    end, left = overlap(profile.backward + copying, transfers, contention)
    gathering = 0.0
    if sharded:
        optimizer /= ranks
        gathering = cluster.all_gather(profile.parameter_bytes, ranks)
        communication += gathering
    step = profile.forward + end + left + optimizer + gathering + overhead
    return Prediction(
        ranks=ranks,
        step=step,
        compute=compute,
        communication=communication,
        exposed=end + left - profile.backward + gathering + overhead,
        efficiency=compute / step,
        samples_per_second=ranks * profile.samples / step,
        algorithm=algorithm,
        memory=memory(profile, ranks, bucket_bytes, sharded),
    )


def overlap(
    backward: float, transfers: Iterable[tuple[float, float]], contention: float
) -> tuple[float, float]:
    """When the backward pass ends, and for how long transfers go on after it.

    Args:
        backward: seconds of the backward pass on its own.
        transfers: ``(ready, seconds)`` in order: at which place of the backward pass a transfer may
            begin, and how long it takes. One runs at a time.
        contention: the share of its speed that the backward pass loses while one runs.

    >>> overlap(1.0, [(0.2, 0.3), (1.0, 0.4)], contention=0.0)
    (1.0, 0.4)
    >>> overlap(1.0, [(0.2, 0.3), (1.0, 0.4)], contention=1.0)
    (1.3, 0.4)
    """
    now = done = queued = 0.0
    for ready, seconds in [*transfers, (backward, 0.0)]:
        work = max(0.0, ready - done)
        beside = queued * (1 - contention)  # what is computed while the queue is worked off
        if work < beside:
            passed = work / (1 - contention)
            queued -= passed
        else:
            passed = queued + (work - beside) if work else 0.0
            queued = 0.0 if work else queued
        now, done = now + passed, max(done, ready)
        queued += seconds
    return now, queued


def memory(profile: Profile, ranks: int, bucket_bytes: int, sharded: bool) -> dict[str, int]:
    """Bytes of one rank by what they are for.

    With ``sharded`` the optimizer's state is divided by the number of ranks. One rank has no
    buckets. It is an upper bound: a bucket's gradients are in both places only for a while.
    """
    state = profile.state_bytes
    return {
        "parameters": profile.parameter_bytes,
        "gradients": profile.parameter_bytes,
        "buckets": sum(n for _, n in profile.buckets(bucket_bytes)) if ranks > 1 else 0,
        "optimizer": -(-state // ranks) if sharded else state,
        "buffers": profile.buffer_bytes,
        "activations": profile.activation_bytes,
    }


def pipeline_step(
    forward: float,
    backward: float,
    stages: int,
    micro_batches: int,
    *,
    message_bytes: int = 0,
    link: Link | None = None,
) -> tuple[float, float]:
    """Seconds of a step of a pipeline with equal stages, and the share in which a stage idles.

    With S stages and M micro-batches a step takes (M + S − 1) times what a stage takes for one,
    plus 2 (S − 1) messages that nothing hides. The idle share of the rest is (S − 1) / (M + S − 1),
    for the schedules GPipe and 1F1B alike (Y. Huang et al., "GPipe", arXiv:1811.06965; D. Narayanan
    et al., "Memory-efficient pipeline-parallel DNN training", arXiv:2006.09503).

    Args:
        forward, backward: seconds of the whole network for the whole batch on one rank.
        stages: S.
        micro_batches: M.
        message_bytes: activations of one micro-batch between two stages.
        link: what they go through; ``None``: messages cost nothing.

    >>> pipeline_step(1.0, 2.0, stages=4, micro_batches=8)
    (1.03125, 0.2727272727272727)
    """
    if stages < 1 or micro_batches < 1:
        fail(
            ArgumentError,
            "pipeline_step",
            "there must be a stage and a micro-batch",
            stages=stages,
            micro_batches=micro_batches,
        )
    one = (forward + backward) / (stages * micro_batches)
    fill = (stages - 1) * 2 * (link.seconds(message_bytes) if link else 0.0)
    seconds = (micro_batches + stages - 1) * one + fill
    return seconds, (stages - 1) / (micro_batches + stages - 1)


def table(predictions: Sequence[Prediction]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of text, for people."""
    header = ["ranks", "step", "exposed", "efficiency", "samples/s", "algorithm", "memory per rank"]
    rows = [
        [
            f"{p.ranks:,}",
            f"{p.step * 1e3:.4g} ms",
            f"{p.exposed * 1e3:.3g} ms ({p.exposed / p.step:.1%})",
            f"{p.efficiency:.1%}",
            f"{p.samples_per_second:,.0f}",
            p.algorithm,
            f"{p.total_memory / 2**30:.3g} GiB",
        ]
        for p in predictions
    ]
    return header, rows
