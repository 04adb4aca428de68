"""The API and worker processes that ``iidq demo`` and ``iidq up`` start."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from iidq.process import die_with_parent

_KILL_AFTER_SECONDS = 40.0
_FIRST_RESTART_SECONDS = 0.2
_LONGEST_RESTART_SECONDS = 5.0


class IidqProcess:
    """A ``python -m iidq …`` process, which dies with the starting thread: start from the main thread."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        log_path: Path | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._arguments = [sys.executable, "-P", "-m", *arguments]
        self._environment = {**os.environ, **environment}
        self._log_path = log_path
        self._keep_open = keep_open
        self._process: subprocess.Popen[bytes] | None = None
        self._stop_sent = False

    @property
    def pid(self) -> int | None:
        """Process id since the last start."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; output goes to the log, or to standard error without one."""
        self._stop_sent = False
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log_path.open("ab")) if self._log_path else None
            self._process = subprocess.Popen(
                self._arguments,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log or sys.stderr,
                stderr=log or sys.stderr,
                pass_fds=self._keep_open,
                # Ctrl-C in the terminal is for the present process, which then stops its children in order.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    async def keep_running(self, died: Callable[[str, int], None]) -> None:
        """Restart the process after every end, more slowly each time; call ``died`` with the name and exit code."""
        delay_seconds = _FIRST_RESTART_SECONDS
        while True:
            code = await self._wait()
            died(self.name, code)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(_LONGEST_RESTART_SECONDS, 2 * delay_seconds)
            self.start()

    def ask_to_stop(self) -> None:
        """Send SIGTERM once, so that the process drains; a second SIGTERM would stop the drain."""
        if self._process is not None and self._process.poll() is None and not self._stop_sent:
            self._stop_sent = True
            self._process.terminate()

    async def stop(self) -> int:
        """Stop the process, by SIGKILL if need be; return the exit code."""
        self.ask_to_stop()
        try:
            async with asyncio.timeout(_KILL_AFTER_SECONDS):
                return await self._wait()
        except TimeoutError:
            if self._process is not None:
                self._process.kill()
            return await self._wait()

    async def _wait(self) -> int:
        # Polled: a thread or child watcher would have to outlive every event loop.
        while self._process is not None:
            code = self._process.poll()
            if code is not None:
                return code
            await asyncio.sleep(0.02)
        return 0
