"""Which cases there are does not depend on what was imported or called before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DERIVED = sorted(  # files whose cases come from the records
    str(path.relative_to(ROOT))
    for path in (ROOT / "tests").rglob("test_*.py")
    if {"testing.cases(", "OWN = "} <= {*re.findall(r"testing\.cases\(|OWN = ", path.read_text())}
)

PROGRAM = """
import os, sys
import pytest
import pyframe as pf
from pyframe import testing
from pyframe.op.registry import ops

class Ids:
    def pytest_collection_finish(self, session):
        with open(sys.argv[1], "a") as file:
            file.writelines(f"{item.nodeid}\\n" for item in session.items)

def collect(*files):
    options = ["--collect-only", "-qq", "-p", "no:cacheprovider"]
    return pytest.main([*options, *files], plugins=[Ids()])

_, _, state, *files = sys.argv
if state == "alone":
    for file in files:
        if not os.fork():
            os._exit(collect(file))
        if os.wait()[1]:
            sys.exit(f"{file} cannot be collected")
else:
    for op in list(ops.values()):
        if op.samples is not None and pf.float64 in op.dtypes:
            case = next(testing.cases(op, "float64"))
            testing.op_checks.call(op, case.sample.arrays, case.sample.params)
    sys.exit(collect(*reversed(files)))
"""


def collecting(path: Path, state: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), state, *DERIVED],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_two_orders_of_import_give_the_same_cases(tmp_path: Path) -> None:
    """Each file alone, and all in the reverse order after every op was called."""
    paths = [tmp_path / state for state in ("alone", "called")]
    for process in [collecting(path, path.name) for path in paths]:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    alone, called = (path.read_text().splitlines() for path in paths)
    assert sorted(set(alone) ^ set(called)) == []
    assert len(alone) == len(called)
    assert any("test_first_and_second_gradients[celu-" in name for name in alone)
