"""Process groups: start-up, the default group, and how a call runs in a group (L6)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..errors import (
    ArgumentError,
    CollectiveError,
    CollectiveTimeoutError,
    DeviceError,
    RankLostError,
    fail,
    message,
)
from . import call_log, diagnosis, endings
from .mpi import MpiTransport, load_mpi
from .transport import Transport
from .watchdog import Watch, mismatch
from .work import Runner, Work, in_seconds

# Names for init_process_group, and where the class is that moves arrays of GPUs.
_BACKENDS: dict[str, tuple[str, str] | None] = {
    "mpi": None,
    "gloo": None,  # PyTorch's name for its transport of CPU tensors
    "nccl": ("nccl", "NcclTransport"),
    "staged": ("staged", "StagedTransport"),
}


class ProcessGroup:
    """Some of the job's ranks, which make calls together.

    Attributes:
        ranks: the world's numbers of its ranks.
        rank: this process's place among them.
        size: their number.
        timeout: seconds that a call waits for the other ranks.
        control: the MPI transport, which compares calls and moves CPU arrays.
        folder: where the ranks' call logs are.
    """

    def __init__(
        self, comm: Any, ranks: Sequence[int], timeout: float, backend: str, log: Any
    ) -> None:
        self.control = MpiTransport(comm)
        self.ranks = list(ranks)
        self.rank, self.size = self.control.rank, self.control.size
        self.timeout, self.backend = timeout, backend
        self.log, self.folder = log, log.folder
        self._number = 0
        self._runner = Runner(f"pyframe-parallel-{len(ranks)}")
        self._device: Transport | None = None
        self._broken: BaseException | None = None

    def __repr__(self) -> str:
        return f"ProcessGroup(ranks={self.ranks}, rank={self.rank})"

    def transport(self, array: Any) -> Transport:
        """The transport that moves ``array``. The one of GPU arrays is made at first use.

        Raises:
            DeviceError: if no transport of this group moves arrays of its type.
        """
        if self.control.supports(array):
            return self.control
        if self._device is None:
            place = _BACKENDS[self.backend or "nccl"]
            if place is not None:
                module = importlib.import_module(f".{place[0]}", __package__)
                self._device = getattr(module, place[1])(self)
        if self._device is None or not self._device.supports(array):
            fail(
                DeviceError,
                "parallel",
                f"backend {self.backend!r} moves no arrays of type {type(array).__name__}",
                "Use init_process_group('nccl') for arrays of GPUs.",
            )
        return self._device

    def local(self, rank: int, op: str) -> int:
        """The place in this group of the world's rank ``rank``."""
        if rank not in self.ranks:
            what = f"rank {rank} is not in the group of ranks {self.ranks}"
            fail(ArgumentError, op, what, "Pass the rank's number in the whole job.")
        return self.ranks.index(rank)

    def watch(self, text: str, idle: bool = False, timeout: float | None = None) -> Watch:
        """The limit of a call that begins now."""
        me, seconds = self.ranks[self.rank], self.timeout if timeout is None else timeout
        return Watch(text, self.folder, self.ranks, me, seconds, idle)

    def run(
        self,
        text: str,
        action: Callable[[Watch], Any],
        async_op: bool = False,
        queued: bool = False,
    ) -> Any:
        """Makes a call that all ranks of the group make: compares it, then calls ``action``.

        Args:
            text: name, shape, dtype and arguments; has to be the same on all ranks.
            action: what moves the arrays.
            async_op: return a :class:`Work` at once.
            queued: ``action`` only puts work on a device's stream and returns its request.

        Raises:
            CollectiveError: if ranks make different calls; names them all.
            CollectiveTimeoutError: if not all ranks came in time.
            RankLostError: if one died.
        """
        if self._broken is not None:
            what = f"the group cannot be used any more: {self._broken}"
            raise CollectiveError(message(text, what))
        self._number += 1
        number = self._number
        if queued:  # it runs in this thread, after the others: all ranks compare in one order
            self._runner.settle()
        if not async_op and not self._runner.busy:
            return self._make(number, text, action, False)
        work = Work(text)
        if queued:
            work.run(lambda: self._make(number, text, action, False))
            return work
        self._runner.submit(work, lambda: self._make(number, text, action, async_op))
        return work if async_op else work.wait()

    def _make(self, number: int, text: str, action: Callable, idle: bool) -> Any:
        if self._broken is not None:
            raise self._broken
        shown = f"#{number} {text}"
        slot = self.log.begin(shown)
        try:
            watch = self.watch(shown, idle)
            found = self.control.agree(number, text, watch)
            if found:
                numbers, texts = zip(*found, strict=True)
                raise mismatch(text.partition("(")[0], self.ranks, texts, numbers)
            value = action(watch)
        except (CollectiveTimeoutError, RankLostError) as error:
            self.breaks(error)
            raise
        except self.control.mpi.Exception as error:
            broken = CollectiveError(message(shown, f"MPI failed: {error}"))
            self.breaks(broken)
            raise broken from error
        except BaseException:  # refused: this rank is out of the call, and the log has to say so
            self.log.end(slot)
            raise
        self.log.end(slot)
        return value

    def breaks(self, error: BaseException) -> None:
        """Notes a failure after which messages may still be under way: no call can follow it."""
        self._broken = error
        endings.failed = True

    def close(self) -> None:
        """Ends the group's thread and gives back its memory and communicators.

        MPI frees them on all ranks together. After a failure, or while an exception ends the
        program, the others may never come: then they are left until the job ends.
        """
        together = self._broken is None and sys.exc_info()[0] is None
        if together:
            self.run("destroy_process_group()", lambda watch: None)
        self._broken = CollectiveError("it was destroyed")
        self._runner.close()
        if self._device is not None:
            self._device.close()
        self.control.close(together)


