"""Messages between two ranks, with the names of ``torch.distributed`` (L6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from ..errors import ArgumentError, CollectiveError, CollectiveTimeoutError, RankLostError, fail
from .collectives import _source, _Target, shown
from .group import ProcessGroup, resolve
from .work import in_seconds


class Message:
    """A send or receive under way; a Work whose transfer goes on inside its own methods."""

    def __init__(
        self, group: ProcessGroup, text: str, request: Any, target: _Target | None
    ) -> None:
        self.text = text
        self._group, self._request, self._target = group, request, target
        self._slot = group.log.begin(text)
        self._complete = False
        self._error: CollectiveError | None = None

    def is_completed(self) -> bool:
        """Whether it is complete."""
        if not self._complete and self._drive(self._request.test, False):
            self._finish()
        return self._complete

    def wait(self, timeout: float | timedelta | None = None) -> None:
        """Returns when it is complete.

        Args:
            timeout: seconds or a timedelta from now on, after which it can be waited for again.
                By default the group's timeout, after which the group cannot be used any more.

        Raises:
            CollectiveError: if the two sides' shapes or dtypes differ.
            CollectiveTimeoutError: if the other side does not come in time, RankLostError if it
                died.
        """
        if not self._complete:
            watch = self._group.watch(self.text, timeout=in_seconds(timeout))
            self._drive(lambda: self._request.wait(watch), timeout is not None)
            self._finish()

    def source(self) -> int:
        """The world's number of the rank that sent, once the message is here."""
        return self._group.ranks[self._request.source]

    def _drive(self, step: Callable[[], Any], again: bool) -> Any:
        """Calls ``step``; notes a failure in the group, and a refusal in this message."""
        if self._error is not None:
            raise self._error
        try:
            return step()
        except CollectiveTimeoutError as error:
            if not again:
                self._group.breaks(error)
            raise
        except RankLostError as error:
            self._group.breaks(error)
            raise
        except CollectiveError as error:  # another shape or dtype than the other side's
            self._error = error
            self._group.log.end(self._slot)
            raise

    def _finish(self) -> None:
        self._complete = True
        self._group.log.end(self._slot)
        if self._target is not None:
            self._target.finish()


def isend(tensor: Any, dst: int, group: Any = None, tag: int = 0) -> Message:
    """Begins to send ``tensor``, which is not to be changed until ``wait()`` returned.

    Args:
        tensor: a Tensor or an array.
        dst: the receiving rank's number in the world.
        group: the default group by default.
        tag: a non-negative number; only a receive with the same one gets it.
    """
    return _begun([P2POp(isend, tensor, dst, group, tag)], resolve(group, "send"))[0]


def irecv(tensor: Any, src: int | None = None, group: Any = None, tag: int = 0) -> Message:
    """Begins to receive into ``tensor``, from any rank if ``src`` is ``None``."""
    return _begun([P2POp(irecv, tensor, src, group, tag)], resolve(group, "recv"))[0]


def send(tensor: Any, dst: int, group: Any = None, tag: int = 0) -> None:
    """Sends ``tensor`` to rank ``dst``; returns when it may be changed."""
    isend(tensor, dst, group, tag).wait()


def recv(tensor: Any, src: int | None = None, group: Any = None, tag: int = 0) -> int:
    """Receives into ``tensor``; returns the rank that sent it."""
    work = irecv(tensor, src, group, tag)
    work.wait()
    return work.source() if src is None else src


class P2POp(NamedTuple):
    """A message for :func:`batch_isend_irecv`.

    Attributes:
        op: :func:`isend` or :func:`irecv`.
        tensor, peer, group, tag: its arguments.
    """

    op: Callable[..., Message]
    tensor: Any
    peer: int | None
    group: Any = None
    tag: int = 0


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[Message]:
    """Begins all messages of a list at once, so that none of them waits for another.

    With NCCL, whose messages otherwise run in the order of the calls, two ranks that send to each
    other need this.

    Raises:
        ArgumentError: if the list is empty, or has several groups, or an op that is neither isend
            nor irecv.
    """
    name = "batch_isend_irecv"
    groups = {id(resolve(entry.group, name)) for entry in p2p_op_list}
    if len(groups) != 1 or any(entry.op not in (isend, irecv) for entry in p2p_op_list):
        what = "the list must have isend and irecv of one group only"
        fail(ArgumentError, name, what, "Make a call for each group.")
    return _begun(p2p_op_list, resolve(p2p_op_list[0].group, name))


def _begun(entries: Sequence[P2POp], group: ProcessGroup) -> list[Message]:
    """Begins these messages of one group at once."""
    sends: list[tuple[Any, int, int, bytes]] = []
    receives: list[tuple[Any, int | None, int, bytes]] = []
    made: list[tuple[bool, str, _Target | None]] = []
    for op, tensor, peer, _, tag in entries:
        if op is isend:
            assert peer is not None
            array = _source(tensor, "send")
            label, place = shown(array), _other(group, peer, tag, "send")
            sends.append((array, place, tag, label.encode()))
            made.append((True, f"send({label}, dst={peer}{_tag(tag)})", None))
        else:
            target = _Target(tensor, "recv", reads=False)
            label = shown(target.array)
            source = None if peer is None else _other(group, peer, tag, "recv")
            receives.append((target.array, source, tag, label.encode()))
            made.append((False, f"recv({label}, src={peer}{_tag(tag)})", target))
    requests = group.transport((sends or receives)[0][0]).exchange(sends, receives)
    outgoing, incoming = iter(requests[: len(sends)]), iter(requests[len(sends) :])
    return [
        Message(group, text, next(outgoing if sending else incoming), target)
        for sending, text, target in made
    ]


def _other(group: ProcessGroup, rank: int, tag: int, op: str) -> int:
    if tag < 0:
        fail(ArgumentError, op, "tag is negative", "Pass 0 or more.", tag=tag)
    place = group.local(rank, op)
    if place == group.rank:
        fail(ArgumentError, op, f"rank {rank} is this rank itself", "Copy the tensor.")
    return place


def _tag(tag: int) -> str:
    return f", tag={tag}" if tag else ""
