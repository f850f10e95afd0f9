"""Runs items in order of value inside a time box and writes the results after each."""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.timing import RESULTS
from pyframe.io import write_text

FULL = 4  # failures that are printed in full, each another
T = TypeVar("T")


class Box:
    """A time box.

    Args:
        title: ``"check"`` or ``"bench"``: the results' place in the file.
        seconds: how long everything may take; no item is begun afterwards.
        name: of the device, which names the file.
        folder: where the file is.
        dry: whether this is a dry run, in which items are to be small.
    """

    def __init__(
        self, title: str, seconds: float, name: str, folder: Path = RESULTS, dry: bool = False
    ) -> None:
        self.dry = dry
        self.missed: list[str] = []
        self.targets = 0
        self.title, self.end = title, time.monotonic() + seconds
        self.path = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
        self.rows: dict[str, dict[str, Any]] = {}
        self.failures: list[tuple[str, str]] = []
        self.device = name

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def run(self, name: str, item: Callable[[Box], dict[str, Any]]) -> None:
        """Runs one item, or notes that there was no time; an error of an item is its result."""
        if self.left <= 0:
            self.rows[name] = {"status": "no time"}
        else:
            before, start = len(self.failures), time.monotonic()
            try:
                row = item(self)
            except Exception:
                self.failures.append((name, traceback.format_exc()))
                row = {}
            failed = len(self.failures) - before
            row = {"status": f"{failed} failed" if failed else "ok", **row}
            self.rows[name] = {**row, "seconds": round(time.monotonic() - start, 2)}
        _show(name, self.rows[name])
        self.write()

    def pick(self, real: T, tiny: T) -> T:
        """``real`` on a device, ``tiny`` in a dry run."""
        return tiny if self.dry else real

    def attempt(self, name: str, function: Callable[[], T], seconds: float = 20) -> T | None:
        """One part of an item; its error is noted and the item goes on.

        Returns:
            ``None`` after an error, and where fewer than ``seconds`` are left.
        """
        if self.left < seconds:
            return None
        try:
            return function()
        except Exception:
            self.fail(name, traceback.format_exc())
            return None

    def target(self, name: str, value: float, least: float) -> None:
        """Notes whether a ratio reached what is aimed at."""
        self.targets += 1
        if not value >= least:
            self.missed.append(f"{name}: {value} < {least}")

    def fail(self, name: str, text: str) -> None:
        """Notes a failure inside of an item, which goes on."""
        self.failures.append((name, text))

    def write(self) -> None:
        """The results so far, beside what the file already has of other programs."""
        try:
            everything = json.loads(self.path.read_text())
        except (OSError, ValueError):
            everything = {}
        everything["device"] = self.device
        everything[self.title] = {
            "python": platform.python_version(),
            "items": self.rows,
            "targets": {"compared": self.targets, "missed": self.missed},
            "failures": [{"name": n, "text": t} for n, t in self.failures],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(everything, indent=1) + "\n")

    def finish(self) -> int:
        """Prints the summary and the first failures in full; returns the exit status."""
        shown: dict[str, tuple[str, str]] = {}  # the first with each last line
        for name, text in self.failures:
            shown.setdefault(text.strip().rpartition("\n")[2], (name, text))
        first = list(shown.values())[:FULL]
        for name, text in first:
            print(f"\n---- {name}\n{text}")
        if len(self.failures) > len(first):
            rest = sorted({f[0] for f in self.failures if f not in first})
            print(
                f"\n{len(self.failures) - len(first)} more failures, in: {', '.join(rest)[:2000]}"
            )
        if self.missed and not self.dry:
            print(f"\nbelow what is aimed at ({len(self.missed)} of {self.targets}):")
            print("\n".join(self.missed))
        late = [name for name, row in self.rows.items() if row["status"] == "no time"]
        done = len(self.rows) - len(late)
        print(
            f"\n{self.title} on {self.device}: {done} items ran, {len(self.failures)} failures"
            + (f", no time for: {', '.join(late)}" if late else "")
            + f"\nresults: {self.path}"
        )
        return 1 if self.failures or late else 0


def _show(name: str, row: dict[str, Any]) -> None:
    """Prints an item's row: numbers and words behind its name, tables line by line."""
    plain = {k: v for k, v in row.items() if not isinstance(v, dict)}
    print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in plain.items()))
    for key, value in row.items():
        if isinstance(value, dict):
            print(f"  {key}: {_brief(value)}")
    sys.stdout.flush()


def _brief(value: Any) -> str:
    """A table in one line.

    >>> _brief({"pyframe": {"ms": 1.5, "spread": 0.01}, "times torch": 1.2})
    'pyframe 1.5 ms ±1 %, times torch 1.2'
    """
    if not isinstance(value, dict):
        return str(value)
    parts = []
    for unit in ("ms", "us"):
        if unit in value:
            parts = [f"{value[unit]} {unit}"]
            if "spread" in value:
                parts[0] += f" ±{value['spread'] * 100:.0f} %"
    parts += [f"{k} {_brief(v)}" for k, v in value.items() if k not in ("ms", "us", "spread")]
    return ", ".join(parts)


def device_or_exit(command: str) -> str:
    """The name of the first GPU; without one, says what is missing and exits with 1."""
    import pyframe as pf
    from pyframe.errors import DeviceError

    try:
        return pf.cuda.get_device_name(0)
    except DeviceError as error:
        print(f"{command}: there is no GPU to use here. {error}", file=sys.stderr)
        sys.exit(1)


def program(
    title: str, seconds: float, items: Sequence[Callable[[Box], dict[str, Any]]], doc: str
) -> int:
    """The command ``make gpu-TITLE``: runs ``items`` and returns the exit status.

    ``--dry-run`` runs them small on a pretended device, to find mistakes without a GPU; the results
    go to a temporary folder then. ``--only NAME`` runs those whose names contain one of these.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--dry-run", action="store_true", help="small, without a GPU")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of items")
    parser.add_argument("--seconds", type=float, default=seconds, help="the time box")
    given = parser.parse_args()
    chosen = [i for i in items if not given.only or any(o in i.__name__ for o in given.only)]
    with ExitStack() as stack:
        folder = RESULTS
        if given.dry_run:
            from benchmarks.gpu.device_time import dry_run
            from tests.doubles.pretend import pretend

            stack.enter_context(pretend())
            stack.enter_context(dry_run())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        name = device_or_exit(f"make gpu-{title}")
        whole = f"{title} (part)" if given.only else title  # what all items say stays as it is
        box = Box(whole, given.seconds, name, folder, given.dry_run)
        for item in chosen:
            box.run(item.__name__.replace("_", " "), item)
        return box.finish()
