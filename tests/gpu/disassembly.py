"""The machine code of kernels, by NVIDIA's tools from PyPI (extra dev)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def _tool(name: str) -> str:
    import nvidia

    places = [Path(p) / "cu13" / "bin" / name for p in nvidia.__path__]
    found = next((str(p) for p in places if p.is_file()), shutil.which(name))
    assert found, f"{name} is not installed: pip install nvidia-cuda-{name} (extra dev)"
    return found


def disassembled(cubin: bytes, folder: Path) -> str:
    """What cuobjdump says of a cubin, which is written into ``folder``."""
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    tools = str(Path(_tool("nvdisasm")).parent)
    done = subprocess.run(
        [_tool("cuobjdump"), "-sass", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
    )
    return done.stdout
