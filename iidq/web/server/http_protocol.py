"""The server's side of an HTTP/1.1 connection: uvicorn's protocol with bounds, and bodies without copies.

Bounds and refusals: size of a request's head (414, 431), number of headers (431), time of the head (408),
framing of a chunked body (400), connections (503). A refusal is JSON like every other reply. Except
after 503 the connection lingers (RFC 9112, section 9.6), so that a sending client can read the reply.

Content-Length and Transfer-Encoding alone define the end of a request (RFC 9112, section 6.3). No upgrade is offered,
so ``Upgrade`` is ignored (RFC 9110, section 7.8). A request with an ambiguous end is refused with 400, and the
connection closes.

A reply to HTTP/1.0 is never chunked: a body without Content-Length ends with the connection (RFC 9112, section 6.3),
which closes after every such reply.
"""

import asyncio
import re
from functools import partial
from typing import Any, Final
from uuid import uuid4

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from iidq.observability import logs
from iidq.process import most_connections
from iidq.settings import Settings
from iidq.web.reply.wire import JsonReply
from iidq.web.server.direct import SinglePieceIO
from iidq.web.server.lingering_close import LINGER_BYTES, LINGER_SECONDS

MAX_HEAD_BYTES: Final = 64 * 1024
"""Largest head of a request: its line and headers."""
MAX_HEADERS: Final = 100
"""Most headers of a request."""
RETRY_AFTER_SECONDS: Final = 1
"""``Retry-After`` of a refused connection."""
MAX_FRAMING_PER_BYTE: Final = 8
"""Most bytes of framing per byte of a chunked body; a chunk of one byte needs five, and more is an attack."""

