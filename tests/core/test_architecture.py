"""Imports go strictly downward; no module knows more than its layer."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pyframe

ROOT = Path(pyframe.__file__).parent

# Layer of each module or folder; a module may import its own folder and anything below.
LAYERS = {
    "errors": 0,
    "_kernels": 0,
    "memory_formats": 1,
    "config": 1,
    "dtypes": 1,
    "codegen": 1,
    "philox": 2,
    "random": 3,
    "device": 4,
    "backend": 5,
    "expr": 6,
    "op": 7,
    "tape": 8,
    "tensor": 9,
    "autograd": 10,
    "ops": 11,
    "nn": 12,
    "data": 12,
    "io": 12,
    "optim": 13,
    "amp": 13,
    "utils": 14,
    "testing": 14,
    "cuda": 14,
    "interop": 14,
    "parallel": 14,
    "compile": 14,
    "train": 15,
    "cli": 16,
    "__main__": 17,
}
# Where a lower layer calls a higher one through a function-level import, and why.
ALLOWED = {
    ("device", "backend"): "a device loads its backend when it is first used",
    ("data", "parallel"): "a sampler that was not told its rank asks the process group",
    ("nn", "parallel"): "nn.DataParallel, nn.SyncBatchNorm and nn.parallel are PyTorch's names",
    ("tensor", "autograd"): "Tensor.backward is PyTorch's name for autograd.backward",
}


def _unit(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def _imports(path: Path) -> list[str]:
    package = ["pyframe", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            target = [*base, *(node.module or "").split(".")] if node.module else base
            names = (
                [[*target, alias.name] for alias in node.names]
                if target == ["pyframe"]
                else [target]
            )
            found += [".".join(n) for n in names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [f.split(".")[1] for f in found if f.startswith("pyframe.")]


FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py" or p.parent != ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downward(path: Path) -> None:
    unit = _unit(path)
    assert unit in LAYERS, f"{unit} has no layer: add it to LAYERS and docs/architecture.md"
    for target in _imports(path):
        if target == unit or (unit, target) in ALLOWED or target not in LAYERS:
            continue
        assert LAYERS[target] < LAYERS[unit], f"{path.name} ({unit}) imports {target} from above it"


def test_only_codegen_executes_text() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("exec", "eval"):
                assert path.name == "codegen.py", f"{path} calls {node.func.id}"


def test_every_folder_says_what_lives_there() -> None:
    for path in ROOT.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_no_import_of_extras_at_module_level() -> None:
    extras = {"cupy", "numba", "torch", "matplotlib", "sklearn", "tensorboard", "mpi4py", "PIL"}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [a.name.split(".")[0] for a in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [(node.module or "").split(".")[0]]
            assert not extras & set(names), f"{path} imports {names} when it is loaded"
