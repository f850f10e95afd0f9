"""What a worker process runs: it reads batches until it is told to stop or its parent is gone."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..backend import native
from . import context, shared
from .fetch import Fetcher, make_fetcher

STOP = b"stop"
_PARENT_CHECK = 2.0  # seconds between looks at the parent's process id


@dataclass
class Setup:
    """What a worker needs to know; pickled where workers are spawned."""

    dataset: Any
    batched: bool
    batch_size: int | None
    drop_last: bool
    collate: Callable
    worker_init: Callable[[int], None] | None
    worker: int
    num_workers: int
    iterable: bool


@dataclass
class Begin:
    """Sent at the start of an epoch. ``skip`` batches of a stream are read and thrown away."""

    epoch: int
    base_seed: int
    skip: int


@dataclass
class Task:
    """Sent for every batch, with the segments that the parent no longer uses."""

    number: int
    indices: Any
    released: list[int]


@dataclass
class Result:
    """A worker's answer: ``kind`` is "batch", "end" (of its stream) or "error".

    ``new`` is the size of a new segment, whose descriptor follows the message.
    """

    epoch: int
    number: int
    kind: str
    body: bytes = b""
    segment: int = -1
    sizes: tuple[int, ...] = ()
    new: int | None = None
    dropped: tuple[int, ...] = ()


@dataclass
class Failure:
    """An exception on its way to the parent: its class where that can be pickled, and its text."""

    kind: bytes | None
    name: str
    text: str


def describe_failure(error: BaseException) -> Failure:
    """The class and the traceback of an exception."""
    try:
        kind = pickle.dumps(type(error))
    except Exception:
        kind = None
    return Failure(kind, type(error).__name__, traceback.format_exc())


def run(connection: Any, setup: Setup) -> None:
    """The whole life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    native.set_num_threads(1)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stopped = threading.Event()
    threading.Thread(
        target=_listen, args=(connection, inbox, stopped), name="pyframe-data-inbox", daemon=True
    ).start()
    # The parent may close its end while a batch is on its way.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _Worker(connection, setup).serve(inbox, stopped)


def _listen(connection: Any, inbox: queue.SimpleQueue[Any], stopped: threading.Event) -> None:
    """Empties the socket at all times, so that neither side can wait for the other; and ends the
    process at once when the parent died, even in the middle of a slow batch.
    """
    parent = os.getppid()
    try:
        while True:
            while not connection.poll(_PARENT_CHECK):
                if os.getppid() != parent:
                    os._exit(1)
            data = connection.recv_bytes()
            if data == STOP:
                stopped.set()
                inbox.put(None)
                return
            inbox.put(pickle.loads(data))
    except (EOFError, OSError):
        os._exit(1)


class _Worker:
    def __init__(self, connection: Any, setup: Setup) -> None:
        self._connection = connection
        self._setup = setup
        self._writer = shared.Writer()
        self._started = False
        self._fetch: Fetcher | None = None
        self._failure: Failure | None = None
        self._epoch = 0
        self._seed = 0
        self._batches = 0

    def serve(self, inbox: queue.SimpleQueue[Any], stopped: threading.Event) -> None:
        while not stopped.is_set():
            message = inbox.get()
            if isinstance(message, Begin):
                self._begin(message)
            elif isinstance(message, Task):
                self._writer.release(message.released)
                self._answer(message)

    def _begin(self, begin: Begin) -> None:
        setup = self._setup
        self._epoch = begin.epoch
        self._batches = 0
        seed = begin.base_seed + setup.worker
        # In a stream every worker counts its own batches, so each needs a seed of its own.
        self._seed = context.mix(seed, 1) if setup.iterable else begin.base_seed
        self._failure = None
        try:
            context.set_worker_info(
                context.WorkerInfo(setup.worker, setup.num_workers, seed, setup.dataset)
            )
            context.seed_everything(seed)
            if not self._started and setup.worker_init is not None:
                setup.worker_init(setup.worker)
            self._started = True
            if setup.iterable or self._fetch is None:
                self._fetch = make_fetcher(
                    setup.dataset, setup.batched, setup.batch_size, setup.drop_last, setup.collate
                )
            self._skip(begin.skip)
        except Exception as error:
            self._failure = describe_failure(error)

    def _skip(self, count: int) -> None:
        """Brings a resumed stream to its place."""
        try:
            for number in range(count):
                self._read(number, None)
        except StopIteration:
            self._fetch = _ended
        self._batches = count

    def _read(self, number: int, indices: Any) -> Any:
        token = context.enter_batch(self._seed, number)
        try:
            assert self._fetch is not None
            return self._fetch(indices)
        finally:
            context.leave_batch(token)

    def _answer(self, task: Task) -> None:
        if self._failure is not None:
            self._send_failure(task, self._failure)
            return
        number = self._batches if self._setup.iterable else task.number
        try:
            batch = self._read(number, task.indices)
            self._batches += 1
            body, buffers = shared.encode(batch)
        except StopIteration as stop:
            if self._setup.iterable:
                self._fetch = _ended
                self._send(Result(self._epoch, task.number, "end"))
            else:
                self._send_failure(task, describe_failure(stop))
            return
        except Exception as error:
            self._send_failure(task, describe_failure(error))
            return
        del batch
        self._send_batch(task, body, buffers)

    def _send_batch(self, task: Task, body: bytes, buffers: list[pickle.PickleBuffer]) -> None:
        result = Result(self._epoch, task.number, "batch", body)
        if not buffers:
            self._send(result)
            return
        if not shared.AVAILABLE:
            result.body = pickle.dumps((body, [bytes(buffer) for buffer in buffers]))
            result.kind = "inline"
            self._send(result)
            return
        try:
            segment, sizes, new, dropped = self._writer.store(buffers)
        except OSError as error:
            self._send_failure(task, describe_failure(error))
            return
        result.segment, result.sizes, result.dropped = segment, tuple(sizes), tuple(dropped)
        if new is None:
            self._send(result)
            return
        descriptor, result.new = new
        try:
            self._send(result)
            send_descriptor(self._connection, descriptor)
        finally:
            os.close(descriptor)

    def _send_failure(self, task: Task, failure: Failure) -> None:
        self._send(Result(self._epoch, task.number, "error", pickle.dumps(failure)))

    def _send(self, result: Result) -> None:
        self._connection.send_bytes(pickle.dumps(result, protocol=5))


def _ended(_: Any) -> Any:
    raise StopIteration


def send_descriptor(connection: Any, descriptor: int) -> None:
    """Passes an open file over the socket of a connection."""
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        socket.send_fds(channel, [b"f"], [descriptor])


def receive_descriptor(connection: Any) -> int:
    """The other end of :func:`send_descriptor`."""
    with socket.socket(fileno=os.dup(connection.fileno())) as channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        raise EOFError
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]
