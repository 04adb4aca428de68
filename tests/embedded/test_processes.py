"""The processes of `iidq up`, stopped as by a service manager."""

import signal
import sys
from pathlib import Path

import pytest

from iidq.embedded.processes import IidqProcess
from tests.eventually import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module that counts the SIGTERMs within 0.3 s of the first, and exits with the number as code."""
    (tmp_path / "counts_signals.py").write_text(
        "import signal, sys, time\n"
        "seen = []\n"
        f"signal.signal({int(signal.SIGTERM)}, lambda *_: seen.append(print('asked', flush=True)))\n"
        "print('counting', flush=True)\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "sys.exit(len(seen))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "counts_signals"


async def test_a_process_is_asked_once(counter: str, tmp_path: Path) -> None:
    """A process gets a single SIGTERM from ``ask_to_stop`` and ``stop`` together; a second would hurry the API."""
    log = tmp_path / "log"
    process = IidqProcess("counter", [counter], {}, log_path=log)
    process.start()
    await eventually(lambda: "counting" in log.read_text())
    process.ask_to_stop()
    # Two simultaneous signals could count as one.
    await eventually(lambda: "asked" in log.read_text())
    assert await process.stop() == 1
