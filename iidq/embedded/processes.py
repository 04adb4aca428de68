"""The processes that ``iidq demo`` and ``iidq up`` start: iidq itself, as its users run it, ending when we end."""

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
    """One ``python -m iidq …`` process. Start it from the main thread: it dies with the thread that starts it."""

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
        self._asked = False

    @property
    def pid(self) -> int | None:
        """Process id of the present incarnation."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it; what it says goes to the log, or to our own standard error without one."""
        self._asked = False
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log_path.open("ab")) if self._log_path else None
            self._process = subprocess.Popen(
                self._arguments,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log or sys.stderr,
                stderr=log or sys.stderr,
                pass_fds=self._keep_open,
                # Ctrl-C in the terminal is for us; we then stop our processes in order.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    async def keep_running(self, died: Callable[[str, int], None]) -> None:
        """Start it again whenever it ends, more slowly each time; tell ``died`` its name and exit code."""
        delay_seconds = _FIRST_RESTART_SECONDS
        while True:
            code = await self._wait()
            died(self.name, code)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(_LONGEST_RESTART_SECONDS, 2 * delay_seconds)
            self.start()

    def ask_to_stop(self) -> None:
        """SIGTERM: drain and end. Sent once: a second one would cut the drain short."""
        if self._process is not None and self._process.poll() is None and not self._asked:
            self._asked = True
            self._process.terminate()

    async def stop(self) -> int:
        """Return its exit code when it has ended, killed if it does not end by itself."""
        self.ask_to_stop()
        try:
            async with asyncio.timeout(_KILL_AFTER_SECONDS):
                return await self._wait()
        except TimeoutError:
            if self._process is not None:
                self._process.kill()
            return await self._wait()

    async def _wait(self) -> int:
        # Polled, because a watching thread or child watcher would have to outlive every loop.
        while self._process is not None:
            code = self._process.poll()
            if code is not None:
                return code
            await asyncio.sleep(0.02)
        return 0
