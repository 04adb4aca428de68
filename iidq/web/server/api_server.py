"""The API process: uvicorn, with a shutdown that loses no request.

1. At SIGTERM (or SIGINT, SIGHUP) ``/readyz`` turns 503, and waits end.
2. After ``SHUTDOWN_DELAY_SECONDS``, the time of a load balancer to react, the listener closes. Other processes on
   the same listener accept further connections.
3. Each reply carries ``Connection: close``. An idle connection may send one more request within ``QUIET_SECONDS``,
   because an immediate close could hit a request in flight (RFC 9112, section 9.6).
4. Requests still running after ``DRAIN_TIMEOUT_SECONDS`` receive 503.

A second signal ends the process at once.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Generator
from email.utils import formatdate
from typing import Final, cast

import uvicorn
from starlette.applications import Starlette

from iidq.concurrency.background import END_SECONDS, end_within
from iidq.listening import BACKLOG
from iidq.observability import logs
from iidq.observability.logs import configure_logging
from iidq.process import freeze_gc, raise_malloc_threshold, raise_open_files
from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.server.http_protocol import BoundedHttp, bounded_http

QUIET_SECONDS: Final = 1.0
"""Time of an idle connection for one more request."""
REPLY_SECONDS: Final = 2.0
"""Time of interrupted requests for their 503."""
CLOSE_SECONDS: Final = 10.0
"""Time of the app for closing its database and other parts after the last request."""
_STEP_SECONDS: Final = 0.05
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve_on(listener: socket.socket, settings: Settings, serving: Callable[[], None] = lambda: None) -> int:
    """Serve until a signal; call ``serving`` once the server is ready. Return 0, or 1 after a second signal."""
    raise_malloc_threshold()
    raise_open_files()
    configure_logging(settings.log_level, settings.log_format)
    server = ApiServer(create_app(settings), settings, serving, stopping=end_within)
    server.run(sockets=[listener])
    return 1 if server.force_exit else 0


class ApiServer(uvicorn.Server):
    """uvicorn's server with its own signal handling and shutdown."""

    def __init__(
        self,
        app: Starlette,
        settings: Settings,
        serving: Callable[[], None] = lambda: None,
        stopping: Callable[[float], None] = lambda _: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                backlog=BACKLOG,
                log_config=None,
                access_log=False,
                server_header=False,
                http=bounded_http(settings),
                ws="none",
                proxy_headers=False,
            )
        )
        self._app = app
        self._settings = settings
        self._serving = serving
        self._stopping = stopping
        self._delay: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then log and report readiness."""
        await super().startup(sockets)
        freeze_gc()
        logs.api_serving(os.getpid())
        self._serving()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals by :meth:`ask_to_stop`; the process ends with an exit code, not by a signal."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.ask_to_stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def ask_to_stop(self) -> None:
        """Shut down in order, or at once on a second call; ``stopping`` receives the seconds until the end."""
        if not self.started:
            self._stopping(END_SECONDS)
            self.should_exit = True
        elif self._delay is None:
            self._stopping(END_SECONDS + self._settings.shutdown_delay_seconds + self._settings.drain_timeout_seconds)
            self._app.state.service.stopping.set()
            self._delay = asyncio.create_task(self._exit_after_delay())
        else:
            self._stopping(END_SECONDS)
            self.should_exit = self.force_exit = True

    async def _exit_after_delay(self) -> None:
        await asyncio.sleep(self._settings.shutdown_delay_seconds)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, connections, requests and app in order, each within a bounded time."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        logs.api_draining(len(self.server_state.tasks), self._settings.drain_timeout_seconds)
        await self._drain()
        interrupted = await self._interrupt()
        if not self.force_exit:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.lifespan.shutdown()
        logs.api_stopped(interrupted)

    async def _drain(self) -> None:
        state, clock = self.server_state, asyncio.get_running_loop().time
        for connection in self._connections():
            if not _is_quiet(connection):
                # The present reply is the last on this connection.
                connection.shutdown()
        quiet_until = clock() + QUIET_SECONDS
        deadline = clock() + self._settings.drain_timeout_seconds
        while (state.connections or state.tasks) and clock() < deadline and not self.force_exit:
            # For requests that begin from now on: uvicorn sends these with every reply, and closes.
            state.default_headers = [(b"date", formatdate(usegmt=True).encode()), (b"connection", b"close")]
            if clock() >= quiet_until:
                self._close_quiet_connections()
            await asyncio.sleep(_STEP_SECONDS)

    def _close_quiet_connections(self) -> None:
        for connection in self._connections():
            # Unread bytes would be answered with a reset.
            if _is_quiet(connection) and not _has_unread(connection):
                connection.shutdown()

    async def _interrupt(self) -> int:
        tasks = set(self.server_state.tasks)
        for task in tasks:
            # ``RequestContextMiddleware`` turns this into 503.
            task.cancel()
        if tasks and not self.force_exit:
            await asyncio.wait(tasks, timeout=REPLY_SECONDS)
        for connection in self._connections():
            connection.transport.close()
        return len(tasks)

    def _connections(self) -> list[BoundedHttp]:
        return cast("list[BoundedHttp]", list(self.server_state.connections))


def _is_quiet(connection: BoundedHttp) -> bool:
    """Return whether the connection serves no request."""
    return connection.cycle is None or connection.cycle.response_complete


def _has_unread(connection: BoundedHttp) -> bool:
    readable = select.poll()
    readable.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(readable.poll(0))