_PROXY_PROTOCOL: Final = (b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n")
"""Beginnings of its two versions (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt)."""

# A target in absolute form (RFC 9112, section 3.2.2) with an empty path, which means "/".
_PATHLESS = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*://[^/?#]+)((?:[?#].*)?)", re.DOTALL)


class _Refusal(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


def bounded_http(settings: Settings) -> Any:
    """Return the value of ``uvicorn.Config(http=…)``, which its types declare as a class."""
    return partial(
        BoundedHttp,
        head_seconds=settings.request_idle_seconds,
        keep_alive_seconds=settings.keep_alive_seconds,
        most_connections=most_connections(),
    )


class UncopiedBodies(HttpToolsProtocol):
    """Pass the bytes of a body of declared length to the app without copies.

    Such a body needs no parser. uvicorn's way through llhttp copies every byte three times more.
    """

    _missing_bytes = 0
    """Rest of a body of declared length, from the end of its first read on."""

    def _leave_parser(self, parsed_bytes: int) -> None:
        """Take over a body after its head and ``parsed_bytes``, if its length is declared."""
        declared = None
        for name, value in self.headers:
            if name == b"transfer-encoding":
                return
            if name == b"content-length":
                declared = int(value)
        if declared is not None:
            self._missing_bytes = declared - parsed_bytes
            self.parser = self._new_parser()

    def _pass_on(self, data: bytes) -> bytes:
        """Pass bytes of the body to the app; return the bytes behind the body."""
        piece = data if len(data) <= self._missing_bytes else data[: self._missing_bytes]
        self._missing_bytes -= len(piece)
        cycle = self.cycle
        if not cycle.response_complete:
            # An empty body is replaced, not appended to, so that ``receive`` returns this very object.
            cycle.body = cycle.body + piece if cycle.body else piece  # type: ignore[assignment]
            if not self._missing_bytes:
                cycle.more_body = False
            elif len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()
        return data[len(piece) :]

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # As in uvicorn: data after ``Connection: close`` must not spoil a reply that is not yet sent.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser


class BoundedHttp(UncopiedBodies):
    """One connection. A request's head must arrive within ``head_seconds``, the first one's from the connect on."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        head_seconds: float,
        keep_alive_seconds: float,
        most_connections: int,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.timeout_keep_alive = keep_alive_seconds  # type: ignore[assignment]  # any number for call_later
        self._head_seconds = head_seconds
        self._most_connections = most_connections
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_body = False
        self._head_without_upgrade = b""
        self._head_bytes = 0
        self._body_bytes = 0
        self._framing_bytes = 0
        self._refused = False
        self._dropped_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first request's head, or refuse the connection."""
        super().connection_made(transport)
        if len(self.connections) > self._most_connections:
            self._turn_away()
            return
        self._timer = self.loop.call_later(self._head_seconds, self._on_late_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_timer()
        # After a reset uvicorn leaves its own timer, which would keep the connection in memory.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle bytes from the transport: of a body of declared length, or for the parser."""
        if self._missing_bytes:
            behind = self._pass_on(data)
            if not self._missing_bytes:
                self._in_body = False
            if behind:
                self._parse(behind)
        elif self._refused:
            self._drop(data)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        cycle, was_in_body, body_bytes = self.cycle, self._in_body, self._body_bytes
        if not was_in_body:
            self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, _Refusal) else _not_http(data))
            return
        if self._in_body:
            if was_in_body and self.cycle is cycle:
                self._check_framing(len(data) - (self._body_bytes - body_bytes))
            else:
                self._leave_parser(self._body_bytes)
        elif self._in_head or self.cycle is None or self.cycle.response_complete:
            self._check_head()

    def _feed(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                head_end = upgrade.args[0]
            # The parser stops behind a head with an upgrade, and would skip the body.
            self.parser = self._new_parser()
            self.parser.feed_data(self._head_without_upgrade)
            data = memoryview(data)[head_end:]

    def _check_head(self) -> None:
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(self._head_too_large())
        elif self._timer is None:
            self._timer = self.loop.call_later(self._head_seconds, self._on_late_head)

    def _head_too_large(self) -> _Refusal:
        if not self.headers:
            return _Refusal(414, f"URI Too Long: a request's line and headers may have {MAX_HEAD_BYTES} bytes")
        return _Refusal(
            431, f"Request Header Fields Too Large: they may have {MAX_HEAD_BYTES} bytes and be {MAX_HEADERS}"
        )

    def _check_framing(self, framing_bytes: int) -> None:
        self._framing_bytes += framing_bytes
        if self._framing_bytes > MAX_HEAD_BYTES + MAX_FRAMING_PER_BYTE * self._body_bytes:
            self._refuse(_Refusal(400, "Bad Request: the chunks' extensions or trailers are too long"))

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Note the first byte of a request."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; drop a trailer."""
        if self._in_body:
            return
        name = name.lower()
        if name == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
            raise _Refusal(400, "Bad Request: expected no Transfer-Encoding other than chunked")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the whole head, and start the request."""
        # The bytes read may include some of the body, so a head is counted exactly only above the bound.
        too_long = self._head_bytes > MAX_HEAD_BYTES and self._exact_head_bytes() > MAX_HEAD_BYTES
        if too_long or len(self.headers) > MAX_HEADERS:
            raise self._head_too_large()
        version = self.parser.get_http_version()
        if version != "1.1":
            self._check_old_version(version)
        if not self.url.startswith(b"/") and (pathless := _PATHLESS.fullmatch(self.url)):
            self.url = b"%b/%b" % pathless.groups()
        if self.parser.should_upgrade():
            self._head_without_upgrade = self._write_head(version)
            return
        self._in_head, self._in_body = False, True
        self._head_bytes = self._body_bytes = self._framing_bytes = 0
        self._stop_timer()
        if version == "1.1":
            super().on_headers_complete()
        else:
            self._begin_unchunked()
        # In time, because the request's task has not begun.
        self.scope["single_piece"] = SinglePieceIO(self.cycle)  # type: ignore[typeddict-unknown-key]

    def _begin_unchunked(self) -> None:
        app = self.app
        unchunked = _Unchunked(app)
        self.app = unchunked
        super().on_headers_complete()
        self.app = app
        unchunked.cycle = self.cycle

    def on_body(self, body: bytes) -> None:
        """Count bytes of a chunked body, or of a body in one read with its head."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._in_head:
            # The head is parsed again without its upgrade.
            return
        self._in_body = False
        super().on_message_complete()

    def _check_old_version(self, version: str) -> None:
        if version != "1.0":
            raise _Refusal(400, "Bad Request: expected HTTP/1.1 or HTTP/1.0")
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            # RFC 9112, section 6.1: an old proxy may have forwarded the field without processing it.
            raise _Refusal(400, "Bad Request: expected no Transfer-Encoding in HTTP/1.0")
        # RFC 9110, section 10.1.1: an old client would take 100 for the reply itself.
        self.expect_100_continue = False

    def _write_head(self, version: str) -> bytes:
        """Return the head just read, without ``Upgrade``."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise _Refusal(400, "Bad Request: CONNECT is for proxies, and this is none")
        fields = b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade")
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version.encode(), fields)

    def _exact_head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    # The end of a connection

    def _on_late_head(self) -> None:
        self._timer = None
        cycle = self.cycle
        if self._in_head:
            self._refuse(_Refusal(408, f"Request Timeout: the headers must come within {self._head_seconds:g} s"))
        elif cycle is None or cycle.response_complete:
            self.transport.close()

    def _refuse(self, refusal: _Refusal) -> None:
        self._stop_timer()
        self._refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not self._in_body:
                # The refused bytes follow a good request; its reply is still to be sent, and becomes the last.
                cycle.keep_alive = False
                return
            if cycle.response_started:
                self.transport.close()
                return
            if self.pipeline and self.pipeline[0][0] is cycle:
                # Replies are sent in the order of the requests, so the refusal waits for the earlier ones.
                self.pipeline[0] = cycle, self._reply(refusal)  # type: ignore[assignment]  # an ASGI app, too
                self.flow.resume_reading()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self._write(self._reply(refusal))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _turn_away(self) -> None:
        # Without lingering, because descriptors are short.
        self._refused = True
        reply = self._reply(_Refusal(503, "Service Unavailable: too many connections; try again"))
        reply.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
        self._write(reply)
        self.transport.close()

    def _reply(self, refusal: _Refusal) -> JsonReply:
        correlation_id = uuid4().hex
        logs.request_refused(correlation_id, refusal.status, refusal.error)
        body = {"error": refusal.error, "correlationId": correlation_id}
        return JsonReply(body, refusal.status, {"x-correlation-id": correlation_id, "connection": "close"})

    def _write(self, reply: JsonReply) -> None:
        headers = [*self.server_state.default_headers, *reply.raw_headers]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[reply.status_code], head, bytes(reply.body)))

    def _drop(self, data: bytes) -> None:
        self._dropped_bytes += len(data)
        if self._dropped_bytes > LINGER_BYTES:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Unchunked:
    """Serve one request of HTTP/1.0: a body of unknown length is sent unchunked, and ends with the connection."""

    cycle: RequestResponseCycle

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endless = False

        async def send_plain(message: Message) -> None:
            nonlocal endless
            if message["type"] == "http.response.start":
                endless = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if endless:
                    self.cycle.chunked_encoding = False
            elif endless:
                # uvicorn compares the bytes sent with this length.
                self.cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_plain)


def _not_http(data: bytes) -> _Refusal:
    if data.startswith(_PROXY_PROTOCOL):
        return _Refusal(
            400,
            "Bad Request: the PROXY protocol is not spoken here; let the proxy send X-Forwarded-For, and name it in "
            "TRUSTED_PROXIES",
        )
    return _Refusal(400, "Bad Request: this is not HTTP/1.1")
