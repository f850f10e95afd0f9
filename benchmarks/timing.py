"""Timing shared by all benchmarks: interleaved measurement, result files and tables.

Machines drift (other users, turbo clocks, thermal limits), so two programs timed one after the
other cannot be compared. Here every round runs each case once, A B C A B C ..., and comparisons are
made round by round:

>>> cases = {"a": lambda: sum(range(50)), "b": lambda: sum(range(500))}
>>> stats = interleaved(cases, repeats=5, min_time=1e-4)
>>> stats["b"].ratio_to(stats["a"]) > 1
True
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"

# The threads of one library look for work for a while (libgomp: several milliseconds) before they
# sleep, and so slow the next library down: 15 % of a 512 x 512 product on two cores.
_SETTLE = 0.01


@dataclass(frozen=True)
class Stats:
    """Seconds per call of one case: a sample per round, the mean over ``loops`` calls."""

    samples: tuple[float, ...]
    loops: int

    @property
    def median(self) -> float:
        """The median sample."""
        return median(self.samples)

    @property
    def best(self) -> float:
        """The fastest sample."""
        return min(self.samples)

    @property
    def iqr(self) -> float:
        """The distance between the quartiles: the spread to quote beside the median."""
        return quantile(self.samples, 0.75) - quantile(self.samples, 0.25)

    def ratio_to(self, other: Stats) -> float:
        """Return the median, over rounds, of this case's time divided by the other's."""
        pairs = zip(self.samples, other.samples, strict=True)
        return median(mine / theirs for mine, theirs in pairs)

    def to_json(self) -> dict[str, float | int]:
        """Return the figures that go into a result file."""
        return {
            "median_s": self.median,
            "iqr_s": self.iqr,
            "best_s": self.best,
            "rounds": len(self.samples),
            "loops": self.loops,
        }


def quantile(values: Iterable[float], q: float) -> float:
    """Return the ``q`` quantile of ``values`` with linear interpolation."""
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean, the right mean for ratios."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def interleaved(
    cases: Mapping[str, Callable[[], object]], repeats: int = 15, min_time: float = 0.02
) -> dict[str, Stats]:
    """Time every case once per round for ``repeats`` rounds and return the statistics by name.

    A sample repeats its case until it lasts at least ``min_time`` seconds. Every case is warmed up
    first, and again before each sample, after a pause in which the threads of the case before go to
    sleep. The order turns by one each round. The cycle collector is off inside samples and runs
    between rounds (objects alive at the start are frozen, so it runs quickly).
    """
    loops = {name: _calibrate(case, min_time) for name, case in cases.items()}
    samples: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for _ in range(repeats):
            for name in order:
                time.sleep(_SETTLE)
                _sample(cases[name], 1 + loops[name] // 8)
                samples[name].append(_sample(cases[name], loops[name]))
            order.append(order.pop(0))
            gc.collect()
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
    return {name: Stats(tuple(samples[name]), loops[name]) for name in cases}


def _sample(case: Callable[[], object], loops: int) -> float:
    """Return the mean seconds per call over ``loops`` calls."""
    repetitions = range(loops)
    start = time.perf_counter()
    for _ in repetitions:
        case()
    return (time.perf_counter() - start) / loops


def _calibrate(case: Callable[[], object], min_time: float) -> int:
    """Warm the case up and return how many calls last about ``min_time`` seconds."""
    case()  # the first call may compile, load or fault pages in: it says nothing about the speed
    loops = 1
    while True:
        elapsed = _sample(case, loops) * loops
        if elapsed >= min_time:
            return loops
        growth = 1.2 * min_time / elapsed if elapsed > 0 else 10.0
        loops = max(loops + 1, math.ceil(loops * min(growth, 10.0)))


def machine_info() -> dict[str, Any]:
    """Describe the machine and the libraries in use, as far as they are already loaded."""
    info: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cpus": _cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }
    for name in ("numpy", "torch", "cupy", "numba"):
        module = sys.modules.get(name)
        if module is not None:
            info[name] = str(getattr(module, "__version__", "unknown"))
    native = sys.modules.get("pyframe.backend.native")
    if native is not None:
        info["native"] = {
            "available": native.available(),
            "isa": native.isa(),
            "threads": native.num_threads(),
        }
    return info


def _cpu_model() -> str:
    """Return the processor's name (``platform.processor`` is empty on many Linux systems)."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Hardware", "CPU part")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _cpu_count() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _commit() -> str | None:
    """Return the checkout's commit, ``+`` where files differ, or None outside a checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_result(name: str, payload: Mapping[str, Any]) -> Path:
    """Write ``payload`` and the machine's description to ``results/<name>.json``, atomically."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"machine": machine_info(), **payload}
    text = json.dumps(document, indent=2, default=_jsonable) + "\n"
    handle, temporary_name = tempfile.mkstemp(dir=RESULTS, prefix=f".{name}-", suffix=".json")
    temporary = Path(temporary_name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    return path


def _jsonable(value: object) -> object:
    """Turn what benchmarks put into payloads into JSON values."""
    if isinstance(value, Stats):
        return value.to_json()
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)  # type: ignore[call-overload]
    if hasattr(value, "item"):
        return value.item()  # NumPy scalars
    raise TypeError(f"a benchmark result cannot hold {type(value).__name__}")


def format_seconds(seconds: float) -> str:
    """Write a duration with three digits and the unit that fits.

    >>> format_seconds(0.00123), format_seconds(4.5e-7)
    ('1.23 ms', '450 ns')
    """
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: the first column to the left, figures to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(header):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console().print(table)


def _cell(value: object) -> str:
    """Format one table cell: durations of a case with their spread, ratios with three digits."""
    if isinstance(value, Stats):
        return f"{format_seconds(value.median)} ± {format_seconds(value.iqr / 2)}"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
