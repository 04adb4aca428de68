"""Several API processes on a single listening socket: kept running, stopped together, replaced in turn.

Each process is an ``iidq serve``. SIGHUP replaces each by a new process, which reads ``.env`` and iidq's code again.
The old process ends once the new process serves. Both accept from the same socket, so no connection is refused.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

from iidq.concurrency.background import end_tasks, keep_running
from iidq.observability import logs
from iidq.process import die_with_parent
from iidq.settings import Settings

READY_SECONDS: Final = 60.0
_KILL_MARGIN_SECONDS: Final = 20.0
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 5.0
_STEADY_SECONDS: Final = 60.0
"""A process of this age did not fail at its start, so the restart pause is reset."""


class _ApiProcess:
    def __init__(self, process: asyncio.subprocess.Process, ready: asyncio.Task[bool]) -> None:
        self._process = process
        self._ready = ready
        self.started_at = asyncio.get_running_loop().time()
        self.ended = asyncio.create_task(process.wait())

    @property
    def pid(self) -> int:
        return self._process.pid

    async def serves(self) -> bool:
        """Return True once the process serves, False for an early end or a timeout."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            return False

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def end(self, timeout_seconds: float) -> int:
        """Send SIGTERM, after ``timeout_seconds`` SIGKILL; return the exit code."""
        self.send(signal.SIGTERM)
        await asyncio.wait([self.ended], timeout=timeout_seconds)
        self.send(signal.SIGKILL)
        return await self.ended


class ApiProcesses:
    """``WEB_CONCURRENCY`` processes on ``listener``."""

    def __init__(self, listener: socket.socket, settings: Settings) -> None:
        self._listener = listener
        self._count = settings.web_concurrency
        self._end_seconds = settings.shutdown_delay_seconds + settings.drain_timeout_seconds + _KILL_MARGIN_SECONDS
        self._slots: list[_ApiProcess] = []
        self._alive: set[_ApiProcess] = set()
        self._stopping = asyncio.Event()
        self._restart_wanted = asyncio.Event()

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; return 0 if every process then ended in order, else 1."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._restart_wanted.set)
        self._slots = [await self._start() for _ in range(self._count)]
        code = await self._until_stopped(self._first_failure())
        if code is None:
            tasks = [keep_running(partial(self._keep, slot), "API process") for slot in range(self._count)]
            tasks.append(keep_running(self._replace_on_sighup, "replacement of API processes"))
            await self._stopping.wait()
            await end_tasks(tasks)
        self._stopping.set()
        codes = await asyncio.gather(*(process.end(self._end_seconds) for process in self._alive))
        return code if code is not None else int(any(codes))

    def _stop(self) -> None:
        if self._stopping.is_set():
            for process in self._alive:
                # A second SIGTERM makes the process end at once.
                process.send(signal.SIGTERM)
        self._stopping.set()

    async def _first_failure(self) -> int | None:
        """Return None once all serve, else the exit code of the first failed process."""
        for process in self._slots:
            if not await process.serves():
                return await process.end(0) or 1
        return None

    async def _keep(self, slot: int) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            process = self._slots[slot]
            code = await asyncio.shield(process.ended)
            if process is not self._slots[slot]:
                continue
            if asyncio.get_running_loop().time() - process.started_at > _STEADY_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
            logs.api_process_ended(process.pid, code, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            self._slots[slot] = await self._start()

    async def _replace_on_sighup(self) -> None:
        while True:
            await self._restart_wanted.wait()
            self._restart_wanted.clear()
            for slot in range(self._count):
                if not await self._replace(slot):
                    break

    async def _replace(self, slot: int) -> bool:
        new = await self._start()
        old = self._slots[slot]
        if not await new.serves():
            logs.api_restart_abandoned(old.pid, "the new process did not serve in time; its own log says why")
            await new.end(0)
            return False
        # The old process may have died and been replaced meanwhile.
        old, self._slots[slot] = self._slots[slot], new
        await old.end(self._end_seconds)
        logs.api_process_replaced(old.pid, new.pid)
        return True

    async def _until_stopped(self, work: Awaitable[Any]) -> Any:
        """Return the result of ``work``; None if the stop comes first."""
        working, stop = asyncio.ensure_future(work), asyncio.create_task(self._stopping.wait())
        await asyncio.wait([working, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if working.done():
            return working.result()
        working.cancel()
        return None

    async def _start(self) -> _ApiProcess:
        read_end, write_end = os.pipe()
        descriptors = (self._listener.fileno(), write_end)
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "iidq", "serve"),
                *("--fd", str(descriptors[0]), "--ready-fd", str(descriptors[1])),
                env={**os.environ, "WEB_CONCURRENCY": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                # Ctrl-C in the terminal reaches this process alone, which forwards it once.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        process = _ApiProcess(child, asyncio.create_task(_receives_byte(read_end)))
        self._alive.add(process)
        process.ended.add_done_callback(lambda _: self._alive.discard(process))
        return process


async def _receives_byte(read_end: int) -> bool:
    """Return whether a byte arrives before the other end is closed."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    try:
        return await reader.read(1) != b""
    finally:
        transport.close()
