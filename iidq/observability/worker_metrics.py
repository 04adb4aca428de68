"""``GET /metrics`` of a worker; off unless ``WORKER_METRICS_PORT`` is set.

Threads serve scrapes, also while a job blocks the event loop.
"""

import hmac
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from iidq import __version__
from iidq.errors import SettingsFault
from iidq.listening import listen
from iidq.observability import logs
from iidq.observability.exposition import exposition
from iidq.settings import Settings

_IDLE_SECONDS: Final = 10.0
_AT_ONCE: Final = 8


@contextmanager
def serve_metrics(settings: Settings) -> Iterator[None]:
    """Serve scrapes for the block if a port is configured; an unusable host or port is only logged."""
    port = settings.worker_metrics_port
    if port is None:
        yield
        return
    key = settings.api_key.get_secret_value().encode() if settings.api_key else None
    try:
        server = _MetricsServer(listen(settings.host, port, "WORKER_METRICS_PORT"), key)
    except SettingsFault as error:
        logs.metrics_unavailable(port, error)
        yield
        return
    thread = threading.Thread(target=server.serve_forever, name="iidq-metrics", daemon=True)
    thread.start()
    logs.metrics_served(port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _MetricsServer(ThreadingHTTPServer):
    # The end must not wait for a slow scraper.
    block_on_close = False

    def __init__(self, listener: socket.socket, key: bytes | None) -> None:
        self.key = key
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(listener.getsockname(), _Scrape, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse while eight scrapes are in progress."""
        return self._room.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a scraper that disconnects."""


class _Scrape(BaseHTTPRequestHandler):
    server: _MetricsServer
    server_version = f"iidq/{__version__}"
    sys_version = ""
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        """Reply with the metrics; require the API key where one is configured."""
        if self.path.partition("?")[0].removesuffix("/") != "/metrics":
            self._reply(404, b"expected /metrics\n")
        elif not self._is_admitted():
            self._reply(401, b"Unauthorized\n", ("WWW-Authenticate", "Bearer"))
        else:
            body, content_type = exposition(self.headers.get("Accept", ""))
            self._reply(200, body, ("Content-Type", content_type))

    def _is_admitted(self) -> bool:
        key = self.server.key
        if key is None:
            return True
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        shown = [self.headers.get("X-API-Key", ""), token.strip() if scheme.lower() == "bearer" else ""]
        return any(hmac.compare_digest(one.encode("latin-1", "replace"), key) for one in shown)

    def _reply(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the base's own name
        """Scrapes are not logged."""
