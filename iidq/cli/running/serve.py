"""``iidq serve``: the API alone, in one or several processes on the same port."""

import asyncio
import os
import socket

from iidq.listening import base_url, listen
from iidq.observability.logs import configure_logging
from iidq.settings import Settings, load_settings


def serve(fd: int | None = None, ready_fd: int | None = None) -> int:
    """Serve until SIGTERM; return 0 if all requests ended in order, else 1.

    ``fd`` is a listening socket of the parent process. A byte is written to ``ready_fd`` once requests are served.
    """
    settings = load_settings("database_url", "rpc_url")
    listener = socket.socket(fileno=fd) if fd is not None else _listen(settings)
    if settings.web_concurrency > 1:
        from iidq.cli.running.api_processes import ApiProcesses
        from iidq.observability.metrics_folder import counted_together

        configure_logging(settings.log_level, settings.log_format)
        with counted_together():
            return asyncio.run(ApiProcesses(listener, settings).run())
    from iidq.web.server.api_server import serve_on

    return serve_on(listener, settings, lambda: _report_ready(ready_fd))


def _report_ready(ready_fd: int | None) -> None:
    if ready_fd is not None:
        os.write(ready_fd, b"1")
        os.close(ready_fd)


def _listen(settings: Settings) -> socket.socket:
    listener = listen(settings.host, settings.port)
    print(f"iidq listens on {base_url(listener)}", flush=True)
    return listener
