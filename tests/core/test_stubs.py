"""The generated type stubs are up to date, and a user's program type-checks against them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).parents[2]


def test_stubs_are_in_sync() -> None:
    """In a process of its own: tests register further ops."""
    done = subprocess.run(
        [sys.executable, "-m", "pyframe.tensor.stubs", "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


GOOD = """
    import pyframe as pf
    from pyframe import Tensor, nn, optim
    from pyframe.nn import functional as F

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 8)
            self.second = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = pf.relu(self.first(x))
            out: Tensor = self.second(hidden)
            return out

    def train() -> float:
        pf.manual_seed(0)
        net = Net()
        optimizer = optim.AdamW(net.parameters(), lr=1e-3)
        x = pf.randn(5, 4, dtype=pf.float32)
        y = pf.tensor([0, 1, 0, 1, 1])
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        z: Tensor = (x * 2 + 1.5 - x / 3) @ x.t()
        w: Tensor = z.sum(dim=1, keepdim=True).exp().reshape(-1)
        v: Tensor = pf.exp(w) + pf.add(w, 2.0)
        v += 1
        v.mul_(2)
        mask: Tensor = v > 0
        flag: bool = bool(mask.all())
        pf.save({"v": v}, "x.safetensors")
        with pf.no_grad():
            total: float = float(v.sum()) + flag
        t: Tensor = v.T
        return total + t.item()
"""
BAD = {
    "pf.no_such_function(1)": 'Module has no attribute "no_such_function"',
    "pf.ones(2).no_such_method()": '"Tensor" has no attribute "no_such_method"',
    "pf.add(pf.ones(2))": 'Missing positional argument "other"',
    "pf.exp('text')": 'incompatible type "str"',
    "pf.ones(2).sum(keepdim='yes')": 'incompatible type "str"',
    "x: int = pf.ones(2) + 1": "Incompatible types in assignment",
    "F.conv2d(pf.ones(2))": 'Missing positional argument "weight"',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that mypy reads pyframe once."""
    return tmp_path_factory.mktemp("program")


def check(folder: Path, source: str) -> subprocess.CompletedProcess:
    (folder / "program.py").write_text(textwrap.dedent(source))
    (folder / "mypy.ini").write_text(
        "[mypy]\ncheck_untyped_defs = true\nignore_missing_imports = true\n"
        # What the package's own sources say is checked by the type check of the package.
        "[mypy-pyframe.*]\nfollow_imports = silent\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(folder / "cache"), "program.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
    )


def test_a_program_type_checks(folder: Path) -> None:
    done = check(folder, GOOD)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mistakes_are_found(folder: Path) -> None:
    head = "import pyframe as pf\nfrom pyframe.nn import functional as F\n"
    done = check(folder, head + "\n".join(BAD) + "\n")
    lines = done.stdout.splitlines()
    for number, (call, text) in enumerate(BAD.items(), 3):
        found = [line for line in lines if line.startswith(f"program.py:{number}: error")]
        assert found, f"{call} was accepted:\n{done.stdout}{done.stderr}"
        assert any(text in line for line in found), found
