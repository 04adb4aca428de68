"""Direct dispatch of the three busiest routes, and requests and replies in one piece.

The router and the error layer take about a third of the time of a small request. :class:`DirectRoutes` calls the
endpoint directly. With iidq's server, :class:`SinglePieceIO` then reads a body and writes a reply whole, without
ASGI messages. Endpoints, errors and replies are the same either way.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from iidq.web.reply.error_replies import ErrorHandler
from iidq.web.reply.wire import RawHeader, ReadyJson
from iidq.web.request_context import RequestContext, context_of
from iidq.web.server.lingering_close import LingeringClose, announces_body

_CLOSE: Final[RawHeader] = (b"connection", b"close")
_JOB_ID_LENGTH: Final = 36


class SinglePieceIO:
    """Whole request body and whole reply, without ASGI messages; in ``scope["single_piece"]``."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def body(self) -> bytes | None:
        """Return the request's body, once, if all of it has arrived unread; otherwise None."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        # From now on ``receive`` waits until the client disconnects.
        cycle.message_event.clear()
        cycle.flow.resume_reading()
        return body

    def reply(self, status: int, headers: Sequence[RawHeader], body: bytes) -> bool:
        """Send a whole reply with a Content-Length. Return False if the reply must go through ASGI."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused or not cycle.keep_alive:
            return False
        # A stopping server announces the end of the connection; uvicorn then has to close it.
        if _CLOSE in cycle.default_headers:
            return False
        fields = [*cycle.default_headers, *headers]
        head = b"".join([b"%b: %b\r\n" % field for field in fields])
        if not head.count(b"\n") == head.count(b"\r") == len(fields) or b"\0" in head:
            raise ValueError("a header's value has more than one line")
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True


class DirectRoutes:
    """Serve the method and path of the ``exact`` routes, and GET of one item below ``collection``."""

    def __init__(
        self, app: ASGIApp, exact: list[Route], collection: str, item: Route, handlers: Mapping[Any, ErrorHandler]
    ) -> None:
        self._app = app
        self._exact = {(method, route.path): route for route in exact for method in route.methods or ()}
        self._collection = f"{collection}/"
        self._item = item
        self._handlers = handlers
        # No other route below the collection has a name of this length.
        self._item_length = len(self._collection) + _JOB_ID_LENGTH
        [self._parameter] = item.param_convertors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not self._find_route(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            reply: Response = await scope["route"].endpoint(request)
        except Exception as error:
            handler = next((self._handlers[kind] for kind in type(error).__mro__ if kind in self._handlers), None)
            if handler is None:
                raise
            reply = await handler(request, error)
            if not context_of(request).body_read:
                await LingeringClose(reply)(scope, receive, send)
                return
        io: SinglePieceIO | None = scope.get("single_piece")
        if io is None or type(reply) is not ReadyJson or not _sent_whole(io, context_of(request), reply):
            await reply(scope, receive, send)

    def _find_route(self, scope: Scope) -> bool:
        method, path = scope["method"], scope["path"]
        route, parameters = self._exact.get((method, path)), {}
        if (
            route is None
            and method == "GET"
            and len(path) == self._item_length
            and path.startswith(self._collection)
            and "/" not in path[len(self._collection) :]
            # The endpoint would leave a body unread.
            and not announces_body(scope)
        ):
            route, parameters = self._item, {self._parameter: path[len(self._collection) :]}
        if route is None:
            return False
        scope["route"], scope["path_params"] = route, parameters
        return True


def _sent_whole(io: SinglePieceIO, context: RequestContext, reply: ReadyJson) -> bool:
    sent = io.reply(reply.status_code, context.all_headers(reply.raw_headers), bytes(reply.body))
    if sent:
        context.status = reply.status_code
    return sent
