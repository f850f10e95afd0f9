"""A build of the native extension that fails must leave a package that works and says why."""

import json
import os
import shutil
import sys

from tests.packaging.building import copy_tree, only_in_ci, run

pytestmark = only_in_ci

REPORT = """
import json
import pyframe
from pyframe.backend import native
print(json.dumps([native.available(), native.why_not(), native.build_report(), pyframe.__file__]))
"""


def install(tree, target, **environment):
    """Install a tree into a folder; return what the package then reports."""
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps")
    run(*pip, "--target", target, tree, **environment)
    output = run(sys.executable, "-c", REPORT, cwd=tree.parent, PYTHONPATH=str(target))
    available, reason, report, file = json.loads(output.splitlines()[-1])
    assert file.startswith(str(target))
    return available, reason, report


def path_without_compilers(folder):
    """Make a folder with a shell and no compiler; return it as a PATH."""
    folder.mkdir()
    for name in ("sh", "uname", "env"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    return str(folder)


def test_failing_compiler(tmp_path):
    """With a compiler that fails, the package installs and names the compiler."""
    tree = copy_tree(tmp_path / "tree")
    available, reason, report = install(tree, tmp_path / "target", CXX="/bin/false")
    assert not available
    assert reason.startswith("its build failed: cmake could not configure the build:")
    assert "/bin/false" in reason
    assert report["status"] == "failed"
    assert report["log"]


def test_no_compiler(tmp_path):
    """Without any compiler on PATH the reason says what was looked for."""
    tree = copy_tree(tmp_path / "tree")
    available, reason, _ = install(
        tree, tmp_path / "target", PATH=path_without_compilers(tmp_path / "bin")
    )
    assert not available
    assert "no C++ compiler was found (looked for c++, g++ and clang++)" in reason


def test_broken_source(tmp_path):
    """A source that does not compile gives the compiler's first error as the reason."""
    tree = copy_tree(tmp_path / "tree")
    with (tree / "csrc" / "memory.cpp").open("a") as file:
        file.write("\nint broken = missing_name;\n")
    available, reason, _ = install(tree, tmp_path / "target")
    assert not available
    assert "the compiler failed:" in reason
    assert "missing_name" in reason


def test_skipped_build(tmp_path):
    """PYFRAME_NO_NATIVE=1 skips the build and says so."""
    tree = copy_tree(tmp_path / "tree")
    available, reason, report = install(tree, tmp_path / "target", PYFRAME_NO_NATIVE="1")
    assert not available
    assert reason == "its build skipped: PYFRAME_NO_NATIVE was set"
    assert report["status"] == "skipped"


def test_failed_editable_build_removes_the_old_extension(tmp_path):
    """A failed rebuild leaves no old extension behind; a repaired one brings it back."""
    tree = copy_tree(tmp_path / "tree")
    build = (sys.executable, "setup.py", "--quiet", "build_ext", "--inplace")
    run(*build, cwd=tree)
    assert list((tree / "pyframe").glob("_native*.so"))
    source = tree / "csrc" / "memory.cpp"
    text = source.read_text()
    source.write_text(text + "\nint broken = missing_name;\n")
    output = run(*build, cwd=tree)
    assert "pyframe: installing without the native extension: the compiler failed" in output
    assert not list((tree / "pyframe").glob("_native*.so"))
    source.write_text(text)
    os.utime(source)
    run(*build, cwd=tree)
    assert list((tree / "pyframe").glob("_native*.so"))
