"""The server's side of an HTTP/1.1 connection: uvicorn's, with the bounds that it lacks and bodies that pass uncopied.

Bounds, each with its refusal: a request's head (its line and headers) in bytes (414, 431), in headers (431) and in
time (408); what a chunked body may spend on framing (400); connections (503). A refusal is JSON, as every other reply,
and but for the last the connection lingers after it (RFC 9112, section 9.6), so that a client that still sends can
read it.

A body of declared length needs no parser: it is so many bytes. Once its head is read, what the transport has read goes
to the app as it is. uvicorn's way through llhttp copies every byte three times more.

Content-Length and Transfer-Encoding alone say where a request ends (RFC 9112, section 6.3). An upgrade is not offered,
so ``Upgrade`` is ignored (RFC 9110, section 7.8) and changes nothing of that. A request whose end another reader could
see elsewhere is refused with 400, and the connection closes.

A reply to HTTP/1.0 is never chunked: without a Content-Length its body ends with the connection (RFC 9112, section
6.3), which closes after every reply to such a request.
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
from iidq.settings import Settings
from iidq.web.reply.wire import JsonReply
from iidq.web.server.direct import SinglePieceIO
from iidq.web.server.lingering_close import LINGER_BYTES, LINGER_SECONDS
from iidq.web.server.open_files import most_connections

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 100
RETRY_AFTER_SECONDS: Final = 1
MAX_FRAMING_PER_BYTE: Final = 8
"""A chunk of one byte is framed by five; extensions and trailers (RFC 9112, section 7.1) beyond this are an attack."""


_PROXY_PROTOCOL: Final = (b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n")
"""How its two versions begin (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt)."""


# A target in absolute form (RFC 9112, section 3.2.2) whose path is empty, which means "/".
_PATHLESS = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*://[^/?#]+)((?:[?#].*)?)", re.DOTALL)


class _Refusal(Exception):
    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


def bounded_http(settings: Settings) -> Any:
    """What ``uvicorn.Config(http=…)`` takes, which by its types is a class."""
    return partial(
        BoundedHttp,
        head_seconds=settings.request_idle_seconds,
        keep_alive_seconds=settings.keep_alive_seconds,
        most_connections=most_connections(),
    )


class BoundedHttp(HttpToolsProtocol):
    """One connection; ``head_seconds`` is the time that a request's head has, the first one's from the connect on."""

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
        self.timeout_keep_alive = keep_alive_seconds  # type: ignore[assignment]  # whatever call_later takes
        self._head_seconds = head_seconds
        self._most_connections = most_connections
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._in_body = False
        self._head_without_upgrade = b""
        self._head_bytes = 0
        self._body_bytes = 0
        self._framing_bytes = 0
        # Of a body of declared length, from the end of the first read on.
        self._missing_bytes = 0
        self._deaf = False
        self._dropped_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; from now on its request's head has a deadline."""
        super().connection_made(transport)
        if len(self.connections) > self._most_connections:
            self._turn_away()
            return
        self._timer = self.loop.call_later(self._head_seconds, self._on_late_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever closed it: nothing of ours outlives it."""
        self._stop_timer()
        # uvicorn forgets its own where the connection was reset, and the timer keeps all of it in memory.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the transport: of a body of known length, or for the parser."""
        if self._missing_bytes:
            self._pass_on(data)
        elif self._deaf:
            self._drop(data)
        else:
            self._parse(data)

    def _pass_on(self, data: bytes) -> None:
        piece = data if len(data) <= self._missing_bytes else data[: self._missing_bytes]
        self._missing_bytes -= len(piece)
        cycle = self.cycle
        if not cycle.response_complete:
            # An empty body is replaced, not appended to: then ``receive`` hands out this very object.
            cycle.body = cycle.body + piece if cycle.body else piece  # type: ignore[assignment]
            if not self._missing_bytes:
                cycle.more_body = False
            elif len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()
        if not self._missing_bytes:
            self._in_body = False
            if len(piece) < len(data):
                self._parse(data[len(piece) :])

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
                self._leave_parser()
        elif self._in_head or self.cycle is None or self.cycle.response_complete:
            self._check_head()

    def _feed(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                head_end = upgrade.args[0]
            # The parser stops behind a head that asks for an upgrade, and would skip the body.
            self.parser = self._new_parser()
            self.parser.feed_data(self._head_without_upgrade)
            data = memoryview(data)[head_end:]

    def _leave_parser(self) -> None:
        declared = None
        for name, value in self.headers:
            if name == b"transfer-encoding":
                return
            if name == b"content-length":
                declared = int(value)
        if declared is not None:
            self._missing_bytes = declared - self._body_bytes
            self.parser = self._new_parser()

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # As uvicorn has it: data after ``Connection: close`` must not spoil the reply that is still to come.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

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
        """The first byte of a request."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which nobody here wants."""
        if self._in_body:
            return
        name = name.lower()
        if name == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
            raise _Refusal(400, "Bad Request: expected no Transfer-Encoding other than chunked")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: the request starts."""
        # Counting exactly is for the few whose bytes, with whatever came along, are more than allowed.
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
        # Its task has not begun yet.
        self.scope["whole"] = SinglePieceIO(self.cycle)  # type: ignore[typeddict-unknown-key]

    def _begin_unchunked(self) -> None:
        app = self.app
        unchunked = _Unchunked(app)
        self.app = unchunked
        super().on_headers_complete()
        self.app = app
        unchunked.cycle = self.cycle

    def on_body(self, body: bytes) -> None:
        """Bytes of a chunked body, or of one that came together with its head."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._in_head:
            # The head is parsed once more, without its upgrade.
            return
        self._in_body = False
        super().on_message_complete()

    def _check_old_version(self, version: str) -> None:
        if version != "1.0":
            raise _Refusal(400, "Bad Request: expected HTTP/1.1 or HTTP/1.0")
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            # RFC 9112, section 6.1: an old proxy in between may have forwarded it without understanding it.
            raise _Refusal(400, "Bad Request: expected no Transfer-Encoding in HTTP/1.0")
        # RFC 9110, section 10.1.1: such a client would take 100 for the reply itself.
        self.expect_100_continue = False

    def _write_head(self, version: str) -> bytes:
        """The head just read, without ``Upgrade``."""
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
        self._deaf = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not self._in_body:
                # What is refused came after a good request, whose reply is still to come, and is the last.
                cycle.keep_alive = False
                return
            if cycle.response_started:
                self.transport.close()
                return
            if self.pipeline and self.pipeline[0][0] is cycle:
                # Replies go out in the order of the requests: the earlier ones come first.
                self.pipeline[0] = cycle, self._reply(refusal)  # type: ignore[assignment]  # as ASGI goes, the same
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
        # Without lingering: there are no descriptors to spare.
        self._deaf = True
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
    """Serves one request of HTTP/1.0: a body of unknown length goes out as it is, and ends with the connection."""

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
                # uvicorn compares what it sends with the length that it expects.
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
