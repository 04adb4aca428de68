"""One API process: uvicorn, which ends without losing a request.

At SIGTERM (or SIGINT, SIGHUP) ``/readyz`` turns 503 and waits end. After ``SHUTDOWN_DELAY_SECONDS``, which a load
balancer needs to look elsewhere, the listener closes; another process that shares it takes the connections to come.
Each reply from then on says ``Connection: close``, and a connection without a request may bring one more within
``QUIET_SECONDS``: closed at once, it could be closed in the very moment in which its client sends (RFC 9112,
section 9.6). What still runs after ``DRAIN_TIMEOUT_SECONDS`` is answered with 503. A second signal ends all that.
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
from iidq.garbage import spare_lasting_objects
from iidq.listening import BACKLOG
from iidq.observability import logs
from iidq.observability.logs import configure_logging
from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.server.allocation import keep_freed_memory
from iidq.web.server.http_protocol import BoundedHttp, bounded_http
from iidq.web.server.open_files import raise_open_files

QUIET_SECONDS: Final = 1.0
REPLY_SECONDS: Final = 2.0
"""What interrupted requests have for their 503."""
CLOSE_SECONDS: Final = 10.0
"""What the app has to close its database and the like, once no request is left."""
_STEP_SECONDS: Final = 0.05
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve_on(listener: socket.socket, settings: Settings, serving: Callable[[], None] = lambda: None) -> int:
    """Serve until a signal; call ``serving`` once requests are answered. Returns the exit code: 1 if hurried."""
    keep_freed_memory()
    raise_open_files()
    configure_logging(settings.log_level, settings.log_format)
    server = ApiServer(create_app(settings), settings, serving, stopping=end_within)
    server.run(sockets=[listener])
    return 1 if server.force_exit else 0


class ApiServer(uvicorn.Server):
    """uvicorn's server under our rules for signals and for the end."""

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
        """As uvicorn's."""
        await super().startup(sockets)
        spare_lasting_objects()
        logs.api_serving(os.getpid())
        self._serving()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """The first signal asks for the end, the second for a quick one; the exit code tells, not a signal's death."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.ask_to_stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def ask_to_stop(self) -> None:
        """End in order; called again, at once. ``stopping`` is told when the process must have ended."""
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
        """End the listener, the connections, the requests and the app, in this order, each within its time."""
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
                # The reply under way is the last on this connection.
                connection.shutdown()
        quiet_until = clock() + QUIET_SECONDS
        deadline = clock() + self._settings.drain_timeout_seconds
        while (state.connections or state.tasks) and clock() < deadline and not self.force_exit:
            # Of requests that begin from now on; uvicorn adds these to every reply, and obeys.
            state.default_headers = [(b"date", formatdate(usegmt=True).encode()), (b"connection", b"close")]
            if clock() >= quiet_until:
                self._close_quiet_connections()
            await asyncio.sleep(_STEP_SECONDS)

    def _close_quiet_connections(self) -> None:
        for connection in self._connections():
            # What has arrived and was not read yet would be answered with a reset.
            if _is_quiet(connection) and not _has_unread(connection):
                connection.shutdown()

    async def _interrupt(self) -> int:
        tasks = set(self.server_state.tasks)
        for task in tasks:
            # ``RequestContextMiddleware`` makes a 503 of it.
            task.cancel()
        if tasks and not self.force_exit:
            await asyncio.wait(tasks, timeout=REPLY_SECONDS)
        for connection in self._connections():
            connection.transport.close()
        return len(tasks)

    def _connections(self) -> list[BoundedHttp]:
        return cast("list[BoundedHttp]", list(self.server_state.connections))


def _is_quiet(connection: BoundedHttp) -> bool:
    """No request of this connection is being served."""
    return connection.cycle is None or connection.cycle.response_complete


def _has_unread(connection: BoundedHttp) -> bool:
    readable = select.poll()
    readable.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(readable.poll(0))
