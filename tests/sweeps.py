"""Which cases run when: the first ones always, more with ``CI=true``, all with ``SWEEP=true``.

A case is left for ``CI=true`` if its like runs always, and for the sweeps (``make sweep``) if it
repeats with other seeds or sizes what CI runs. The summary says what awaits.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

SWEEP = os.environ.get("SWEEP") == "true"
CI = SWEEP or os.environ.get("CI") == "true"

awaiting: dict[tuple[str, str], int] = {}
"""How many cases were left out, by what they are and what runs them."""

Case = TypeVar("Case")


def in_ci(cases: Iterable[Case], what: str) -> list[Case]:
    """``cases`` with ``CI=true``, else none."""
    return _unless(CI, "CI=true", cases, what)


def in_sweeps(cases: Iterable[Case], what: str) -> list[Case]:
    """``cases`` with ``SWEEP=true``, else none."""
    return _unless(SWEEP, "make sweep", cases, what)


def _unless(runs: bool, command: str, cases: Iterable[Case], what: str) -> list[Case]:
    found = list(cases)
    if runs or not found:
        return found
    awaiting[what, command] = len(found)
    return []
