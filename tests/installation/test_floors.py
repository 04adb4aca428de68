"""The lowest versions that pyproject.toml admits, and the newest Python, pass the unit tests.

Each case installs everything once more, so the tests run only with ``IIDQ_INSTALL=1``, as in CI.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SECONDS = 900

pytestmark = [
    pytest.mark.skipif(os.environ.get("IIDQ_INSTALL") != "1", reason="IIDQ_INSTALL=1 is not set"),
    pytest.mark.timeout(2 * _SECONDS),
]


def _uv() -> str:
    own = Path(sys.executable).with_name("uv")
    return str(own) if own.exists() else shutil.which("uv") or pytest.skip("uv is not installed")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never", "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _interpreter(version: str) -> str:
    """Return the path of an unselected Python of pyenv, or the version for uv to find."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    return next((str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))), version)


@pytest.mark.parametrize(
    ("python", "versions"),
    [
        pytest.param("3.11", ["--resolution", "lowest-direct"], id="lowest"),
        pytest.param("3.13", ["-c", "constraints.txt"], id="3.13"),
    ],
)
def test_unit_tests_pass_on(python: str, versions: list[str], tmp_path: Path) -> None:
    """The unit tests pass on the lowest versions and on the newest Python admitted by pyproject.toml."""
    uv, venv = _uv(), tmp_path / "venv"
    if _run(uv, "venv", "--quiet", "--python", _interpreter(python), venv).returncode:
        pytest.skip(f"there is no Python {python}")
    installed = _run(uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python", *versions, "-e", ".[dev]")
    if "error sending request" in installed.stderr or "dns error" in installed.stderr:
        pytest.skip("no package index can be reached")
    assert installed.returncode == 0, installed.stderr
    done = _run(venv / "bin" / "python", "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "tests/unit")
    assert done.returncode == 0, done.stdout[-4000:]
