"""The outermost layer: the context of each request, the headers of every reply, the log, unexpected errors.

A single layer does all by plain calls, because each further layer costs a request about a twentieth of the time. An
unexpected error is logged once with the correlation id; the client receives only the id.
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
from iidq.web.guard.browser_headers import security_headers
from iidq.web.guard.proxies import PathPrefixes
from iidq.web.reply.wire import JsonReply, RawHeader
from iidq.web.server.lingering_close import LingeringClose

HEADER = "X-Correlation-ID"
_HEADER_BYTES = HEADER.lower().encode()
# Other characters could forge lines in a log.
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")

UNMATCHED = "unmatched"
"""Route of a request that matched none, in logs and metrics."""


@dataclass(slots=True)
class RequestContext:
    """State of one request, kept in ``scope["context"]`` until the reply is sent."""

    correlation_id: str
    """Sent by the client if plain, otherwise 32 random hex digits; also in ``X-Correlation-ID`` and every log line."""
    started_at: float
    """``time.perf_counter()`` at the request's start."""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """Request headers by lower-case name, for quick look-ups; of a repeated header the last value."""
    body_read: bool = False
    """The request's body has been read to its end; if not, the reply closes the connection."""
    client_address: str = ""
    """Address of the client behind trusted proxies; empty if unknown, as on a Unix socket."""
    path_prefix: str = ""
    """Start of every URL in the reply: empty, or a path such as ``/iidq``."""
    holds_key: bool = False
    """An API key is set, and the request carries it."""
    may_operate: bool = False
    """No API key is set, or the request carries it."""
    status: int = 0
    """Status of the reply once its head was sent; 0 before."""
    reply_headers: list[RawHeader] = field(default_factory=list)
    """Headers added to every reply of this request; names in lower case."""

    def all_headers(self, own: Sequence[RawHeader]) -> list[RawHeader]:
        """Return the headers ``own`` of a reply, those of the context, and the missing security headers."""
        return [*own, *self.reply_headers, *security_headers(own)]


def context_of(request: Request) -> RequestContext:
    """Return the context of a request."""
    context: RequestContext = request.scope["context"]
    return context


class RequestContextMiddleware:
    """Open a :class:`RequestContext` for each request; measure and log the request after the reply."""

    def __init__(
        self,
        app: ASGIApp,
        refusal: Callable[[Scope, RequestContext], ASGIApp | None],
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
        context = self._open(scope)

        async def send_reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                message["headers"] = context.all_headers(message.get("headers", ()))
            await send(message)

        try:
            app = self._refusal(scope, context)
            if app is None:
                app = self._app
            else:
                _note_route(scope, self._routes)
            if traces.on():
                await _traced(app, context, scope, receive, send_reply)
            else:
                await app(scope, receive, send_reply)
        except asyncio.CancelledError:
            # Only a stopping server cancels requests, at the end of its drain time.
            if context.status:
                raise
            await LingeringClose(_stopping(context))(scope, receive, send_reply)
        except Exception as error:
            logs.request_failed(context.correlation_id, scope["method"], scope["path"], error)
            if context.status:
                # Half of the reply is sent: only a cut connection shows the client the fault.
                raise
            reply = JsonReply({"error": "Internal Server Error", "correlationId": context.correlation_id}, 500)
            await LingeringClose(reply)(scope, receive, send_reply)
        finally:
            # Break the cycle scope → request of the server → scope, which only the garbage collector would free.
            scope.pop("single_piece", None)
            _close(context, scope)

    def _open(self, scope: Scope) -> RequestContext:
        headers = dict(scope["headers"])
        request_id = _plain_id(headers.get(_HEADER_BYTES)) or os.urandom(16).hex()
        context: RequestContext
        context = scope["context"] = RequestContext(request_id, time.perf_counter(), headers)
        context.reply_headers.append((_HEADER_BYTES, request_id.encode()))
        context.path_prefix = self._prefixes.take(scope, headers)
        path = scope["path"]
        if path.endswith("/") and path != "/":
            # Before access rules, limits and routes read the path. A redirect would make clients upload twice.
            scope["path"] = path[:-1]
        return context


def _stopping(context: RequestContext) -> JsonReply:
    body = {
        "error": "The service is stopping; try again",
        "code": "service.stopping",
        "correlationId": context.correlation_id,
    }
    return JsonReply(body, 503, headers={"Retry-After": "1"})


async def _traced(app: ASGIApp, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
    with traces.request(scope["headers"], scope["method"]) as span:
        try:
            await app(scope, receive, send)
        finally:
            # Without a status an error passed through, which becomes a 500 outside.
            traces.request_served(span, scope["method"], _route(scope), context.status or 500)


def _close(context: RequestContext, scope: Scope) -> None:
    seconds = time.perf_counter() - context.started_at
    method, route = scope["method"], _route(scope)
    metrics.request_served(method, route, context.status, seconds)
    logs.request_served(
        context.correlation_id, method, scope["path"], route, context.status, seconds * 1000, context.client_address
    )


def _note_route(scope: Scope, routes: Sequence[BaseRoute]) -> None:
    """Set the route of a refused request, so that 401 and 429 are counted per route."""
    for wanted in (Match.FULL, Match.PARTIAL):
        for route in routes:
            if route.matches(scope)[0] is wanted:
                scope["route"] = route
                return


def _route(scope: Scope) -> str:
    """Return the path template of the matched route."""
    route = scope.get("route")
    return UNMATCHED if route is None else getattr(route, "path", UNMATCHED)


def _plain_id(sent: bytes | None) -> str | None:
    return sent.decode() if sent is not None and _PLAIN.fullmatch(sent) else None
