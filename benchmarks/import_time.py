"""How long ``import pyframe`` takes next to ``import numpy``: ``python -m benchmarks.import_time``.

Each sample is a fresh interpreter; the time of an interpreter that imports nothing is taken off
both. Run it with an installed wheel, whose bytecode is compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

from .timing import print_table, write_result

ROUNDS = 15
PROGRAMS = {"nothing": "pass", "numpy": "import numpy", "pyframe": "import pyframe"}


def seconds(program: str) -> float:
    """The time of one fresh interpreter that runs ``program``."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    """Measures, prints and writes results/import_time.json."""
    for program in PROGRAMS.values():
        seconds(program)
    samples: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, program in PROGRAMS.items():
            samples[name].append(seconds(program))
    bare = median(samples["nothing"])
    numpy, pyframe = (median(samples[name]) - bare for name in ("numpy", "pyframe"))
    rows = [["numpy", f"{numpy * 1e3:.0f}"], ["pyframe", f"{pyframe * 1e3:.0f}"]]
    print_table("Import", ["module", "ms"], rows)
    print(f"import pyframe takes {pyframe / numpy:.2f} times import numpy")
    write_result("import_time", {"numpy_s": numpy, "pyframe_s": pyframe, "ratio": pyframe / numpy})


if __name__ == "__main__":
    main()
