"""pyproject.toml declares the imports of the code, and nothing else."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arguments",
    [
        # The package may import only its users' dependencies, not dependencies of the tests alone.
        pytest.param(["--ignore", "DEP002", "iidq"], id="iidq"),
        # Each declared package must be used somewhere; an unknown group makes the tests' set count as well.
        pytest.param(
            [
                "--ignore",
                "DEP004",
                "--optional-dependencies-dev-groups",
                "none",
                "iidq",
                "tests",
                "benchmarks",
                "tools",
            ],
            id="all code",
        ),
    ],
)
def test_imports_are_declared(arguments: list[str]) -> None:
    """No import relies on another package's dependency, and no declared package is unused."""
    done = subprocess.run(
        [sys.executable, "-m", "deptry", "--no-ansi", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_heavy_tool_is_in_the_demos_set() -> None:
    """The sets of users and of the demo contain no developers' tools."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    demo = {*project["dependencies"], *extras["embedded"]}
    assert demo.isdisjoint({*extras["dev"], *extras["docs"]})
    assert not [requirement for requirement in demo if "[standard]" in requirement or "[tester]" in requirement]
