"""`make demo` and `make test` install their packages, with a working Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the files for set-up to a folder without a .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("tools", "iidq", "migrations"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def _make(checkout: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("make") or pytest.skip("make is not installed"), *arguments],
        cwd=checkout,
        env={**os.environ, "PATH": str(path) if path else os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _path_with(folder: Path, **interpreters: str) -> Path:
    """Return a PATH with the ordinary programs and the given interpreters alone."""
    folder.mkdir()
    for name in ("sh", "cat", "cksum", "cut", "sed", "rm", "touch", "mktemp"):
        (folder / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} is not installed"))
    for name, script in interpreters.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "interpreters",
    [
        pytest.param({}, id="none"),
        # An older or newer Python answers "no" to the question for its version; a pyenv shim fails.
        pytest.param({"python3": "exit 1", "python3.12": "echo not installed >&2; exit 127"}, id="none that works"),
    ],
)
@pytest.mark.parametrize("target", ["demo", "test"])
def test_without_a_python_it_says_what_to_install(checkout: Path, target: str, interpreters: dict[str, str]) -> None:
    """Without a working interpreter, stderr names the wanted versions and the command for installing Python; no .venv
    is made.
    """
    done = _make(checkout, target, path=_path_with(checkout / "bin", **interpreters))
    assert done.returncode != 0
    assert "Python 3.11, 3.12 or 3.13" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_interpreter_that_fails_is_passed_over(checkout: Path) -> None:
    """A python3 that does not work hides no working python3.12."""
    log = checkout / "asked"
    path = _path_with(
        checkout / "bin", python3="exit 1", **{"python3.13": "exit 127", "python3.12": f'echo "$@" >> {log}'}
    )
    _make(checkout, "demo", path=path)
    assert "-m venv" in log.read_text()


@pytest.mark.skipif(os.environ.get("IIDQ_INSTALL") != "1", reason="IIDQ_INSTALL=1 is not set")
def test_each_command_installs_its_own_set(checkout: Path) -> None:
    """The demo's set has no test tools and is announced in one line; tests extend the same set."""
    make = (checkout / "Makefile").read_text()
    (checkout / "Makefile").write_text(make + "\nsets: ; @echo $(DEMO_SET) $(TEST_SET)\n")
    demo_set, test_set = _make(checkout, "--silent", "sets").stdout.split()
    first = _make(checkout, demo_set)
    if first.returncode and "error sending request" in first.stdout:
        pytest.skip("no package index can be reached")
    assert first.returncode == 0, first.stdout + first.stderr
    lines = [line for line in first.stdout.splitlines() if line.startswith("Installing ")]
    assert len(lines) == 1
    assert "the demo's packages" in lines[0]
    programs = checkout / ".venv" / "bin"
    assert (programs / "iidq").exists()
    assert not [name for name in ("pytest", "mypy", "playwright", "mkdocs", "uv") if (programs / name).exists()]
    assert "Installing" not in _make(checkout, demo_set).stdout
    second = _make(checkout, test_set)
    assert second.returncode == 0, second.stdout + second.stderr
    assert (programs / "pytest").exists()
    assert (checkout / demo_set).exists()
