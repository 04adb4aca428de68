"""One request and its reply, from the outside: the correlation id, the headers that every reply carries, the log.

The outermost layer, and the only one that touches every request: what must be done for each of them is done here,
by plain calls, because a layer of its own costs each request about a twentieth of its time. It is also the last stop
of an error that nobody expected: logged once, with the id, and the client learns no more than the id.
"""

import re
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iidq import logs
from iidq.web.wire import JsonReply

HEADER = "X-Correlation-ID"
_HEADER_BYTES = HEADER.lower().encode()
# Anything else could forge lines in a log.
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")

RawHeader = tuple[bytes, bytes]


@dataclass(slots=True)
class Exchange:
    """What is known of one request beside the request: ``scope["exchange"]``."""

    correlation_id: str
    started_at: float
    status: int = 0
    reply_headers: list[RawHeader] = field(default_factory=list)
    """Added to the reply, whichever it becomes; names in lower case."""


def exchange_of(request: Request) -> Exchange:
    """The exchange that this request belongs to."""
    exchange: Exchange = request.scope["exchange"]
    return exchange


def correlation_id(request: Request) -> str:
    """The id of this request, also in the reply's ``X-Correlation-ID``."""
    return exchange_of(request).correlation_id


class Exchanges:
    """Opens an :class:`Exchange` for each request and closes it after the reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope["exchange"] = Exchange(_sent_id(scope) or uuid4().hex, time.perf_counter())
        exchange.reply_headers.append((_HEADER_BYTES, exchange.correlation_id.encode()))

        async def send_reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *exchange.reply_headers]
            await send(message)

        try:
            await self._app(scope, receive, send_reply)
        except Exception as error:
            logs.request_failed(exchange.correlation_id, scope["method"], scope["path"], error)
            if exchange.status:
                # Half a reply is on its way: only a cut connection tells the client so.
                raise
            reply = JsonReply({"error": "Internal Server Error", "correlationId": exchange.correlation_id}, 500)
            await reply(scope, receive, send_reply)
        finally:
            _close(exchange, scope)


def _close(exchange: Exchange, scope: Scope) -> None:
    logs.request_served(
        correlation_id=exchange.correlation_id,
        method=scope["method"],
        path=scope["path"],
        status=exchange.status,
        duration_ms=round((time.perf_counter() - exchange.started_at) * 1000, 1),
    )


def _sent_id(scope: MutableMapping[str, Any]) -> str | None:
    for name, value in scope["headers"]:
        if name == _HEADER_BYTES:
            return value.decode() if _PLAIN.fullmatch(value) else None
    return None
