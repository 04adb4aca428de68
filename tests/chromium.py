"""Where a Chromium is, for ``tests/browser``; without one those tests are skipped, and the end of the run says so.

A plugin of pytest's, which ``tests/conftest.py`` names: under xdist the process that prints loads no other conftest.
"""

import os
import shutil

import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _PROGRAMS)), None)
"""The program, found through ``CHROMIUM`` or ``PATH``."""


def pytest_report_header() -> str:
    """Say which browser this run uses."""
    return f"browser: {CHROMIUM or 'none, so the pages are NOT tested'}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it again where people look."""
    if CHROMIUM is None:
        terminalreporter.section("THE BROWSER TESTS DID NOT RUN", yellow=True, bold=True)
        terminalreporter.line("No Chromium was found: `apt-get install chromium`, or set CHROMIUM to the program.")
