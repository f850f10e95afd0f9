"""What ``import pyframe`` brings along."""

from __future__ import annotations

import subprocess
import sys

EXTRAS = [
    "cupy", "numba", "torch", "matplotlib", "sklearn", "tensorboard", "mpi4py", "PIL", "scipy",
    "typer", "rich", "safetensors", "multiprocessing", "asyncio",
]  # fmt: skip


def test_import_loads_none_of_the_extras() -> None:
    program = "import sys, pyframe; print([m for m in sys.argv[1:] if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", program, *EXTRAS], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_names_are_there_without_further_imports() -> None:
    program = (
        "import pyframe as pf; pf.nn.Linear(2, 2); pf.optim.SGD; pf.utils.data.DataLoader; "
        "pf.save; pf.load; pf.float32; pf.cuda.is_available()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
