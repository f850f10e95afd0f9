"""A stand-in for a CUDA graph of kernels in the emulator: launches are noted, replays run them.

Only launches are captured, so a region must do nothing else with values, which on a device would
not be allowed either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyframe.backend import _cpu
from pyframe.backend.capture import Capture
from pyframe.backend.cuda_file import CudaFile


class Emulated:
    """As much of ``pyframe.cuda.Graph`` as there is to it besides the driver."""

    def __init__(self) -> None:
        self.region = Capture(_cpu)
        self.launches: list[tuple] = []

    def capture(self, function: Callable[[], Any]) -> Any:
        """Notes the launches of ``function``; none of them runs."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                CudaFile, "launch", lambda file, *args, **more: self.note(file, args, more)
            )
            self.region.begin()
            try:
                out = function()
            finally:
                self.region.leave()
        self.region.finish()
        return out

    def note(self, file: CudaFile, args: tuple, more: dict) -> None:
        """One launch."""
        self.launches.append((file, args, more))

    def replay(self) -> None:
        """Runs them in order."""
        self.region.prepare()
        for file, args, more in self.launches:
            file.launch(*args, **more)
