"""Run docs/quickstart.md and docs/cli.md, unchanged, against a running `iidq up`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Playground
from tests.cli.shell import curl
from tests.document_pages import blocks

Run = Callable[[str], str]


@pytest.fixture
def run(playground: Playground, shell_variables: dict[str, str], tmp_path: Path) -> Run:
    """Run a line in an empty folder and return the output."""

    def run_line(line: str) -> str:
        if line.startswith("curl "):
            return curl(line.replace("@changed.wav", f"@{tmp_path / 'changed.wav'}"), shell_variables)
        done = subprocess.run(
            ["sh", "-e", "-c", line.replace(".venv/bin/", "")],
            cwd=tmp_path,
            env={**shell_variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run_line


def test_the_quick_start_can_be_followed(run: Run) -> None:
    """The quick start works as written: a verdict, a proof, list and counts, and FAIL for a changed file."""
    asked, others, by_command, changed = blocks("quickstart.md", "sh")[2:6]
    assert json.loads(run(asked.strip()))["result"]["status"] == "OK"
    proof, jobs, stats = (json.loads(run(line)) for line in others.splitlines())
    assert proof["message"] == "Proof generation job queued successfully"
    assert jobs["count"] >= 1
    assert stats["available"] is True
    assert "OK" in run(by_command.strip())
    spoil, ask_again = changed.splitlines()
    run(spoil)
    result = json.loads(run(ask_again))["result"]
    failed = {check["code"] for check in result["report"]["checks"] if check["outcome"] == "failed"}
    assert (result["status"], failed) == ("FAIL", {"content.hashMatchesManifest", "registry.registered"})


def test_the_command_line_can_be_followed(run: Run) -> None:
    """docs/cli.md gives a verdict, a valid proof, the counts, the lists, a pause and its end."""
    verdict, proof, look = blocks("cli.md", "sh")
    assert run(verdict).splitlines()[0] in blocks("cli.md", "")[0]
    run(proof)
    for line in look.splitlines():
        run(line)
