"""What ``pyframe launch`` starts on each rank: it runs the program, and sees how it ends (L6).

Run as a file, since the CPUs have to be chosen before any library starts its threads.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from pathlib import Path

_RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
_LOCALS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
CPUS_VARIABLE = "PYFRAME_PARALLEL_CPUS"
"""The CPUs of the ranks of a machine, in order: ``0,1;2,3``."""


def _first(names: tuple[str, ...]) -> int | None:
    for name in names:
        text = os.environ.get(name, "")
        if text.isdigit():
            return int(text)
    return None


def _set_up() -> tuple[int, int]:
    """Takes this rank's CPUs and sets PyTorch's environment variables; returns (rank, ranks)."""
    rank, size = _first(_RANKS) or 0, _first(_SIZES) or 1
    local = _first(_LOCALS)
    local = rank if local is None else local
    for name, value in (("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", local)):
        os.environ.setdefault(name, str(value))
    places = os.environ.get(CPUS_VARIABLE, "")
    if places and hasattr(os, "sched_setaffinity"):
        each = places.split(";")
        # Another machine of the job may have fewer CPUs: then they stay as they are.
        with contextlib.suppress(OSError, ValueError):
            os.sched_setaffinity(0, [int(cpu) for cpu in each[local % len(each)].split(",")])
    return rank, size


def _main() -> None:
    rank, size = _set_up()
    arguments = sys.argv[1:]
    module = arguments[0] == "-m"
    if module:
        arguments = arguments[1:]
    program = arguments[0]
    sys.argv[:] = arguments
    sys.path[0] = str(Path.cwd()) if module else str(Path(program).resolve().parent)

    from pyframe.errors import PyframeError
    from pyframe.parallel import call_log, endings

    folder = os.environ.get(call_log.FOLDER_VARIABLE)
    if folder:
        endings.make(Path(folder))
        endings.log(Path(folder), rank, size)
    try:
        if module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as error:
        if error.code not in (None, 0):
            code = error.code if isinstance(error.code, int) else 1
            if not isinstance(error.code, int):
                print(error.code, file=sys.stderr)
            if isinstance(error.__context__, PyframeError):  # a command line showed it, and left
                endings.end_after(error.__context__, code)
            endings.end(f"exit code {code}", code)
        raise


if __name__ == "__main__":
    _main()
