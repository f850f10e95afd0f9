"""The parent's side of worker processes: starting, asking, receiving, noticing deaths, ending."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection as mp_connection
from typing import Any, NoReturn

from ..errors import PyframeError, fail, message
from . import shared, worker_main
from .worker_main import Begin, Failure, Result, Setup, Task

_LOOK = 1.0  # seconds between looks at whether the workers are alive
_GRACE = 5.0  # seconds that a worker has to finish its batch when the loader ends


class WorkerError(PyframeError, RuntimeError):
    """A worker died, or did not answer in time."""


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _close_inherited() -> None:
    """In a forked child: a copy of the parent's end would hide the parent's death from a worker."""
    for pool in list(_pools):
        pool.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Children start with Ctrl-C blocked, until they are ready to ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Handle:
    """One worker: its process, its socket and its shared memory."""

    def __init__(self, number: int, link: Any, reader: shared.Reader) -> None:
        self.number = number
        self.link = link
        self.reader = reader
        self.process: Any = None
        self.pid: int | None = None

    def describe_end(self) -> str:
        """How the process ended, in words."""
        self.process.join(1.0)
        code = self.process.exitcode
        name = f"worker {self.number} (pid {self.pid})"
        if code is None:
            return f"{name} closed its connection"
        if code < 0:
            try:
                return f"{name} was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"{name} was killed by signal {-code}"
        return f"{name} exited unexpectedly with code {code}"


class Pool:
    """The worker processes of one loader.

    Args:
        setups: one per worker.
        context: a multiprocessing context, or None for the default one.
        timeout: seconds to wait for a batch; 0 is for ever.
        segments: how many batches per worker may lie in shared memory at a time.
    """

    def __init__(
        self, setups: Sequence[Setup], context: Any, timeout: float, segments: int
    ) -> None:
        context = context or multiprocessing.get_context()
        self._timeout = timeout
        self._owner = os.getpid()
        self._closed = False
        self._epoch = 0
        self._workers: list[_Handle] = []
        self._finalizer = weakref.finalize(self, _shutdown, self._workers, self._owner)
        _pools.add(self)
        try:
            for setup in setups:
                self._start(context, setup, segments)
        except BaseException:
            self.shutdown(0.0)
            raise

    def _start(self, context: Any, setup: Setup, segments: int) -> None:
        ours, theirs = context.Pipe(duplex=True)
        worker = _Handle(setup.worker, ours, shared.Reader(segments))
        process = context.Process(
            target=worker_main.run,
            args=(theirs, setup),
            name=f"pyframe-data-worker-{setup.worker}",
            daemon=True,
        )
        self._workers.append(worker)  # before the fork: the child closes our end of its socket
        try:
            with _interrupts_held():
                process.start()
                worker.process = process
                worker.pid = process.pid
        finally:
            theirs.close()

    @property
    def pids(self) -> list[int | None]:
        """The workers' process ids."""
        return [worker.pid for worker in self._workers]

    @property
    def closed(self) -> bool:
        """Whether the pool was shut down."""
        return self._closed

    def begin(self, base_seed: int, skips: Sequence[int]) -> None:
        """Starts an epoch: whatever is still on its way from an earlier one will be ignored."""
        self._epoch += 1
        for worker, skip in zip(self._workers, skips, strict=True):
            self._post(worker, Begin(self._epoch, base_seed, skip))

    def ask(self, which: int, number: int, indices: Any) -> None:
        """Asks worker ``which`` for a batch."""
        worker = self._workers[which]
        self._post(worker, Task(number, indices, worker.reader.returned()))

    def _post(self, worker: _Handle, item: Any) -> None:
        try:
            worker.link.send_bytes(pickle.dumps(item, protocol=5))
        except OSError:
            self._died(worker)

    def receive(self, candidates: Sequence[int]) -> tuple[int, Result]:
        """The next answer of one of the candidates.

        Raises:
            WorkerError: a worker died, or none of the candidates answered in time.
        """
        links = {self._workers[which].link: which for which in candidates}
        limit = time.monotonic() + self._timeout if self._timeout > 0 else None
        while True:
            for link in self._wait(list(links), limit):
                result = self._take(self._workers[links[link]])
                if result.epoch == self._epoch:
                    return links[link], result
                if result.segment >= 0:
                    self._workers[links[link]].reader.give_back(result.segment)

    def _wait(self, links: list[Any], limit: float | None) -> list[Any]:
        while True:
            pause = _LOOK if limit is None else min(_LOOK, max(0.0, limit - time.monotonic()))
            ready = mp_connection.wait(links, pause)
            if ready:
                return ready
            for worker in self._workers:
                if not worker.process.is_alive():
                    self._died(worker)
            if limit is not None and time.monotonic() >= limit:
                numbers = [worker.number for worker in self._workers if worker.link in links]
                fail(
                    WorkerError,
                    "DataLoader",
                    f"timed out after {self._timeout} seconds waiting for worker "
                    + " or ".join(map(str, numbers)),
                    "Pass a larger timeout, or 0 to wait for ever.",
                )

    def _take(self, worker: _Handle) -> Result:
        try:
            result = pickle.loads(worker.link.recv_bytes())
            if result.new is not None:
                descriptor = worker_main.receive_descriptor(worker.link)
                worker.reader.drop(result.dropped)
                worker.reader.add(result.segment, descriptor, result.new)
            return result
        except (EOFError, ConnectionResetError):
            self._died(worker)

    def open(self, which: int, result: Result) -> Any:
        """The batch in an answer.

        Raises:
            Exception: what the worker raised, of the same class where it can be, with the
                worker's traceback in its message.
        """
        if result.kind == "error":
            reraise(pickle.loads(result.body), which)
        if result.kind == "inline":
            body, buffers = pickle.loads(result.body)
            return shared.decode(body, [bytearray(buffer) for buffer in buffers])
        buffers = []
        if result.segment >= 0:
            buffers = self._workers[which].reader.borrow(result.segment, result.sizes)
        return shared.decode(result.body, buffers)

    def _died(self, worker: _Handle) -> NoReturn:
        what = worker.describe_end()
        hint = "Its own error output, if any, is above; num_workers=0 runs the dataset here."
        if "SIGKILL" in what:
            hint = "If nobody sent it, that was the out-of-memory killer: use fewer workers."
        self.shutdown(1.0)
        fail(WorkerError, "DataLoader", what, hint)

    def shutdown(self, grace: float = _GRACE) -> None:
        """Ends the workers; those still busy after ``grace`` seconds are terminated."""
        if not self._closed:
            self._closed = True
            self._finalizer.detach()
            _shutdown(self._workers, self._owner, grace)

    def abandon(self) -> None:
        """Lets go of another process's workers; for forked children."""
        self._closed = True
        self._finalizer.detach()
        for worker in self._workers:
            worker.link.close()


