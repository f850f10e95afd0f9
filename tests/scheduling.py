"""How tests are dealt to worker processes: what takes longest first, so that all end together.

A file is one piece of work, since its tests share fixtures; the generic tests of ops, which share
none, are cut into pieces. xdist's own ``loadfile`` would put the files with the fewest tests last,
which are the drills that take minutes, and takes 40,000² / 2 steps to look up where tests are.
"""

from __future__ import annotations

import re
from typing import Any

from xdist.scheduler import LoadFileScheduling

# Files that take 25 to 150 s of processor time in CI; all others come after them.
LONGEST = (
    "tests/packaging/test_wheel.py",
    "tests/parallel/test_train_ranks.py",
    "tests/packaging/test_build_failure.py",
    "tests/parallel/test_faults.py",
    "tests/native/test_gemm.py",
    "tests/train/test_run.py",
    "tests/parallel/test_collectives.py",
    "tests/parallel/test_data_parallel.py",
    "tests/docs/test_code_blocks.py",
    "tests/parallel/test_model_parallel.py",
    "tests/training/test_parity.py",
    "tests/core/test_collection.py",
)
_CUT = re.compile(r"(tests/ops/test_generic\.py::\w+)\[(\w)")


class LongestFirst(LoadFileScheduling):
    """Pieces of work in the order of :func:`place`, which the workers' tests are in."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False
        self._places: dict[Any, dict[str, int]] = {}

    def _split_scope(self, nodeid: str) -> str:
        cut = _CUT.match(nodeid)
        return cut[1] + cut[2] if cut else super()._split_scope(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        scope, unit = self.workqueue.popitem(last=False)
        work = self.assigned_work.setdefault(node, {})
        for done in [s for s, tests in work.items() if all(tests.values())]:
            del work[done]  # pending tests are counted after every test
        work[scope] = unit
        places = self._places_of(node)
        node.send_runtest_some([places[test] for test, done in unit.items() if not done])

    def _places_of(self, node: Any) -> dict[str, int]:
        if node not in self._places:
            tests = self.registered_collections[node]
            self._places[node] = {test: place for place, test in enumerate(tests)}
        return self._places[node]


def place(nodeid: str) -> int:
    """Where a test's file comes: a sorting key."""
    file = nodeid.split("::", 1)[0]
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)
