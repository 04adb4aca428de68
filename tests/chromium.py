"""The Chromium for ``tests/browser``; without Chromium the tests are skipped, with a note at the end of the run.

A plugin of pytest, named in ``tests/conftest.py``: under xdist the printing process loads no other conftest.
"""

import os
import shutil

import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _PROGRAMS)), None)
"""Path of the program, from ``CHROMIUM`` or ``PATH``; None without Chromium."""


def pytest_report_header() -> str:
    """Name the browser of the run."""
    return f"browser: {CHROMIUM or 'none, so the pages are NOT tested'}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeat a missing browser at the end of the run."""
    if CHROMIUM is None:
        terminalreporter.section("THE BROWSER TESTS DID NOT RUN", yellow=True, bold=True)
        terminalreporter.line("No Chromium was found: `apt-get install chromium`, or set CHROMIUM to the program.")
