"""CUDA graphs: a region is captured once and replayed with one call of the driver.

A captured region may launch kernels and allocate; its arrays come from a pool of its own, so that
replays write to the same addresses. It may not read values on the host, copy from pageable memory,
or wait.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..backend.capture import Capture
from ..device import Device
from ..errors import KernelError, OutOfMemoryError, fail
from .devices import api, is_available, is_initialized
from .streams import Stream, current_stream

_FIXES = (
    ("900", "The call is never allowed while a graph is captured."),
    ("synchron", "Values cannot be read on the host (item(), tolist(), if tensor: …) in a graph."),
    ("legacy", "Work of the default stream cannot be captured; use the current stream."),
    ("Implicit", "Work of the default stream cannot be captured; use the current stream."),
    ("cublas", "Run the function once before it is captured, so that libraries are set up."),
    (
        "capturing",
        "Copies between host and device have to be done before; write into fixed tensors.",
    ),
)


class Graph:
    """A captured region of work on a device.

    >>> import pyframe as pf
    >>> def step():
    ...     y.copy_(x * 2)
    >>> if pf.cuda.is_available():
    ...     x, y = pf.zeros(4, device="cuda"), pf.zeros(4, device="cuda")
    ...     graph = pf.cuda.Graph()
    ...     graph.capture(step)
    ...     x.fill_(3)
    ...     graph.replay()

    Inputs are written into the same tensors before each replay; outputs are the tensors that the
    region made. They stay valid until the next replay.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._pool: Any = None
        self._stream: Stream | None = None
        self._region: Capture | None = None
        self._allocator = ExitStack()

    def pool(self) -> Any:
        """The memory pool of the graph, to be given to another one that never runs beside it."""
        return self._pool

    def capture(
        self, function: Callable[[], Any], *, warmup: int = 2, pool: Any = None, device: Any = None
    ) -> Any:
        """Runs ``function`` ``warmup`` times, captures it once and returns what that call gave.

        The runs before load kernels and libraries, make gradients and the optimizer's state, and
        fill the pool, so nothing has to be allocated while it is captured. They count: they train.
        """
        cuda, index = api(device)
        side = Stream(index)
        self._pool = cuda.MemoryPool() if pool is None else pool
        if warmup:
            side.wait_stream(current_stream(index))
            with side, cuda.using_allocator(self._pool.malloc):
                for _ in range(warmup):
                    function()
            side.synchronize()
        with graph(self, pool=self._pool, stream=side):
            return function()

    def capture_begin(self, pool: Any = None, stream: Stream | None = None) -> None:
        """Begins to capture; the stream has to be current and not the default one."""
        from ..backend import launch

        if self._graph is not None:
            fail(KernelError, "Graph", "it already holds a captured region", "Call reset().")
        if launch.blocking():
            fail(
                KernelError,
                "Graph",
                "PYFRAME_CUDA_BLOCKING=1 waits after each launch, which no graph can hold",
                "Unset it.",
            )
        self._stream = current_stream() if stream is None else stream
        if self._stream.cuda_stream in (0, 1, 2):
            fail(
                KernelError,
                "Graph",
                "the default stream cannot be captured",
                "Use pyframe.cuda.graph(...), or make a Stream current.",
            )
        if self._pool is None:
            self._pool = self._stream._cuda.MemoryPool() if pool is None else pool
        self._stream.raw.begin_capture()
        self._allocator.enter_context(self._stream._cuda.using_allocator(self._pool.malloc))
        self._region = Capture(Device("cuda", self._stream.device_index).backend)
        self._region.begin()

    def capture_end(self) -> None:
        """Ends the capture; the region can be replayed from now on.

        Raises:
            KernelError: if something in the region could not be captured.
        """
        assert self._stream is not None and self._region is not None
        self._region.leave()
        self._allocator.close()
        try:
            self._graph = self._stream.raw.end_capture()
        except Exception as error:
            raise _explained(error) from error
        if self._graph is None:  # its ``graph`` may be 0: CuPy can drop that once instantiated
            fail(KernelError, "Graph", "nothing was captured")
        if self._region.at_end:
            self._region.finish()
            self._stream.synchronize()

    def abandon(self) -> None:
        """Ends a capture that failed, so that the stream can be used again."""
        try:
            assert self._stream is not None and self._region is not None
            self._region.leave()
            self._allocator.close()
            if self._stream.raw.is_capturing():
                self._stream.raw.end_capture()
        except Exception:  # the first error is the one to tell
            pass

    def replay(self) -> None:
        """Queues the captured work on the current stream.

        Optimizers count the step and take the learning rate as it is now; random ops take the
        streams that they would take without a graph.

        Raises:
            KernelError: if nothing was captured.
        """
        if self._graph is None:
            fail(KernelError, "Graph", "nothing was captured yet", "Call capture(function) first.")
        assert self._region is not None
        self._region.prepare()
        self._graph.launch()

    def reset(self) -> None:
        """Drops the captured work and the pool."""
        self._graph = self._pool = self._stream = self._region = None


def _explained(error: Exception) -> Exception:
    if isinstance(error, (KernelError, OutOfMemoryError)):
        return error
    text = str(error)
    fix = next((fix for part, fix in _FIXES if part.lower() in text.lower()), "")
    found = f"Graph: the region cannot be captured: {text}"
    return KernelError(f"{found}. {fix}" if fix else found)


@contextmanager
def graph(cuda_graph: Graph, pool: Any = None, stream: Stream | None = None) -> Iterator[None]:
    """Captures what the ``with`` block does; see :meth:`Graph.capture`, which also warms up.

    Raises:
        KernelError: for what cannot be captured, with what to do instead.
    """
    side = Stream() if stream is None else stream
    before = current_stream(side.device_index)
    side.wait_stream(before)
    side.synchronize()
    gc.collect()  # freeing memory of others while capturing may wait for the device
    with side:
        cuda_graph.capture_begin(pool, side)
        try:
            yield
        except BaseException as error:  # an interrupt too must not leave the pool in use
            cuda_graph.abandon()
            told = type(error).__name__.startswith(("CUDA", "CUBLAS", "RuntimeError"))
            if told and isinstance(error, Exception):
                raise _explained(error) from error
            raise
        cuda_graph.capture_end()
    before.wait_stream(side)


def is_current_stream_capturing() -> bool:
    """Whether a graph is being captured from the current stream."""
    if not (is_initialized() and is_available()):
        return False
    return bool(current_stream().raw.is_capturing())
