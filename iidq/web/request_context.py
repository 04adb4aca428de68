"""One request and its reply, from the outside: the correlation id, the headers that every reply carries, the log.

The outermost layer, and the only one that touches every request: what must be done for each of them is done here,
by plain calls, because a layer of its own costs each request about a twentieth of its time. It is also the last stop
of an error that nobody expected: logged once, with the id, and the client learns no more than the id.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iidq.observability import logs, metrics, traces
from iidq.web.guard.security_headers import security_headers
from iidq.web.reply.wire import JsonReply, ReadyJson
from iidq.web.request.path_prefix import PathPrefixes
from iidq.web.server.lingering_close import UnreadBodies
from iidq.web.server.single_piece import WholeMessages

HEADER = "X-Correlation-ID"
_HEADER_BYTES = HEADER.lower().encode()
# Anything else could forge lines in a log.
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")

UNMATCHED = "unmatched"
"""Stands for the route of a request that met none."""

RawHeader = tuple[bytes, bytes]


@dataclass(slots=True)
class Exchange:
    """What is known of one request beside the request: ``scope["exchange"]``."""

    correlation_id: str
    started_at: float
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """The request's, names in lower case; of one that is sent twice the last. For a quick look at what is not there."""
    body_read: bool = False
    """The request's body has been read to its end."""
    client_address: str = ""
    """The client itself, not a proxy before us; empty where nobody knows."""
    path_prefix: str = ""
    """Begins every URL of ours that the reply gives out: empty, or such as ``/iidq``."""
    holds_key: bool = False
    """An API key is set, and the request carries it."""
    may_operate: bool = False
    """No API key is set, or the request carries it."""
    status: int = 0
    reply_headers: list[RawHeader] = field(default_factory=list)
    """Added to the reply, whichever it becomes; names in lower case."""

    def all_headers(self, own: Sequence[RawHeader]) -> list[RawHeader]:
        """The reply's own headers and those that every reply carries."""
        return [*own, *self.reply_headers, *security_headers(own)]

    def send_whole(self, whole: WholeMessages, reply: ReadyJson) -> bool:
        """Send the reply in one piece; False where it has to go the usual way."""
        sent = whole.reply(reply.status_code, self.all_headers(reply.raw_headers), bytes(reply.body))
        if sent:
            self.status = reply.status_code
        return sent


def exchange_of(request: Request) -> Exchange:
    """The exchange that this request belongs to."""
    exchange: Exchange = request.scope["exchange"]
    return exchange


def correlation_id(request: Request) -> str:
    """The id of this request, also in the reply's ``X-Correlation-ID``."""
    return exchange_of(request).correlation_id


class Exchanges:
    """Opens an :class:`Exchange` for each request and closes it after the reply."""

    def __init__(
        self,
        app: ASGIApp,
        refusal: Callable[[Scope, Exchange], ASGIApp | None],
        routes: Sequence[BaseRoute],
        prefixes: PathPrefixes,
    ) -> None:
        self._app = app
        self._prefixes = prefixes
        self._refusal = refusal
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _plain_id(headers.get(_HEADER_BYTES)) or os.urandom(16).hex()
        exchange = scope["exchange"] = Exchange(request_id, time.perf_counter(), headers)
        exchange.reply_headers.append((_HEADER_BYTES, request_id.encode()))
        exchange.path_prefix = self._prefixes.take(scope, headers)
        path = scope["path"]
        if path.endswith("/") and path != "/":
            # Before access rules, limits and routes look at the path. A redirect to the other spelling would make
            # clients send their upload twice.
            scope["path"] = path[:-1]

        async def send_reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = exchange.all_headers(message.get("headers", ()))
            await send(message)

        try:
            app = self._refusal(scope, exchange)
            if app is None:
                app = self._app
            else:
                _note_route(scope, self._routes)
            if traces.on():
                await _traced(app, exchange, scope, receive, send_reply)
            else:
                await app(scope, receive, send_reply)
        except asyncio.CancelledError:
            # Nobody else cancels requests: the patience of a stopping server is over.
            if exchange.status:
                raise
            reply = JsonReply(
                {
                    "error": "The service is stopping; try again",
                    "code": "service.stopping",
                    "correlationId": exchange.correlation_id,
                },
                503,
                headers={"Retry-After": "1"},
            )
            await UnreadBodies(reply)(scope, receive, send_reply)
        except Exception as error:
            logs.request_failed(exchange.correlation_id, scope["method"], scope["path"], error)
            if exchange.status:
                # Half a reply is on its way: only a cut connection tells the client so.
                raise
            reply = JsonReply({"error": "Internal Server Error", "correlationId": exchange.correlation_id}, 500)
            await UnreadBodies(reply)(scope, receive, send_reply)
        finally:
            # It holds the server's side of the request, which holds the scope: a cycle for the garbage collector.
            scope.pop("whole", None)
            _close(exchange, scope)


async def _traced(app: ASGIApp, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
    with traces.request(scope["headers"], scope["method"]) as span:
        try:
            await app(scope, receive, send)
        finally:
            # Without a status an error came through, which becomes a 500 outside.
            traces.request_served(span, scope["method"], _route(scope), exchange.status or 500)


def _close(exchange: Exchange, scope: Scope) -> None:
    seconds = time.perf_counter() - exchange.started_at
    method, route = scope["method"], _route(scope)
    metrics.request_served(method, route, exchange.status, seconds)
    logs.request_served(
        exchange.correlation_id,
        method,
        scope["path"],
        route,
        exchange.status,
        seconds * 1000,
        exchange.client_address,
    )


def _note_route(scope: Scope, routes: Sequence[BaseRoute]) -> None:
    """Of a refused request, which no router sees: operators look for 401 and 429 where the others are counted."""
    for wanted in (Match.FULL, Match.PARTIAL):
        for route in routes:
            if route.matches(scope)[0] is wanted:
                scope["route"] = route
                return


def _route(scope: Scope) -> str:
    """The template of the route that the request met: one of ours, whatever the path."""
    route = scope.get("route")
    return UNMATCHED if route is None else getattr(route, "path", UNMATCHED)


def _plain_id(sent: bytes | None) -> str | None:
    return sent.decode() if sent is not None and _PLAIN.fullmatch(sent) else None
