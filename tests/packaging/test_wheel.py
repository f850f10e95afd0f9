"""The sdist and the wheel: contents, size, and a smoke run for every interpreter at hand."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests import sweeps
from tests.packaging.building import ROOT, copy_tree, only_in_ci, run

pytestmark = only_in_ci

SMOKE = Path(__file__).with_name("smoke.py")
OWN = ".".join(map(str, sys.version_info[:2]))
OLDEST, *BETWEEN, NEWEST = ("3.11", "3.12", "3.13")
VERSIONS = sorted({OLDEST, OWN, NEWEST})
VERSIONS += sweeps.in_sweeps(
    sorted({*BETWEEN} - {OWN}), "Python versions that pyframe installs for"
)


def find_interpreter(version):
    """Return a working interpreter of a version: on PATH, or in pyenv's folder."""
    pyenv = Path.home() / ".pyenv" / "versions"
    on_path = shutil.which(f"python{version}")
    for candidate in [*sorted(pyenv.glob(f"{version}.*/bin/python{version}")), on_path]:
        if candidate is None:
            continue
        check = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            # a pyenv shim exists for interpreters that are not chosen, and then fails
            result = subprocess.run([candidate, "-c", check], capture_output=True, text=True)
        except OSError:
            continue
        if result.returncode == 0 and result.stdout.strip() == version:
            return str(candidate)
    return None


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Build the sdist, and from it the wheel."""
    folder = tmp_path_factory.mktemp("distributions")
    tree = copy_tree(folder / "tree")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", tree)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def test_sdist_contents(distributions):
    """The sdist has all sources and no build outputs."""
    with tarfile.open(distributions[0]) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = {
        "pyproject.toml",
        "setup.py",
        "CMakeLists.txt",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
    }
    wanted |= {"csrc/binding.cpp", "csrc/allocator.h", "kernels/__init__.py", "pyframe/__init__.py"}
    assert wanted <= names
    assert not [name for name in names if re.search(r"\.so$|\.pyc$|_native_build|^tests/", name)]


def test_wheel_contents_and_size(distributions):
    """The wheel has the package, extension, kernels and licence, in at most 2.5 MB."""
    wheel = distributions[1]
    assert wheel.stat().st_size <= 2.5e6
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        report = json.loads(archive.read("pyframe/_native_build.json"))
    assert report["status"] == "ok"
    assert len([name for name in names if re.fullmatch(r"pyframe/_native\..*\.so", name)]) == 1
    assert {"pyframe/__init__.py", "pyframe/backend/native.py", "pyframe/_kernels/__init__.py"} <= {
        *names
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"pyframe", next(name for name in tops if name.endswith(".dist-info"))}
    package = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("pyframe/**/*.py")}
    kernels = {f"pyframe/_kernels/{path.name}" for path in ROOT.glob("kernels/*.*")}
    table = "pyframe/_kernels/resources.json"  # for who changes kernels: nothing here reads it
    assert package | kernels - {table} <= {*names} and table not in names


@pytest.mark.parametrize("version", VERSIONS)
def test_installed_package(version, distributions, tmp_path):
    """A clean environment with only the installed package passes the smoke run."""
    interpreter = find_interpreter(version)
    if interpreter is None:
        pytest.skip(f"no Python {version} on this machine")
    sdist, wheel = distributions
    # The wheel fits this interpreter only; the others build from the sdist, as users do.
    package = wheel if version == OWN else sdist
    run(interpreter, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", package)
    output = run(python, "-W", "error", SMOKE, cwd=tmp_path)
    assert output.splitlines()[-1] == "smoke: ok"
    assert "native extension: loaded" in output
    listing = run(python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check")
    installed = {item["name"].lower() for item in json.loads(listing[listing.index("[") :])}
    assert not installed & {"torch", "cupy", "numba", "matplotlib", "scikit-learn", "tensorboard"}
    run(tmp_path / "venv" / "bin" / "pyframe", "--help", cwd=tmp_path)
