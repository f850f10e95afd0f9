"""DistributedDataParallel: N ranks train as one process with the N batches together (L6)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import autograd
from ..autograd import no_grad
from ..config import get_mode
from ..data.fetch import without_samples
from ..dtypes import as_dtype
from ..errors import ArgumentError, AutogradError, CollectiveError, fail
from ..nn import Module
from ..tape import engine
from .buckets import Bucket, make_buckets
from .coalesced import broadcast_tensors, check_same_modules
from .collectives import all_gather_into_tensor, all_reduce
from .group import ProcessGroup, _require, resolve
from .objects import all_gather_object, broadcast_object_list
from .sync_batch_norm import SyncBatchNorm
from .weighing import (
    ACTIVE,
    SAMPLES,
    SYNC,
    Entry,
    Exchange,
    Weigh,
    cut,
    leaves_behind,
    map_tensors,
    samples_in,
    tensors_in,
)


class DistributedDataParallel(Module):
    """Trains ``module`` on all ranks, each with its own part of every batch.

    After ``backward()`` every rank has the same gradients: those of the mean loss over **all
    ranks' samples together**, so that N ranks do what one process with the whole batch does. That
    holds for batches of different sizes as well: the gradient that enters the module's outputs is
    multiplied by n·W/Σn, for n samples of this rank and W ranks, and gradients are then averaged
    over the ranks. What does not go through the module (a penalty on weights) is averaged plainly.
    That holds in evaluation mode too; there the ranks tell each other n in backward.

    Parameters and buffers of rank 0 are copied to all ranks at the start. During backward gradients
    are gathered into buckets, in the order in which they become ready; each full bucket is
    all-reduced beside the rest of the pass. Sums are in the order of the ranks, so runs repeat to
    the bit.

    Args:
        module: with the same parameters on all ranks.
        device_ids, output_device: accepted for compatibility; a rank uses the module's device.
        dim: the dimension of the inputs that counts samples.
        broadcast_buffers: copy the buffers of the first rank that has samples to the other ranks
            before each training step (not those of ``SyncBatchNorm``, which are the same anyway).
        process_group: the ranks; the default group by default.
        bucket_cap_mb: the size of a bucket in MiB.
        find_unused_parameters: allow parameters without a gradient: one that no rank used keeps its
            ``grad``, for one that some ranks used the others count as zero.
        check_reduction, static_graph: accepted for compatibility.
        gradient_as_bucket_view: accepted for compatibility; gradients always are views of buckets.
        reduction: "mean", or "sum" for losses that are sums over samples: the factor is W.
        compression: "float16" or "bfloat16": the dtype in which wider gradients are sent. They are
            added up in float32 and rounded twice; the ranks still have the same bits.
        overlap: send during backward; otherwise all at its end.

    Attributes:
        module: the wrapped module.
        trace: set it to a list to have ``(what, begin, end)`` of forward, backward, buckets and
            waiting appended, in seconds of ``time.perf_counter``.

    Raises:
        CollectiveError: without a process group; if the ranks' modules differ (the difference is
            named); in backward, if a parameter got no gradient on some rank (named, with the ranks)
            and ``find_unused_parameters`` is false.
        ArgumentError: if no parameter requires grad.

    Batches of unequal size, and ranks that run out: how many samples a rank has is the size of its
    first input tensor along ``dim``. Say it with :meth:`samples` before a call where that is not
    what the loss is averaged over (tokens that are not padding). Where ranks have different numbers
    of batches, iterate over :meth:`batches`, or put the loop into :meth:`join`.

    Gradient clipping: gradients are complete and equal on all ranks, so ``clip_grad_norm_`` clips
    by the global norm. ``autograd.grad`` and ``create_graph=True`` see this rank's part only.

    Source: the design of buckets and overlap is that of S. Li et al., "PyTorch Distributed:
    Experiences on Accelerating Data Parallel Training", VLDB 2020, arXiv:2006.15704.

    >>> from pyframe import nn, parallel
    >>> parallel.init_process_group()                      # doctest: +SKIP
    >>> net = parallel.DistributedDataParallel(net)        # doctest: +SKIP
    >>> for x, y in net.batches(loader):                   # doctest: +SKIP
    ...     optimizer.zero_grad()
    ...     nn.functional.cross_entropy(net(x), y).backward()
    ...     optimizer.step()
    """

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = True,
        static_graph: bool = False,
        *,
        reduction: str = "mean",
        compression: str | None = None,
        overlap: bool = True,
    ) -> None:
        super().__init__()
        name = "DistributedDataParallel"
        if reduction not in ("mean", "sum"):
            fail(ArgumentError, name, 'reduction must be "mean" or "sum"', reduction=reduction)
        if compression not in (None, "float16", "bfloat16"):
            what = 'compression must be None, "float16" or "bfloat16"'
            fail(ArgumentError, name, what, compression=compression)
        self.module = module
        self.dim, self.reduction, self.overlap = dim, reduction, overlap
        self.broadcast_buffers = broadcast_buffers
        self.find_unused_parameters = find_unused_parameters
        self.process_group: ProcessGroup = resolve(process_group, name)
        # Messages of their own group run beside those that the forward pass waits for.
        self._group = _own_group(self.process_group)
        self.trace: list[tuple[str, float, float]] | None = None
        self._wire = None if compression is None else as_dtype(compression)
        self._most = int((25 if bucket_cap_mb is None else bucket_cap_mb) * (1 << 20))
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        if not named:
            fail(ArgumentError, name, "no parameter requires grad", "Call the module itself.")
        self._names, self._params = [n for n, _ in named], [p for _, p in named]
        check_same_modules(module, self.process_group)
        with no_grad():
            broadcast_tensors([*module.parameters(), *module.buffers()], 0, self.process_group)
        self._buffers_sent = [
            b
            for m in module.modules()
            if not isinstance(m, SyncBatchNorm)
            for b in m._buffers.values()
            if b is not None
        ]
        order = list(range(len(self._params)))[::-1]  # a guess, until a pass has shown it
        self._buckets = make_buckets(self._params, order, self._most, self._wire)
        self._ready_order: list[int] | None = []  # of the first pass; then None
        self._bucket_of: dict[int, Bucket] = {}
        self._index()
        for i, p in enumerate(self._params):
            p.register_post_accumulate_grad_hook(lambda _, i=i: self._ready(i))
        self._sync = True  # what no_sync() changes
        self._armed = False  # whether the next backward pass averages
        self._active = False  # whether one is under way
        self._present: set[int] = set()  # parameters that got a gradient since the last average
        self._given: int | None = None
        self._count: int | None = None  # samples of the last call
        self._template: tuple | None = None  # inputs of the last call, while joining
        self._joining = False

    # ---- start

    def _index(self) -> None:
        self._bucket_of = {i: bucket for bucket in self._buckets for i in bucket.members}

    # ---- forward

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's output. In training the ranks tell each other their numbers of samples."""
        mode = get_mode()
        given, self._given = self._given, None
        count = samples_in((inputs, kwargs), self.dim) if given is None else given
        self._count = count
        if not mode.grad:
            return self.module(*inputs, **kwargs)
        if not self.training:  # maybe of one rank, so nothing is sent before a backward pass
            self._armed, self._active = self._sync, False
            out = self.module(*inputs, **kwargs)
            return self._weighed(out, Entry(self, None, count, self._sync))
        exchange = self._tell(count, True, self._sync)
        if self._joining:
            self._template = (inputs, kwargs)
        return self._pass(exchange, count, self._sync, inputs, kwargs)

    def _tell(self, count: int, active: bool, sync: bool) -> Exchange:
        """Begins to tell the other ranks about this forward; they are told in the same moment."""
        mine = np.array([count, active, sync], np.int64)
        table = np.zeros((self._group.size, 3), np.int64)
        return Exchange(
            table, all_gather_into_tensor(table, mine, group=self._group, async_op=True)
        )

    def _pass(self, exchange: Exchange, count: int, sync: bool, args: tuple, kwargs: dict) -> Any:
        begun = time.perf_counter()
        self._armed, self._active = sync, False
        if self.broadcast_buffers and sync and self._buffers_sent:
            # A rank that ran out of data no longer updates its statistics.
            source = int(np.argmax(exchange.table()[:, SAMPLES] > 0))
            broadcast_tensors(self._buffers_sent, source, self.process_group)
        kept = None
        if not count:  # the statistics of no samples are not to enter the running ones
            kept = [(b, b.array.copy()) for b in self._buffers_sent]
        out = self.module(*args, **kwargs)
        for buffer, before in kept or ():
            buffer.array[...] = before
        out = self._weighed(out, Entry(self, exchange, count, sync))
        self._exchange = exchange
        self._span("forward", begun)
        return out

    def _weighed(self, out: Any, entry: Entry) -> Any:
        """The output, with the entry of backward behind it."""
        needed = [t for t in tensors_in(out) if t.requires_grad]
        if not needed:
            return out
        if entry.sync and self.find_unused_parameters:
            entry.roots = [t.grad_fn_or_leaf for t in needed]
        passed = iter(Weigh.apply(entry, *needed))
        return map_tensors(out, lambda t: next(passed) if t.requires_grad else t)

    def samples(self, count: int) -> None:
        """Says over how many samples (or tokens) the loss of the next call is averaged here."""
        self._given = int(count)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside, gradients are accumulated on each rank; the next pass outside averages them.

        As without ranks, the sum of several passes is averaged: scale the losses if the mean is
        wanted. Each pass is weighted by its own numbers of samples.
        """
        before, self._sync = self._sync, False
        try:
            yield
        finally:
            self._sync = before

    # ---- backward

    def _enter(self, entry: Entry) -> None:
        """A backward pass has come to the outputs of a forward."""
        if entry.sync:
            self._armed = True  # also in a second pass through a retained graph
        self._begin()
        if entry.roots is not None and self._active:
            self._unreachable(entry.roots)

    def _begin(self) -> None:
        """The first gradient of a backward pass is there."""
        if self._active or not self._armed or not engine.accumulates():
            return
        self._active, self._next, self._late = True, 0, -1
        self._backward_begun = time.perf_counter()
        for bucket in self._buckets:
            bucket.awaited = set(bucket.members)
            bucket.work = None
        engine.queue_callback(self._finish)

    def _ready(self, i: int) -> None:
        """Parameter ``i`` has its gradient of this backward pass."""
        self._present.add(i)
        self._begin()
        if not self._active:
            return
        grad = self._params[i].grad
        if grad is not None and grad.requires_grad:
            fail(
                AutogradError,
                "DistributedDataParallel",
                "gradients with create_graph=True cannot be averaged",
                "Use no_sync(), or autograd.grad.",
            )
        bucket = self._bucket_of[i]
        if bucket.work is not None:
            self._late = i
            return
        bucket.awaited.discard(i)
        if self._ready_order is not None:
            self._ready_order.append(i)
        if self.overlap:
            self._send_complete()

    def _unreachable(self, roots: Sequence[Any]) -> None:
        """Does not wait for parameters that no root leads to."""
        leaves = leaves_behind(roots)
        for i, p in enumerate(self._params):
            if p.grad_fn_or_leaf not in leaves:
                self._bucket_of[i].awaited.discard(i)
        if self.overlap:
            self._send_complete()

    def _send_complete(self) -> None:
        """Sends buckets in their order, which is the same on all ranks, while they are complete."""
        while self._next < len(self._buckets) and not self._buckets[self._next].awaited:
            self._send(self._buckets[self._next])

    def _send(self, bucket: Bucket) -> None:
        begun = time.perf_counter()
        flat = bucket.fill(self._present, 1.0 / self._group.size)
        bucket.work = all_reduce(flat, group=self._group, async_op=True)
        self._span(f"send {self._next}", begun)
        self._next += 1

    def _finish(self) -> None:
        """The backward pass is over: sends what is left and waits."""
        while self._next < len(self._buckets):
            self._send(self._buckets[self._next])
        self._armed = self._active = False
        self._span("backward", self._backward_begun)
        lacking: list[str] = []
        alone: list[str] = []  # what only this rank knows to be missing
        for k, bucket in enumerate(self._buckets):
            begun = time.perf_counter()
            bucket.work.wait()
            self._span(f"wait {k}", begun)
            begun = time.perf_counter()
            # On a GPU, looking at flags would wait for it; there only who asks for it looks.
            if self.find_unused_parameters or self._group.control.supports(bucket.flat):
                had, missed = bucket.flags()
                lacking += [
                    self._names[i] for i, m in zip(bucket.members, missed, strict=True) if m
                ]
                bucket.deliver(had.tolist())
            else:
                alone += [self._names[i] for i in bucket.members if i not in self._present]
                bucket.deliver([i in self._present for i in bucket.members])
            self._span(f"deliver {k}", begun)
        present, self._present = self._present, set()
        late = self._late
        if lacking and not self.find_unused_parameters:
            self._refuse_missing(present)
        if alone:
            self._refuse(f"{', '.join(alone)} on rank {self.process_group.ranks[self._group.rank]}")
        if late >= 0:
            fail(
                AutogradError,
                "DistributedDataParallel",
                f"the gradient of {self._names[late]} grew after it had been sent",
                "Pass overlap=False where parameters are used again while backward runs.",
            )
        self._adapt()

    def _refuse_missing(self, present: set[int]) -> None:
        mine = [self._names[i] for i in range(len(self._names)) if i not in present]
        everyone: list[Any] = [None] * self.process_group.size
        all_gather_object(everyone, mine, group=self._group)
        by_names: dict[tuple, list[int]] = {}
        for rank, names in zip(self.process_group.ranks, everyone, strict=True):
            if names:
                by_names.setdefault(tuple(names), []).append(rank)
        parts = [
            f"{', '.join(names)} on rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
            for names, ranks in by_names.items()
        ]
        self._refuse("; ".join(parts))

    def _refuse(self, missing: str) -> None:
        fail(
            CollectiveError,
            "DistributedDataParallel",
            f"parameters got no gradient in this backward pass: {missing}",
            "Pass find_unused_parameters=True if that is meant.",
        )

    def _adapt(self) -> None:
        """After the first pass: buckets in the order in which rank 0's gradients became ready."""
        if self._ready_order is None:
            return
        seen = dict.fromkeys(self._ready_order)
        order = [[*seen, *(i for i in range(len(self._params))[::-1] if i not in seen)]]
        broadcast_object_list(order, self.process_group.ranks[0], group=self._group)
        self._buckets = make_buckets(self._params, order[0], self._most, self._wire)
        self._index()
        self._ready_order = None

    def _span(self, what: str, begun: float) -> None:
        if self.trace is not None:
            self.trace.append((what, begun, time.perf_counter()))

    # ---- ranks with fewer batches

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """The batches of ``loader``; a rank that has none left gets batches without samples.

        All ranks make as many steps as the one with the most batches, with the same number of calls
        of everything, so the optimizer and ``SyncBatchNorm`` need nothing else. The mean of a loss
        over no samples is NaN; :meth:`global_mean` leaves it out.
        """
        group, walk, template, end = self.process_group, iter(loader), None, object()
        table = np.zeros((group.size, 2), np.int64)
        while True:
            batch = next(walk, end)
            mine = np.array([batch is not end, template is None and batch is end], np.int64)
            all_gather_into_tensor(table, mine, group=group)
            if not table[:, 0].any():
                return
            if batch is not end:
                template = batch
            if table[:, 1].any():  # a rank that never had a batch does not know what they look like
                source = int(np.argmax(table[:, 0]))
                form = [without_samples(template) if group.rank == source else None]
                broadcast_object_list(form, group.ranks[source], group=group)
                template = form[0] if template is None else template
            yield without_samples(template) if batch is end else batch

    @contextmanager
    def join(self, *optimizers: Any) -> Iterator[None]:
        """Takes part in the other ranks' steps, without samples, when this rank's loop has ended.

        ``with net.join(): for batch in loader: …``, as in PyTorch. Each such step is a call with an
        input cut to no samples and a backward pass, then a step of ``optimizers``.

        Args:
            *optimizers: those that the loop steps, so that their state is the same everywhere at
                the end. Without them the module is copied at the end from a rank that made the last
                step.

        Raises:
            CollectiveError: if this rank had no batch at all while others had some.
        """
        self._template, self._joining = None, True
        try:
            yield
        finally:
            self._joining = False
        active = np.ones(self.process_group.size, bool)
        while True:
            exchange = self._tell(0, False, False)
            now = exchange.table()[:, ACTIVE].astype(bool)
            if not now.any():
                break
            active = now
            if self._template is None:
                what = "this rank had no batch, so it does not know what an empty one looks like"
                fail(CollectiveError, "join", what, "Iterate over batches(loader) instead.")
            for i, p in enumerate(self._params):
                if i not in self._present:  # averaged before: a loop drops it, here or there
                    p.grad = None
            args, kwargs = cut(self._template, self.dim)
            sync = bool(exchange.table()[:, SYNC].any())
            out = self._pass(exchange, 0, sync, args, kwargs)
            roots = [t.sum() for t in tensors_in(out) if t.requires_grad]
            autograd.backward(roots)
            if sync:
                for optimizer in optimizers:
                    optimizer.step()
        if not optimizers:
            with no_grad():
                last = int(np.argmax(active))
                values = [*self.module.parameters(), *self.module.buffers()]
                broadcast_tensors(values, last, self.process_group)

    def global_mean(self, value: Any) -> float:
        """The mean over all ranks' samples of the last call, from this rank's mean ``value``.

        Every rank has to call it. A rank without samples does not count, whatever its value.

        Raises:
            CollectiveError: before the first call of the module.
        """
        mine = self._count
        if mine is None:
            what = "the module has not been called, so there are no samples to weigh by"
            fail(CollectiveError, "global_mean", what, "Call the module on every rank first.")
        total = np.array([float(value) * mine if mine else 0.0, mine], np.float64)
        all_reduce(total, group=self.process_group)
        return float(total[0] / total[1])

    # ---- saving

    def __getstate__(self) -> dict[str, Any]:
        fail(
            CollectiveError,
            "DistributedDataParallel",
            "it belongs to this process and cannot be copied or pickled",
            "Save net.module, or state_dict().",
        )


def _own_group(group: ProcessGroup) -> ProcessGroup:
    """Another group of the same ranks, with messages and a thread of its own."""

    def make(watch: Any) -> ProcessGroup:
        return ProcessGroup(
            group.control.comm, group.ranks, group.timeout, group.backend, group.log
        )

    own: ProcessGroup = group.run("DistributedDataParallel()", make)
    _require("DistributedDataParallel").groups.append(own)  # closed with the others
    return own
