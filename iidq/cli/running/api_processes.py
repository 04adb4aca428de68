"""Several API processes on one listening socket: kept running, stopped together, replaced one by one.

Each is an ``iidq serve`` of its own. SIGHUP replaces them one after the other with processes that read ``.env`` and
iidq's code anew; an old one goes only when its successor serves, and as both accept from the same socket, no connection
meets nobody.
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
"""Whoever lived for so long has not failed at the start."""


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
        """True once it serves; False if it ended before, or takes too long."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            return False

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def end(self, patience_seconds: float) -> int:
        """Ask it to end, kill it if it does not; returns its exit code."""
        self.send(signal.SIGTERM)
        await asyncio.wait([self.ended], timeout=patience_seconds)
        self.send(signal.SIGKILL)
        return await self.ended


class ApiProcesses:
    """``WEB_CONCURRENCY`` processes that serve on ``listener``."""

    def __init__(self, listener: socket.socket, settings: Settings) -> None:
        self._listener = listener
        self._count = settings.web_concurrency
        self._patience_seconds = settings.shutdown_delay_seconds + settings.drain_timeout_seconds + _KILL_MARGIN_SECONDS
        self._places: list[_ApiProcess] = []
        self._alive: set[_ApiProcess] = set()
        self._stopping = asyncio.Event()
        self._restart_wanted = asyncio.Event()

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit code: 0 if every process then ended in order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._restart_wanted.set)
        self._places = [await self._start() for _ in range(self._count)]
        code = await self._until_stopped(self._first_failure())
        if code is None:
            tasks = [keep_running(partial(self._keep, place), "API process") for place in range(self._count)]
            tasks.append(keep_running(self._replace_when_asked, "replacement of API processes"))
            await self._stopping.wait()
            await end_tasks(tasks)
        self._stopping.set()
        codes = await asyncio.gather(*(process.end(self._patience_seconds) for process in self._alive))
        return code if code is not None else int(any(codes))

    def _stop(self) -> None:
        if self._stopping.is_set():
            for process in self._alive:
                # The second signal that it gets: hurry.
                process.send(signal.SIGTERM)
        self._stopping.set()

    async def _first_failure(self) -> int | None:
        """None once all serve, else the exit code of the first one that does not come up."""
        for process in self._places:
            if not await process.serves():
                return await process.end(0) or 1
        return None

    async def _keep(self, place: int) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            process = self._places[place]
            code = await asyncio.shield(process.ended)
            if process is not self._places[place]:
                continue
            if asyncio.get_running_loop().time() - process.started_at > _STEADY_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
            logs.api_process_ended(process.pid, code, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            self._places[place] = await self._start()

    async def _replace_when_asked(self) -> None:
        while True:
            await self._restart_wanted.wait()
            self._restart_wanted.clear()
            for place in range(self._count):
                if not await self._replace(place):
                    break

    async def _replace(self, place: int) -> bool:
        new = await self._start()
        old = self._places[place]
        if not await new.serves():
            logs.api_restart_abandoned(old.pid, "the new process did not serve in time; its own log says why")
            await new.end(0)
            return False
        # It may have died meanwhile, and another have taken its place.
        old, self._places[place] = self._places[place], new
        await old.end(self._patience_seconds)
        logs.api_process_replaced(old.pid, new.pid)
        return True

    async def _until_stopped(self, work: Awaitable[Any]) -> Any:
        """What ``work`` returns; None if the stop comes first."""
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
                # Ctrl-C in the terminal is for us, who pass it on once.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        process = _ApiProcess(child, asyncio.create_task(_hears(read_end)))
        self._alive.add(process)
        process.ended.add_done_callback(lambda _: self._alive.discard(process))
        return process


async def _hears(read_end: int) -> bool:
    """Whether a byte arrives before the other end is closed."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
    )
    try:
        return await reader.read(1) != b""
    finally:
        transport.close()
