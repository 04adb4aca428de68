"""``iidq serve``: the API alone, in one process or in several on one port."""

import socket

import uvicorn

from iidq.settings import Settings, load_settings

_GRACE_SECONDS = 20
_BACKLOG = 2048


def serve(fd: int | None = None) -> None:
    """Serve until SIGTERM; ``fd`` is a listening socket that whoever started us has bound."""
    settings = load_settings("database_url", "rpc_url")
    config = uvicorn.Config(
        "iidq.web.app:app_from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.web_concurrency,
        backlog=_BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    listener = socket.socket(fileno=fd) if fd is not None else _listen(settings)
    if settings.web_concurrency > 1:
        from uvicorn.supervisors import Multiprocess

        Multiprocess(config, sockets=[listener]).run()
    else:
        uvicorn.Server(config).run(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts; without, every reply takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    listener.listen(_BACKLOG)
    listener.set_inheritable(True)
    print(f"iidq listens on http://{settings.host}:{listener.getsockname()[1]}", flush=True)
    return listener
