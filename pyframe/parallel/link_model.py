"""What a collective costs: formulas in the latency and the bandwidth of links (L6).

A message of n bytes takes ``latency + n / bandwidth`` (R. Hockney, "The communication challenge for
MPP", Parallel Computing 20 (1994)). On top of that stand the algorithms' counts of messages:

* ring: P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
  workstations", J. Parallel Distrib. Comput. 69 (2009);
* two binary trees: P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth
  broadcast, reduction and scan", Parallel Computing 35 (2009), as NCCL uses them since 2.4;
* reduce-scatter and all-gather as halves of an all-reduce: R. Thakur, R. Rabenseifner, W. Gropp,
  "Optimization of collective communication operations in MPICH", IJHPCA 19 (2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError, fail


@dataclass(frozen=True)
class Link:
    """The path from one rank to another.

    Args:
        latency: seconds until a message's first byte arrives.
        bandwidth: bytes per second in one direction; both directions work at once.

    Raises:
        ArgumentError: for a negative latency, or a bandwidth that is not positive.

    >>> Link(latency=1e-6, bandwidth=1e9).seconds(1000)
    2e-06
    """

    latency: float
    bandwidth: float

    def __post_init__(self) -> None:
        if not (self.latency >= 0 and self.bandwidth > 0):
            fail(
                ArgumentError,
                "Link",
                "latency must not be negative and bandwidth must be positive",
                latency=self.latency,
                bandwidth=self.bandwidth,
            )

    def seconds(self, nbytes: float) -> float:
        """Seconds that one message takes: latency + n / bandwidth."""
        return self.latency + nbytes / self.bandwidth

    @classmethod
    def fitted(cls, nbytes: Sequence[float], seconds: Sequence[float], ranks: int) -> Link:
        """The link with which :func:`ring_all_reduce` comes closest to measured all-reduces.

        Least squares of the relative errors: microseconds of small messages count as much as
        milliseconds of large ones.

        Raises:
            ArgumentError: with fewer than two sizes, or if more bytes did not take longer.

        >>> sizes = [1e3, 1e6, 1e8]
        >>> link = Link.fitted(sizes, [ring_all_reduce(n, 4, Link(2e-6, 1e10)) for n in sizes], 4)
        >>> round(link.latency * 1e6, 3), round(link.bandwidth / 1e9, 3)
        (2.0, 10.0)
        """
        if ranks < 2 or len(set(nbytes)) < 2:
            fail(ArgumentError, "Link.fitted", "two ranks and two sizes are needed", ranks=ranks)
        measured = np.asarray(seconds, np.float64)
        messages = 2 * (ranks - 1)
        columns = [np.full(len(measured), messages), messages / ranks * np.asarray(nbytes)]
        scaled = np.stack(columns, axis=1) / measured[:, None]
        (latency, per_byte), *_ = np.linalg.lstsq(scaled, np.ones(len(measured)), rcond=None)
        if latency < 0:  # caches can make small messages cheaper than any line through all sizes
            latency, per_byte = 0.0, float(scaled[:, 1].sum() / (scaled[:, 1] ** 2).sum())
        if per_byte <= 0:
            fail(ArgumentError, "Link.fitted", "more bytes did not take longer", seconds=seconds)
        return cls(float(latency), float(1 / per_byte))


def ring_all_reduce(nbytes: float, ranks: int, link: Link) -> float:
    """2 (P − 1) messages of n / P bytes, one after the other.

    >>> ring_all_reduce(1e6, 4, Link(0.0, 1e9))
    0.0015
    """
    return 2 * (ranks - 1) * link.seconds(nbytes / ranks)


def tree_all_reduce(nbytes: float, ranks: int, link: Link) -> float:
    """2 ⌈log₂ P⌉ latencies and 2 n bytes through every rank, with two trees and pipelining.

    Each of two binary trees carries half of the data up and down again. Who is inside one tree is a
    leaf of the other, so in all every rank sends and receives 2 n bytes.

    >>> tree_all_reduce(1e6, 4, Link(1e-6, 1e9))
    0.002004
    """
    if ranks == 1:
        return 0.0
    return 2 * math.ceil(math.log2(ranks)) * link.latency + 2 * nbytes / link.bandwidth


def reduce_scatter(nbytes: float, ranks: int, link: Link) -> float:
    """P − 1 messages of n / P bytes, n being the whole: half of a ring's all-reduce."""
    return (ranks - 1) * link.seconds(nbytes / ranks)


all_gather = reduce_scatter


