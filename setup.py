"""Builds csrc/ into ``pyframe/_native`` with CMake; all other settings are in pyproject.toml.

The extension is optional. Whatever goes wrong with its build, the package is installed all the
same, and the reason is left in ``pyframe/_native_build.json``, where ``pyframe doctor`` finds it.
``PYFRAME_NO_NATIVE=1`` skips the build.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from datetime import UTC, datetime
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
LOG_LINES = 40
PACKAGES = find_packages(include=["pyframe", "pyframe.*"])


class BuildError(Exception):
    """The extension cannot be built; the message is the one line a user should read."""


class BuildNative(build_ext):
    """Runs CMake instead of compiling sources itself."""

    def run(self) -> None:
        """Build the extension and write the report; never raise."""
        self.log: list[str] = []
        start = time.time()
        report = {"status": "ok", "reason": None, "compiler": None}
        try:
            if os.environ.get("PYFRAME_NO_NATIVE", "0") not in ("", "0"):
                report.update(status="skipped", reason="PYFRAME_NO_NATIVE was set")
            else:
                report["compiler"] = self._build()
        except BuildError as error:
            report.update(status="failed", reason=str(error))
        except Exception as error:
            report.update(status="failed", reason=f"{type(error).__name__}: {error}")
        if report["status"] != "ok":
            # An extension left over from other sources would be worse than none.
            self._module_path().unlink(missing_ok=True)
            print(
                f"pyframe: installing without the native extension: {report['reason']}",
                file=sys.stderr,
            )
        report["python"] = ".".join(map(str, sys.version_info[:2]))
        report["seconds"] = round(time.time() - start, 1)
        report["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        report["log"] = self.log[-LOG_LINES:] if report["status"] != "ok" else []
        path = self._module_path().with_name("_native_build.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")

    def get_outputs(self) -> list[str]:
        """Return the files that the build left, which setuptools installs."""
        module = self._module_path()
        files = (module, module.with_name("_native_build.json"))
        return [str(file) for file in files if file.exists()]

    def get_output_mapping(self) -> dict[str, str]:
        """Return nothing: in an editable install the files already lie in the source tree."""
        return {}

    def _module_path(self) -> Path:
        """Return where the extension goes: into the sources of an editable install, or build/."""
        file_name = Path(self.get_ext_filename("pyframe._native"))
        if self.inplace or self.editable_mode:
            return ROOT / file_name
        return Path(self.build_lib).resolve() / file_name

    def _build(self) -> str:
        """Configure and build; return the compiler's description."""
        try:
            import numpy
            import pybind11
        except ImportError as error:
            raise BuildError(f"the build needs the Python package {error.name}") from error
        cmake = _find_tool("cmake")
        if cmake is None:
            raise BuildError("cmake was not found")
        if "CXX" not in os.environ and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise BuildError("no C++ compiler was found (looked for c++, g++ and clang++)")
        module = self._module_path()
        # Kept between editable installs, one per interpreter: only changed files are compiled
        # again.
        build = ROOT / "build" / f"cmake-{sysconfig.get_config_var('SOABI')}"
        if not (self.inplace or self.editable_mode):
            build = Path(self.build_temp).resolve() / "cmake"
        configure = [
            cmake,
            f"-S{ROOT}",
            f"-B{build}",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPYFRAME_OUTPUT_DIR={module.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DPYFRAME_NUMPY_INCLUDE={numpy.get_include()}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]
        ninja = _find_tool("ninja")
        if ninja is not None:
            configure += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        elif shutil.which("make"):
            configure += ["-GUnix Makefiles"]
        else:
            raise BuildError("neither ninja nor make was found")
        known = (build / "CMakeCache.txt").exists()
        if not self._run(configure):
            # A kept configuration may name tools that are gone.
            if known:
                shutil.rmtree(build)
            if not known or not self._run(configure):
                raise BuildError(f"cmake could not configure the build: {_first_error(self.log)}")
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(_cpus())
        if not self._run([cmake, "--build", str(build), "--parallel", jobs]):
            raise BuildError(f"the compiler failed: {_first_error(self.log)}")
        if not module.exists():
            raise BuildError(f"the build ended without making {module.name}")
        return _compiler(build)

    def _run(self, command: list[str]) -> bool:
        """Run a command, keep and show its output, and return whether it succeeded."""
        self.log.append("$ " + " ".join(command))
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self.log += result.stdout.splitlines()
        print(result.stdout, end="")
        return result.returncode == 0


def _find_tool(name: str) -> str | None:
    """Find cmake or ninja: on PATH, beside the interpreter, or in the package of that name."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which(name) or shutil.which(name, path=scripts)
    if found is None:
        try:
            package = __import__(name)
            folder = getattr(package, f"{name.upper()}_BIN_DIR", None) or package.BIN_DIR
        except (ImportError, AttributeError):
            return None
        found = shutil.which(name, path=folder)
    return found


def _first_error(log: list[str]) -> str:
    """Return the line of a log that says most: the first error of the last command."""
    starts = [index for index, line in enumerate(log) if line.startswith("$ ")]
    lines = [line.strip() for line in log[starts[-1] + 1 :]] if starts else []
    for index, line in enumerate(lines):
        if line.startswith("CMake Error"):
            # The message follows the place, broken into paragraphs; details come after it.
            message = []
            for part in lines[index + 1 :]:
                if part.startswith(("-- ", "Call Stack", "It fails with", "CMake ")):
                    break
                message.append(part)
            return " ".join(filter(None, message)) or line
        if "error:" in line or "fatal:" in line:
            return line
    return next(filter(None, reversed(lines)), "no output")


def _compiler(build: Path) -> str:
    """Return the compiler's name and version from what CMake found out about it."""
    values = {}
    for file in build.glob("CMakeFiles/*/CMakeCXXCompiler.cmake"):
        for line in file.read_text().splitlines():
            for key in (
                "CMAKE_CXX_COMPILER",
                "CMAKE_CXX_COMPILER_ID",
                "CMAKE_CXX_COMPILER_VERSION",
            ):
                if line.startswith(f"set({key} "):
                    values[key] = line.split(" ", 1)[1].strip('")')
    return " ".join(
        values.get(f"CMAKE_CXX_COMPILER{part}", "") for part in ("_ID", "_VERSION", "")
    ).strip()


def _cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


setup(
    packages=[*PACKAGES, "pyframe._kernels", "pyframe._emulator"],
    package_dir={"pyframe._kernels": "kernels", "pyframe._emulator": "csrc/emulator"},
    package_data={
        "pyframe": ["py.typed", "*.pyi", "**/*.pyi"],
        "pyframe._kernels": ["*.cu", "**/*.cuh"],
        # The CUDA emulator: compiled on the user's machine, with the kernels to be tested.
        "pyframe._emulator": ["*.h", "*.cpp", "**/*.cuh", "**/*.h"],
    },
    # The table of registers is for who changes kernels.
    exclude_package_data={"pyframe": ["_native*"], "pyframe._kernels": ["*.json"]},
    ext_modules=[Extension("pyframe._native", sources=[], optional=True)],
    cmdclass={"build_ext": BuildNative},
)