def _shutdown(workers: list[_Handle], owner: int, grace: float = _GRACE) -> None:
    if os.getpid() != owner:
        return
    for worker in workers:
        with contextlib.suppress(OSError, ValueError):
            worker.link.send_bytes(worker_main.STOP)
        worker.link.close()  # a worker that is sending a batch gets an error and ends
    end = time.monotonic() + grace
    started = [worker.process for worker in workers if worker.process is not None]
    for process in started:
        process.join(max(0.0, end - time.monotonic()))
    for stop in ("terminate", "kill"):
        remaining = [process for process in started if process.is_alive()]
        for process in remaining:
            getattr(process, stop)()
        for process in remaining:
            process.join(1.0)
    for process in started:
        with contextlib.suppress(ValueError):
            process.close()
    workers.clear()


def reraise(failure: Failure, which: int) -> NoReturn:
    """Raises a worker's exception here, with the worker's number and traceback in the message."""
    kind: Callable[[str], BaseException] | None = None
    if failure.kind is not None:
        with contextlib.suppress(Exception):
            kind = pickle.loads(failure.kind)
    text = message(
        "DataLoader",
        f"caught {failure.name} in worker process {which}",
        f"The worker's traceback:\n{failure.text}",
    )
    error: BaseException | None = None
    if isinstance(kind, type) and issubclass(kind, KeyError):
        text = _Lines(text)
    if kind is not None:
        with contextlib.suppress(Exception):
            error = kind(text)
    if not isinstance(error, BaseException):
        error = WorkerError(text)
    raise error from None


class _Lines(str):
    """KeyError shows the repr of its argument; this one's repr keeps its lines."""

    def __repr__(self) -> str:
        return str(self)
