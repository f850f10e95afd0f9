"""What moves arrays between ranks: the interface that every transport has (L6).

The public functions (:mod:`pyframe.parallel.collectives`) compare the ranks' calls first and only
then use a transport, with raw arrays that are contiguous and have the same shape and dtype on all
ranks. Ranks here are ranks of the group.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Any, ClassVar, Protocol

from .watchdog import Watch


class ReduceOp(Enum):
    """How the ranks' values become one.

    ``AVG`` is the sum divided by the number of ranks, for floating point dtypes. Of bools, SUM and
    MAX are "or", PRODUCT and MIN are "and". float16 and bfloat16 are added up in float32 and
    rounded once. NaN wins in MIN and MAX. Sums are in the order of the ranks, so they are the same
    bits on all ranks and in every run.
    """

    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    PRODUCT = "product"


class Request(Protocol):
    """A transfer under way."""

    def test(self) -> bool:
        """Whether it is complete."""

    def wait(self, watch: Watch) -> None:
        """Returns when it is complete."""


class Transport(ABC):
    """Moves raw arrays between the ranks of one group.

    A transport whose calls only put work on a device's stream sets ``queued``: its calls are made
    in the caller's thread also for ``async_op=True``, and return what :class:`Request` asks for.
    The others return when the array has its result, and are called from the group's own thread for
    ``async_op=True``.

    Attributes:
        name: the name for ``init_process_group(backend=...)``.
        queued: see above.
        rank: this process's rank in the group.
        size: the number of ranks.
    """

    name: ClassVar[str]
    queued: ClassVar[bool] = False
    rank: int
    size: int

    @abstractmethod
    def supports(self, array: Any) -> bool:
        """Whether it moves arrays of this type."""

    @abstractmethod
    def all_reduce(self, array: Any, op: ReduceOp, watch: Watch) -> Any:
        """``array`` becomes the reduction over all ranks."""

    @abstractmethod
    def broadcast(self, array: Any, src: int, watch: Watch) -> Any:
        """``array`` becomes that of rank ``src``."""

    @abstractmethod
    def all_gather(self, out: Any, array: Any, watch: Watch) -> Any:
        """``out`` (``size`` times as many elements) becomes the ranks' arrays, one by one."""

    @abstractmethod
    def reduce_scatter(self, out: Any, array: Any, op: ReduceOp, watch: Watch) -> Any:
        """``out`` becomes this rank's part, of ``size`` parts, of the reduction of ``array``."""

    @abstractmethod
    def gather(self, out: Any | None, array: Any, dst: int, watch: Watch) -> Any:
        """``out`` on rank ``dst`` (``None`` elsewhere) becomes the ranks' arrays, one by one."""

    @abstractmethod
    def scatter(self, out: Any, array: Any | None, src: int, watch: Watch) -> Any:
        """``out`` becomes this rank's part of ``array`` of rank ``src`` (``None`` elsewhere)."""

    @abstractmethod
    def send(self, array: Any, dst: int, tag: int, label: bytes) -> Request:
        """Begins to send ``array``; ``label`` is compared with the receiver's."""

    @abstractmethod
    def receive(self, array: Any, src: int | None, tag: int, label: bytes) -> Request:
        """Begins to receive into ``array``; of a ``src`` of ``None`` the request has ``source``."""

    def exchange(
        self,
        sends: Sequence[tuple[Any, int, int, bytes]],
        receives: Sequence[tuple[Any, int | None, int, bytes]],
    ) -> list[Request]:
        """Begins to send and to receive; the arguments are those of both. None waits for another.

        Returns:
            the requests of ``sends``, then those of ``receives``.
        """
        requests = [self.receive(*entry) for entry in receives]
        return [self.send(*entry) for entry in sends] + requests

    def close(self) -> None:  # noqa: B027  (most have nothing to free)
        """Frees what the transport holds."""
