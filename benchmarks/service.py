"""iidq's own programs as deployed, and bare servers: started, ready, ended."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iidq.process import die_with_parent

_START_SECONDS = 30.0
_STOP_SECONDS = 40.0


class ServiceFailed(Exception):
    """A program did not answer in time; the message has the end of the program's log."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server on 127.0.0.1: ``port``, and ``pid`` of the process."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self.port}"

    def memory_mib(self) -> float:
        """Return resident memory in MiB, from Linux."""
        fields = Path(f"/proc/{self.pid}/status").read_text().split()
        return int(fields[fields.index("VmRSS:") + 1]) / 1024

    def post(self, path: str, body: str) -> tuple[int, bytes]:
        """Send JSON over a separate connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextlib.contextmanager
def serving(module: Sequence[str], environment: Mapping[str, str], log_path: Path, path: str) -> Iterator[Serving]:
    """Run ``python -m MODULE… FD`` on a new port, ready when ``path`` is answered without a server error."""
    # With the protocol named, asyncio sets TCP_NODELAY on accepted connections.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        port = listener.getsockname()[1]
        arguments = [*module, str(listener.fileno())]
        with program(arguments, environment, log_path, keep_open=listener.fileno()) as process:
            _wait_until_ready(port, path, process, log_path)
            yield Serving(port, process.pid)


@contextlib.contextmanager
def program(
    module: Sequence[str], environment: Mapping[str, str], log_path: Path, *, keep_open: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m MODULE…`` with its output in a file; end with SIGTERM."""
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[] if keep_open is None else [keep_open],
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def api(environment: Mapping[str, str], log_path: Path) -> Iterator[Serving]:
    """Run ``iidq serve`` as deployed, rate limits off."""
    unlimited = {"RATE_LIMIT_SUBMIT_PER_MINUTE": "0", "RATE_LIMIT_READ_PER_MINUTE": "0"}
    with serving(["iidq", "serve", "--fd"], {**unlimited, **environment}, log_path, "/readyz") as running:
        yield running


def _wait_until_ready(port: int, path: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", path)
                if connection.getresponse().status < 500:
                    return
        time.sleep(0.02)
    raise ServiceFailed(f"no answer from port {port}:\n{log_path.read_text(errors='replace')[-2000:]}")
