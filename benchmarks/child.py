"""A benchmark program in a separate process, with a protocol of lines: READY, ``go``, ``C n``, RESULT."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from iidq.process import die_with_parent

_START_SECONDS = 60.0
_STOP_SECONDS = 40.0


class ChildFailed(Exception):
    """The program ended, or fell silent, before the expected line."""


class Child:
    """``python -m benchmarks.processes.<name>``; leaving the ``with`` block ends the program."""

    def __init__(
        self, name: str, arguments: Sequence[object] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.processes.{name}", *map(str, arguments)],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self._stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._rest = b""
        self._lines: list[str] = []
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._selector.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._stdin.close()
        self._stdout.close()

    def ready(self) -> str:
        """Wait until all is imported; return the values of the line READY."""
        return self._wait_for("READY", _START_SECONDS)

    def go(self) -> None:
        """Send ``go``."""
        self._stdin.write(b"go\n")
        self._stdin.flush()

    def progress(self) -> int:
        """Return the latest number of begun jobs."""
        for line in self._heard(0.0):
            if line.startswith("C "):
                self.count = int(line[2:])
            else:
                self._lines.append(line)
        return self.count

    def finish(self, timeout_seconds: float = _STOP_SECONDS) -> dict[str, Any]:
        """Close standard input, which stops the program, and return the result."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        found: dict[str, Any] = json.loads(self._wait_for("RESULT", timeout_seconds))
        self.process.wait(_STOP_SECONDS)
        return found

    def _wait_for(self, word: str, timeout_seconds: float) -> str:
        deadline = time.monotonic() + timeout_seconds
        waiting, self._lines = self._lines, []
        while True:
            for line in waiting:
                if line.startswith(word):
                    return line.removeprefix(word).strip()
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} did not say {word} within {timeout_seconds:g} s")
            waiting = list(self._heard(0.1))

    def _heard(self, timeout_seconds: float) -> Iterator[str]:
        if not self._selector.select(timeout_seconds):
            return
        data = os.read(self._stdout.fileno(), 1 << 20)
        if not data:
            raise ChildFailed(f"{self.name} ended with exit code {self.process.wait(_STOP_SECONDS)}")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield line.decode()


def call(
    name: str, arguments: Sequence[object], environment: Mapping[str, str], timeout_seconds: float
) -> dict[str, Any]:
    """Run a program to the end and return the result."""
    with Child(name, arguments, environment) as child:
        child.ready()
        child.go()
        return child.finish(timeout_seconds)
