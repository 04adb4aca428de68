"""One HTTP/1.1 connection with bounded waits, bytes and callbacks.

llhttp (httptools) parses the answers, in strict mode. A general HTTP client lacks bounds that hostile servers make
necessary. aiohttp 3.14 does not bound:

* the number of early hints,
* blank lines, padding and chunk extensions,
* the time of a whole head.

It also accepts control characters, keeps any number of idle connections, and takes an unrequested answer for the next
request's. Here the CPU per exchange is half of aiohttp's.
"""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import httptools

from iidq.errors import GatewayFault

_MAX_INFORMATIONAL_ANSWERS = 8
_MAX_FIELDS = 256
_MAX_HEAD_BYTES = 32 << 10
# Allowed for chunk heads, extensions and trailers, in addition to an eighth of the longest body.
_FREE_FRAMING_BYTES = 64 << 10
# A body in one-byte chunks costs a thousand times the usual CPU. Beyond the first 1,024, pieces must have this average
# size.
_FREE_PIECES = 1024
_LEAST_PIECE_BYTES = 256
_CLOSE_SECONDS = 1.0
_FRAMING_FIELDS = frozenset({"content-length", "transfer-encoding"})
_LINE = re.compile(r"[\t\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The longest time in seconds for each phase of an exchange."""

    connect_seconds: float = 4
    """Look-up, TCP and TLS together."""
    first_byte_seconds: float = 8
    """From the request to the end of the answer's head."""
    idle_seconds: float = 4
    """Between two pieces of the body."""
    total_seconds: float = 15
    """The whole exchange with all redirects."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The head of an answer."""

    status: int
    """The final HTTP status, from 200 on."""
    headers: dict[str, str]
    """The header fields: lower-case names, repeated fields joined with commas (RFC 9110)."""


class ConnectionLost(GatewayFault):
    """The server closed the connection before the answer was complete."""


class HttpConnection(asyncio.Protocol):
    """Sends one request after another; after a failure the connection is unusable.

    ``peer`` names the server in messages. ``idle_since`` is the owner's to set, in monotonic seconds.
    """

    def __init__(self, peer: str, deadlines: Deadlines) -> None:
        self.idle_since = 0.0
        self._peer = peer
        self._deadlines = deadlines
        self._parser = httptools.HttpResponseParser(self)
        self._progress = asyncio.Event()
        self._closed = asyncio.Event()
        self._fault: GatewayFault | None = None
        self._expect(0)
        self._complete = True

    def _expect(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_pieces = _FREE_PIECES + max_bytes // _LEAST_PIECE_BYTES
        self._hints = self._fields = self._pieces = self._framing_bytes = 0
        self._headers: dict[str, str] = {}
        self._head: ResponseHead | None = None
        self._body = bytearray()
        self._complete = self._reusable = False

    @property
    def answered(self) -> bool:
        """Return whether the last request's answer has begun."""
        return self._head is not None

    async def request(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes = b"", *, max_bytes: int
    ) -> ResponseHead:
        """Send a request and return the answer's head; raise :class:`GatewayFault`."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        if not all(map(_LINE.fullmatch, lines)):
            raise ValueError("a request with control or non-ASCII characters; expected printable ASCII")
        self._expect(max_bytes)
        self.transport.write("\r\n".join((*lines, "\r\n")).encode("ascii") + body)
        try:
            async with asyncio.timeout(self._deadlines.first_byte_seconds):
                while self._head is None:
                    await self._progressed()
        except TimeoutError:
            raise GatewayFault(
                f"{self._peer} did not answer within {self._deadlines.first_byte_seconds:g} s", code="fetch.timeout"
            ) from None
        return self._head

    async def read_body(self) -> tuple[bytes, bool]:
        """Return the body, and whether all of it fits in ``max_bytes``; raise :class:`GatewayFault`."""
        while len(self._body) <= self._max_bytes:
            if self._complete:
                return bytes(self._body), True
            try:
                async with asyncio.timeout(self._deadlines.idle_seconds):
                    await self._progressed()
            except TimeoutError:
                raise GatewayFault(
                    f"{self._peer} sent nothing for {self._deadlines.idle_seconds:g} s", code="fetch.timeout"
                ) from None
        return bytes(self._body[: self._max_bytes]), False

    def is_reusable(self) -> bool:
        """Return whether the last answer was read completely and the server takes another request."""
        return self._reusable and self._fault is None and not self.transport.is_closing()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.transport.abort()

    async def aclose(self) -> None:
        """Drop the connection and wait until the socket is closed."""
        self.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._closed.wait()

    async def _progressed(self) -> None:
        if self._fault is None:
            self._progress.clear()
            await self._progress.wait()
        if self._fault is not None:
            raise self._fault

    def _fail(self, message: str, kind: type[GatewayFault] = GatewayFault) -> GatewayFault:
        self._fault = self._fault or kind(f"{self._peer} {message}")
        self._progress.set()
        return self._fault

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse; bytes between two answers make the connection unusable."""
        if self._complete or self._fault is not None:
            self._reusable = False
            self.transport.abort()
            return
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._reusable = False
            if not self._complete:
                self._fail("does not speak proper HTTP")
        if self._head is None and self._framing_bytes > _MAX_HEAD_BYTES:
            self._fail("sent too long a head")
        elif self._framing_bytes > _FREE_FRAMING_BYTES + self._max_bytes // 8 and not self._complete:
            self._fail("sent more framing than body")

    def connection_lost(self, exc: Exception | None) -> None:
        """End a body without framing; any other answer is cut off."""
        unframed = self._head is not None and self._head.headers.keys().isdisjoint(_FRAMING_FIELDS)
        if unframed and exc is None and not self._complete:
            self.on_message_complete()
        if not self._complete:
            self._fail("closed the connection before its answer was complete", ConnectionLost)
        self._reusable = False
        self._closed.set()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Refuse an answer without a request."""
        if self._complete:
            raise ValueError("an answer without a request")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; only count a trailer."""
        self._fields += 1
        if self._fields > _MAX_FIELDS:
            raise self._fail("sent too long a head")
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        if self._head is None:
            self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Take the head, except of an early hint."""
        status = self._parser.get_status_code()
        if self._headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise self._fail("does not speak proper HTTP")
        if status >= 200:
            self._head = ResponseHead(status, self._headers)
            self._progress.set()
        self._headers = {}

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._pieces += 1
        if self._pieces > self._max_pieces:
            raise self._fail("sent its answer in too many small pieces")
        self._framing_bytes -= len(data)
        self._body += data
        self._progress.set()

    def on_message_complete(self) -> None:
        """End the answer, or count an early hint."""
        if self._head is None:
            self._hints += 1
            if self._hints > _MAX_INFORMATIONAL_ANSWERS:
                raise self._fail("sent too many early hints")
            return
        self._complete = True
        self._reusable = self._parser.should_keep_alive()
        self._progress.set()
