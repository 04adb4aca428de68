"""The end of a test run counts the skipped tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_skips_are_counted_by_reason() -> None:
    """The last lines of a run count the skipped tests by reason."""
    environment = {name: value for name, value in os.environ.items() if name != "IIDQ_INSTALL"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/installation/test_make.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=True)
    assert re.search(r"=+ (\d+) tests skipped =+\n +\1 IIDQ_INSTALL=1 is not set\n", done.stdout)