@dataclass(frozen=True)
class Cluster:
    """Nodes of several ranks.

    Args:
        per_node: ranks of a node.
        inside: the link between two ranks of a node.
        between: a rank's own link to other nodes (with one network card per rank); by default the
            same as inside.
        start: seconds to start a collective, whatever its size.
    """

    per_node: int
    inside: Link
    between: Link | None = None
    start: float = 0.0

    def nodes(self, ranks: int) -> int:
        """How many nodes ``ranks`` ranks fill.

        Raises:
            ArgumentError: if the last node would be only partly full.
        """
        if ranks < 1 or (ranks > self.per_node and ranks % self.per_node):
            fail(
                ArgumentError,
                "Cluster",
                "ranks must fill whole nodes",
                ranks=ranks,
                per_node=self.per_node,
            )
        return max(1, ranks // self.per_node)

    def all_reduce(self, nbytes: float, ranks: int) -> tuple[float, str]:
        """Seconds of an all-reduce and the algorithm that is fastest: that is the one taken.

        * ``ring``: through all ranks. A node's cards work side by side, each for a ring of its own,
          so the slower of a rank's inside link and the node's cards together decides.
        * ``tree``: a chain through each node, two binary trees over the nodes.
        * ``two-level``: reduce-scatter in each node, all-reduce of each share between the nodes
          (ring or tree), all-gather in each node.

        >>> cluster = Cluster(8, Link(2e-6, 400e9), Link(4e-6, 50e9))
        >>> seconds, algorithm = cluster.all_reduce(100e6, 8)
        >>> algorithm, round(seconds * 1e6)
        ('ring', 466)
        >>> cluster.all_reduce(1e3, 1024)[1]
        'tree'
        """
        if ranks == 1:
            return 0.0, "none"
        times = self._times(nbytes, ranks)
        algorithm = min(times, key=times.__getitem__)
        return self.start + times[algorithm], algorithm

    def _times(self, nbytes: float, ranks: int) -> dict[str, float]:
        nodes, inside = self.nodes(ranks), self.inside
        if nodes == 1:
            return {
                "ring": ring_all_reduce(nbytes, ranks, inside),
                "tree": tree_all_reduce(nbytes, ranks, inside),
            }
        between = self.between or inside
        inner = ranks // nodes
        bandwidth = min(inside.bandwidth, inner * between.bandwidth)
        hops = 2 * (nodes - 1)  # of the 2 (P − 1) steps, those that wait for a network
        ring = hops * between.latency + (2 * (ranks - 1) - hops) * inside.latency
        tree = 2 * ((inner - 1) * inside.latency + math.ceil(math.log2(nodes)) * between.latency)
        share = nbytes / inner
        middle = min(ring_all_reduce(share, nodes, between), tree_all_reduce(share, nodes, between))
        return {
            "ring": ring + 2 * (ranks - 1) / ranks * nbytes / bandwidth,
            "tree": tree + 2 * nbytes / bandwidth,
            "two-level": 2 * reduce_scatter(nbytes, inner, inside) + middle,
        }

    def all_gather(self, nbytes: float, ranks: int) -> float:
        """Seconds of an all-gather of n bytes in all, in a ring."""
        if ranks == 1:
            return 0.0
        nodes = self.nodes(ranks)
        if nodes == 1:
            return self.start + all_gather(nbytes, ranks, self.inside)
        between = self.between or self.inside
        bandwidth = min(self.inside.bandwidth, ranks // nodes * between.bandwidth)
        waiting = (nodes - 1) * between.latency + (ranks - nodes) * self.inside.latency
        return self.start + waiting + (ranks - 1) / ranks * nbytes / bandwidth


ATTAINED = 0.8
"""The share of a link's nominal bandwidth that is counted on."""

LINKS = {
    "nvlink3": Link(1.9e-6, ATTAINED * 300e9),
    "nvlink4": Link(1.9e-6, ATTAINED * 450e9),
    "nvlink5": Link(1.9e-6, ATTAINED * 900e9),
    "pcie4": Link(2.5e-6, ATTAINED * 32e9),
    "pcie5": Link(2.5e-6, ATTAINED * 64e9),
    "hdr": Link(4.0e-6, ATTAINED * 25e9),
    "ndr": Link(4.0e-6, ATTAINED * 50e9),
    "xdr": Link(4.0e-6, ATTAINED * 100e9),
    "ethernet100": Link(4.0e-6, ATTAINED * 12.5e9),
    "ethernet10": Link(30e-6, ATTAINED * 1.25e9),
}
"""Links by name.

Bandwidths: makers' figures for one direction of one GPU (NVLink 3, 4 and 5 of A100, H100 and B200:
600, 900 and 1,800 GB/s in both directions together; PCI Express with 16 lanes; InfiniBand HDR, NDR
and XDR: 200, 400 and 800 Gbit/s), times ``ATTAINED``. Latencies of a step of a ring: the tuning
model of NCCL (``src/graph/tuning.cc``, ring, protocol LL128); of 10 Gbit Ethernet: half of a usual
round trip of TCP.
"""

NCCL_START = 10e-6
"""Seconds to start a collective of NCCL (its tuning model: base latency of ring with LL128)."""


def link(text: str) -> Link:
    """A link by its name in ``LINKS``, or written as ``LATENCY,BANDWIDTH`` in s and bytes/s.

    Raises:
        ArgumentError: if it is neither.

    >>> link("1e-6,2e9")
    Link(latency=1e-06, bandwidth=2000000000.0)
    """
    if text in LINKS:
        return LINKS[text]
    try:
        latency, bandwidth = map(float, text.split(","))
    except ValueError:
        known = ", ".join(LINKS)
        fail(
            ArgumentError,
            "link",
            f"{text!r} is neither a known link nor LATENCY,BANDWIDTH",
            f"Known are {known}.",
        )
    return Link(latency, bandwidth)
