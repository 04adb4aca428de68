"""Test the commands on a terminal, without a terminal, and with an unusual encoding."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Playground

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals as Linux has them")
_TIMEOUT_SECONDS = 60.0


def on_terminal(playground: Playground, *arguments: str, **variables: str) -> tuple[int, str]:
    """Return the exit code and the full output on a terminal of 100 columns."""
    leader, follower = pty.openpty()
    environment = playground.sandbox.environment(TERM="xterm-256color", COLUMNS="100", **variables)
    process = subprocess.Popen(
        [sys.executable, "-m", "iidq", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
    )
    os.close(follower)
    said = b""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while select.select([leader], [], [], deadline - time.monotonic())[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the last writer has closed
            break
        said += piece
    os.close(leader)
    return process.wait(_TIMEOUT_SECONDS), said.decode()


def question(playground: Playground) -> tuple[str, ...]:
    return (
        *("verify", playground.file, "--manifest", playground.manifest),
        *("--registry", playground.registry, "--server", playground.api),
    )


def test_a_terminal_gets_bars_and_colour(playground: Playground) -> None:
    """Hashing and waiting appear as bars, the verdict in colour; only the verdict remains at the end."""
    code, said = on_terminal(playground, *question(playground))
    assert code == 0
    for part in ("hashing song.wav", "━", "\x1b[1;32mOK\x1b[0m: this is what"):
        assert part in said
    assert "hashing" not in said.rpartition("OK")[2]


def test_no_color_is_respected(playground: Playground) -> None:
    """No terminal gets colours with NO_COLOR set (no-color.org)."""
    code, said = on_terminal(playground, *question(playground), NO_COLOR="1")
    assert (code, "\x1b[32m" in said, "\x1b[1;32m" in said) == (0, False, False)


def test_a_terminal_that_lacks_the_signs_gets_question_marks(playground: Playground) -> None:
    """Output in an encoding without ✓ shows ? for the sign, and the full verdict."""
    done = subprocess.run(
        [sys.executable, "-m", "iidq", *question(playground)],
        env=playground.sandbox.environment(PYTHONIOENCODING="latin-1"),
        capture_output=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"  ? signature.recovered" in done.stdout


def test_a_reader_that_leaves_early_is_no_fault(playground: Playground, tmp_path: Path) -> None:
    """`iidq jobs list | head` ends without a traceback."""
    complaints = tmp_path / "stderr"
    with complaints.open("wb") as file:
        subprocess.run(
            ["sh", "-c", f"{sys.executable} -m iidq jobs list --json --limit 500 | true"],
            env=playground.sandbox.environment(IIDQ_SERVER=playground.api),
            stderr=file,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    assert complaints.read_bytes() == b""
