"""A load on HTTP: each kept connection sends its next request after the answer.

Over bare sockets: any client library would cost more than the server under load.
"""

import argparse
import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

from benchmarks.processes.lines import Lines, run
from benchmarks.samples import REGISTRY


class Connection(asyncio.Protocol):
    """Send and receive until the deadline; keep the time of every exchange."""

    def __init__(self, request: Callable[[], bytes], until: float, pause_seconds: float) -> None:
        self._request = request
        self._until = until
        self._pause_seconds = pause_seconds
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.latency_ms: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio at the start of the connection."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: check for a complete answer with status 200."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"content-length:")
        if at < 0 or not head.startswith(b"HTTP/1.1 200"):
            self._fail(head.split(b"\r\n")[0].decode())
            return
        if len(body) < int(head[at + 15 :].split(b"\r\n")[0]):
            return
        self._received = b""
        now = time.perf_counter()
        self.latency_ms.append((now - self._sent_at) * 1000)
        if now >= self._until:
            self._end()
        elif self._pause_seconds:
            # A fixed beat, not a pause after each answer: a slow answer must not thin out the load.
            self._loop.call_later(max(0.0, self._pause_seconds - (now - self._sent_at)), self._send)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio at the end of the connection."""
        if not self.ended.done():
            self._fail("the connection was closed")

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_at = time.perf_counter()
        self._transport.write(self._request())

    def _end(self) -> None:
        assert self._transport is not None
        if not self.ended.done():
            self.ended.set_result(None)
        self._transport.close()

    def _fail(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(why))
        if self._transport is not None:
            self._transport.close()


def posts(host: str, path: str) -> Callable[[], bytes]:
    """Yield submissions, each of another content."""
    count = 0

    def request() -> bytes:
        nonlocal count
        count += 1
        digest = hashlib.sha256(b"%d" % count).hexdigest()
        body = (
            f'{{"contentHash":"0x{digest}","manifestURI":"ipfs://bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",'
            f'"registryAddress":"{REGISTRY}"}}'
        )
        return (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    return request


def gets(host: str, path: str) -> Callable[[], bytes]:
    """Yield the same GET again and again."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    return lambda: request


async def load(url: str, method: str, connections: int, seconds: float, per_second: float) -> None:
    """Load one URL; print requests per second and the milliseconds of each request."""
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    request = (posts if method == "POST" else gets)(parts.netloc, path)
    lines = Lines()
    await lines.ready()
    started_at = time.perf_counter()
    pause_seconds = connections / per_second if per_second else 0.0
    opened = []
    for _ in range(connections):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(request, started_at + seconds, pause_seconds), parts.hostname, parts.port
        )
        opened.append(connection)
    await asyncio.gather(*(connection.ended for connection in opened))
    latency_ms = [each for connection in opened for each in connection.latency_ms]
    lines.result(per_s=len(latency_ms) / (time.perf_counter() - started_at), latency_ms=latency_ms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--method", choices=["GET", "POST"], default="GET")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument(
        "--per-second", type=float, default=0, help="a beat for all connections together; 0: as fast as can be"
    )
    chosen = parser.parse_args()
    run(load(chosen.url, chosen.method, chosen.connections, chosen.seconds, chosen.per_second))
