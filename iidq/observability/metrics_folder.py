"""The folder in which the processes on a port count; ``exposition.py`` adds up the files.

A separate module, because the variable must be set before prometheus_client is loaded.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Read by prometheus-client once, when loaded."""


@contextmanager
def counted_together() -> Iterator[None]:
    """Let processes started in the block count in one private folder, removed at the end."""
    folder = tempfile.mkdtemp(prefix="iidq-metrics-")
    os.environ[FOLDER_VARIABLE] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)