@dataclass
class _World:
    """The job, as this process sees it."""

    group: ProcessGroup
    comm: Any
    folder: Path
    groups: list[ProcessGroup]


_world: _World | None = None

NON_GROUP_MEMBER = object()
"""What :func:`new_group` returns on ranks that are not in the new group."""


def _seconds(timeout: float | timedelta | None) -> float:
    seconds = in_seconds(timeout)
    if seconds is None:
        return 30.0
    if not seconds > 0:
        what, fix = "the timeout has to be positive", "Pass seconds or a timedelta."
        fail(ArgumentError, "init_process_group", what, fix, timeout=timeout)
    return seconds


def _backend_name(op: str, backend: str) -> str:
    name = backend.lower()
    if name and name not in _BACKENDS:
        fail(ArgumentError, op, f"there is no backend {backend!r}", "Use 'mpi' or 'nccl'.")
    return name


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: float | timedelta | None = 30.0,
    world_size: int = -1,
    rank: int = -1,
) -> None:
    """Joins the ranks of the job; the program is started by ``pyframe launch``, mpirun or srun.

    Args:
        backend: "mpi" (or PyTorch's "gloo"), "nccl" or "staged"; by default "mpi" for CPU arrays
            and "nccl" for arrays of GPUs.
        init_method: taken for PyTorch's sake; MPI knows the ranks.
        timeout: seconds, or a timedelta, that a call waits for the other ranks.
        world_size, rank: compared with MPI's, where they are not negative.

    Raises:
        ArgumentError: for an unknown backend, or a rank or world size that is not MPI's.
        MissingDependencyError: without mpi4py.
        CollectiveError: if there is a group already, or no MPI library.
    """
    global _world
    op = "init_process_group"
    if _world is not None:
        fail(CollectiveError, op, "the process group is there already", "Destroy it first.")
    name = _backend_name(op, backend or "")
    seconds = _seconds(timeout)
    comm = endings.starting(diagnosis.init_text(seconds), load_mpi).COMM_WORLD
    me, size = comm.Get_rank(), comm.Get_size()
    for given, actual, label in ((rank, me, "rank"), (world_size, size, "world_size")):
        if given not in (-1, actual):
            what = f"{label} is {given} but MPI says {actual}"
            fix = f"Start the program with: pyframe launch -n {max(world_size, 1)} program.py"
            fail(ArgumentError, op, what, fix)
    folder = endings.begin(comm)
    log = endings.log(folder, me, size)
    group = ProcessGroup(comm, range(size), seconds, name, log)
    _world = _World(group, comm, folder, [group])
    log.close(call_log.RUNNING)
    group.run(f"init_process_group(backend={backend!r})", lambda watch: None)


