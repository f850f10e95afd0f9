"""Runs items in order of value inside a time box and writes the results after each."""

from __future__ import annotations

import json
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import RESULTS

FULL = 3  # failures that are printed in full


class Box:
    """A time box.

    Args:
        title: ``"check"`` or ``"bench"``: the results' place in the file.
        seconds: how long everything may take; no item is begun afterwards.
        name: of the device, which names the file.
    """

    def __init__(self, title: str, seconds: float, name: str, folder: Path = RESULTS) -> None:
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
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in self.rows[name].items()), flush=True)
        self.write()

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
            "failures": [{"name": n, "text": t} for n, t in self.failures],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(everything, indent=1) + "\n")

    def finish(self) -> int:
        """Prints the summary and the first failures in full; returns the exit status."""
        for name, text in self.failures[:FULL]:
            print(f"\n---- {name}\n{text}")
        if len(self.failures) > FULL:
            rest = sorted({name for name, _ in self.failures[FULL:]})
            print(f"\n{len(self.failures) - FULL} more failures, in: {', '.join(rest)[:2000]}")
        late = [name for name, row in self.rows.items() if row["status"] == "no time"]
        done = len(self.rows) - len(late)
        print(
            f"\n{self.title} on {self.device}: {done} items ran, {len(self.failures)} failures"
            + (f", no time for: {', '.join(late)}" if late else "")
            + f"\nresults: {self.path}"
        )
        return 1 if self.failures or late else 0


def device_or_exit(command: str) -> str:
    """The name of the first GPU; without one, says what is missing and exits with 1."""
    import pyframe as pf
    from pyframe.errors import DeviceError

    try:
        return pf.cuda.get_device_name(0)
    except DeviceError as error:
        print(f"{command}: there is no GPU to use here. {error}", file=sys.stderr)
        sys.exit(1)
