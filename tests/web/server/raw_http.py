"""Send requests as bytes, and parse replies with the standard library."""

import asyncio
import http.client
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply."""

    status: int
    """The status code."""
    headers: dict[str, str]
    """The headers by lower-case name."""
    body: bytes
    """The decoded body."""


class _Received(io.BytesIO):
    """The bytes of a connection as a file; ``close`` has no effect, so that the next reply can be read."""

    def makefile(self, mode: str) -> "_Received":
        return self

    def close(self) -> None:
        pass

    def at_end(self) -> bool:
        return self.tell() == len(self.getbuffer())


def replies_in(received: bytes, methods: Iterable[str]) -> list[Reply]:
    """Return the replies to requests with these methods. Fail if more bytes follow."""
    stream = _Received(received)
    found = []
    for method in methods:
        if stream.at_end():
            break
        reply = http.client.HTTPResponse(cast("Any", stream), method=method)
        reply.begin()
        headers = {name.lower(): value for name, value in reply.getheaders()}
        found.append(Reply(reply.status, headers, reply.read()))
    assert stream.at_end(), f"more replies than requests: {received!r}"
    return found


def chunked(*pieces: bytes, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece) + (
        b"0%b\r\n%b\r\n" % (extension, trailer)
    )


def request(
    line: str, *headers: str, body: bytes | None = None, chunks: Sequence[bytes] | None = None, **framing: bytes
) -> bytes:
    lines = [line, "Host: a", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
    payload = chunked(*chunks, **framing) if chunks is not None else body or b""
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload


async def converse(host: str, port: int, sent: bytes) -> bytes:
    """Send all bytes, and read until the server closes; raise :class:`TimeoutError` after 30 s."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(30):
            writer.write(sent)
            return await reader.read()
    finally:
        writer.close()