def destroy_process_group(group: Any = None) -> None:
    """Leaves a group; without one, the job. All ranks have to call it.

    Of a group that this rank is not in (``NON_GROUP_MEMBER``) there is nothing to leave.

    Raises:
        CollectiveError: if there is no process group, or the group was left before.
    """
    global _world
    world = _require("destroy_process_group")
    if group is NON_GROUP_MEMBER:
        return
    if group is not None and group not in world.groups:
        what = f"{group!r} is no group of this job, or was destroyed before"
        fail(CollectiveError, "destroy_process_group", what, "Destroy each group once.")
    if group is not None and group is not world.group:
        group.close()
        world.groups.remove(group)
        return
    for each in reversed(world.groups):  # on all ranks in one order, the whole job's group last
        each.close()
    _world = None


def is_initialized() -> bool:
    """Whether :func:`init_process_group` was called.

    >>> is_initialized()
    False
    """
    return _world is not None


def is_available() -> bool:
    """Whether mpi4py is installed."""
    return importlib.util.find_spec("mpi4py") is not None


def _require(op: str) -> _World:
    if _world is None:
        what = "there is no process group"
        fail(CollectiveError, op, what, "Call pyframe.parallel.init_process_group() first.")
    return _world


def resolve(group: Any, op: str) -> ProcessGroup:
    """The group, or the default one for ``None``.

    Raises:
        CollectiveError: without a process group, or if this rank is not in the group.
    """
    world = _require(op)
    if group is None:
        return world.group
    if group is NON_GROUP_MEMBER:
        what = f"rank {world.group.rank} is not in this group"
        fail(CollectiveError, op, what, "Call it on the group's ranks only.")
    return group


def get_rank(group: Any = None) -> int:
    """This process's rank in the group; -1 where it is not in it."""
    return -1 if group is NON_GROUP_MEMBER else resolve(group, "get_rank").rank


def get_world_size(group: Any = None) -> int:
    """The number of ranks in the group; -1 where this rank is not in it."""
    return -1 if group is NON_GROUP_MEMBER else resolve(group, "get_world_size").size


def get_backend(group: Any = None) -> str:
    """The name of the group's backend."""
    return resolve(group, "get_backend").backend or "mpi"


def get_process_group_ranks(group: Any = None) -> list[int]:
    """The world's numbers of the group's ranks."""
    return list(resolve(group, "get_process_group_ranks").ranks)


def new_group(
    ranks: Sequence[int] | None = None,
    timeout: float | timedelta | None = None,
    backend: str | None = None,
) -> Any:
    """A group of some of the ranks. All ranks of the job call it, also those not in it.

    Args:
        ranks: numbers in the world, all by default.
        timeout: as of :func:`init_process_group`; that of the default group by default.
        backend: that of the default group by default.

    Returns:
        the group, or ``NON_GROUP_MEMBER`` on the other ranks.

    Raises:
        ArgumentError: if ranks repeat or are out of range.
    """
    world = _require("new_group")
    members = list(range(world.group.size)) if ranks is None else [int(r) for r in ranks]
    wrong = [r for r in members if not 0 <= r < world.group.size]
    if wrong or not members or len(set(members)) < len(members):
        what = f"{members} are no distinct ranks of 0 to {world.group.size - 1}"
        fail(ArgumentError, "new_group", what, "Pass each rank's number in the job once.")
    name = world.group.backend if backend is None else _backend_name("new_group", backend)
    mpi, me = world.group.control.mpi, world.group.rank

    def split(watch: Watch) -> Any:
        inside = me in members
        color, key = (0, members.index(me)) if inside else (mpi.UNDEFINED, 0)
        comm = world.comm.Split(color, key)
        if not inside:
            return NON_GROUP_MEMBER
        seconds = world.group.timeout if timeout is None else _seconds(timeout)
        made = ProcessGroup(comm, members, seconds, name, world.group.log)
        comm.Free()  # the group has duplicates
        return made

    group = world.group.run(f"new_group({members})", split)
    if group is not NON_GROUP_MEMBER:
        world.groups.append(group)
    return group
