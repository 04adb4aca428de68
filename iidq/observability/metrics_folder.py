"""Where processes that share a port count together; ``exposition.py`` adds up what they find there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client looks for it once, when it is loaded."""


@contextmanager
def counted_together() -> Iterator[None]:
    """Processes started meanwhile count in one private folder, which is removed at the end."""
    folder = tempfile.mkdtemp(prefix="iidq-metrics-")
    os.environ[FOLDER_VARIABLE] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER_VARIABLE]
        shutil.rmtree(folder, ignore_errors=True)
