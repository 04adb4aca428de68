"""``iidq serve``: the API alone, in one process or in several on one port."""

import asyncio
import os
import socket

from iidq.logs import configure_logging
from iidq.settings import Settings, load_settings

BACKLOG = 2048
"""Connections that the kernel accepts for processes that are busy, or not up yet."""


def serve(fd: int | None = None, ready_fd: int | None = None) -> int:
    """Serve until SIGTERM; returns the exit code: 0 after all requests ended in order, else 1.

    ``fd`` is a listening socket that whoever started us has bound; one byte goes to ``ready_fd`` once we serve.
    """
    settings = load_settings("database_url", "rpc_url")
    listener = socket.socket(fileno=fd) if fd is not None else _listen(settings)
    if settings.web_concurrency > 1:
        from iidq.cli.api_processes import ApiProcesses
        from iidq.metrics_folder import counted_together

        configure_logging(settings.log_level, settings.log_format)
        with counted_together():
            return asyncio.run(ApiProcesses(listener, settings).run())
    from iidq.web.server import serve_on

    return serve_on(listener, settings, lambda: _tell(ready_fd))


def _tell(ready_fd: int | None) -> None:
    if ready_fd is not None:
        os.write(ready_fd, b"1")
        os.close(ready_fd)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts; without, every reply takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    # Here already: clients wait in the backlog, however long the processes take to come up.
    listener.listen(BACKLOG)
    print(f"iidq listens on http://{settings.host}:{listener.getsockname()[1]}", flush=True)
    return listener
