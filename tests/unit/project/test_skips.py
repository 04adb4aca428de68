"""The end of a test run names what was not tested."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_skips_are_counted_by_reason() -> None:
    """The last lines of a run count its skipped tests, by reason."""
    environment = {name: value for name, value in os.environ.items() if name != "IIDQ_INSTALL"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/installation/test_make.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=True)
    *_, summary, reason = done.stdout.splitlines()
    assert "tests skipped" in summary
    count, words = reason.split(maxsplit=1)
    assert int(count) > 0
    assert words == "IIDQ_INSTALL=1 is not set"
