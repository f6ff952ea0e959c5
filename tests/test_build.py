"""What is published: the sdist has everything that a build needs, and its wheel works where there is no checkout."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "fastpost"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return the folder of an sdist and of the wheel that was built from it, without optimisation to save time."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT, env={"FASTPOST_DEBUG": "1"})
    return folder


def run(*command: str | pathlib.Path, env: dict[str, str], cwd: pathlib.Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | env,
        cwd=cwd,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def sources() -> set[str]:
    suffixes = {".py", ".pyi", ".pyx", ".pxd", ".typed"}
    data = {
        str(path.relative_to(ROOT))
        for folder in ("schemas", "pages")
        for path in (PACKAGE / folder).rglob("*")
        if path.is_file()
    }
    return data | {f"fastpost/{path.name}" for path in PACKAGE.iterdir() if path.suffix in suffixes}


@pytest.mark.timeout(300)
def test_the_sdist_holds_the_sources_and_nothing_built(dist: pathlib.Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    assert sources() | {"fastpost/py.typed", "setup.py", "LICENSE", "CHANGELOG.md", "tests/test_build.py"} <= held
    built = [name for name in held if name.endswith((".c", ".so", ".pyc"))]
    assert built == []


def test_the_wheel_holds_what_runs_and_what_types_it(dist: pathlib.Path) -> None:
    (archive,) = dist.glob("*.whl")
    with zipfile.ZipFile(archive) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("fastpost/")}
    compiled = {name for name in held if name.endswith(".so")}
    assert held - compiled == {name for name in sources() if not name.endswith((".pyx", ".pxd"))}
    assert {pathlib.Path(name).name.partition(".")[0] for name in compiled} == {
        path.stem for path in PACKAGE.glob("*.pyx")
    }


def test_the_wheel_works_without_the_checkout(dist: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (archive,) = dist.glob("*.whl")
    run("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", tmp_path / "site", archive, env={})
    modules = ", ".join(f"fastpost.{path.stem}" for path in PACKAGE.glob("*.pyx"))
    env = {"PYTHONPATH": str(tmp_path / "site")}
    where = run("-c", f"import {modules}; print(fastpost.__file__)", env=env, cwd=tmp_path)
    assert where.strip() == str(tmp_path / "site" / "fastpost" / "__init__.py")
    assert run("-m", "fastpost", "--version", env=env, cwd=tmp_path).startswith("fastpost ")


@pytest.mark.skipif(os.environ.get("FASTPOST_DEBUG") == "1", reason="a debug build has no optimiser for FORTIFY_SOURCE")
def test_the_extensions_are_hardened() -> None:
    """Full RELRO, no executable stack, stack protector, FORTIFY_SOURCE: as the linker wrote them down."""
    imported = ""
    for extension in sorted(PACKAGE.glob("_*.so")):
        read = ["readelf", "--wide", "--dynamic", "--segments", "--dyn-syms", str(extension)]
        told = subprocess.run(read, capture_output=True, text=True, check=True).stdout
        assert "BIND_NOW" in told, extension.name
        assert "GNU_RELRO" in told, extension.name
        (stack,) = [line for line in told.splitlines() if "GNU_STACK" in line]
        assert " RW " in stack, extension.name
        imported += told
    # Only what has buffers on its stack, or calls what is fortified, shows it.
    assert "__stack_chk_fail" in imported
    assert "__openat64_2" in imported
