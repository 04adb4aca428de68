"""The three busiest routes, straight to their endpoints; everything else goes through Starlette's router.

The router tries one pattern after the other, and it and its layer for errors wrap every request and reply: 45 of the
120 µs that a submission may take. An endpoint, its errors and its replies are the same on either way.
"""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from iidq.web.reply.replies import ErrorHandler
from iidq.web.reply.wire import ReadyJson
from iidq.web.request_context import exchange_of
from iidq.web.server.lingering_close import UnreadBodies, announces_body
from iidq.web.server.single_piece import WholeMessages


class FastLane:
    """Takes requests whose method and path are exactly a route's, and GET of one thing below ``collection``."""

    def __init__(
        self, app: ASGIApp, exact: list[Route], collection: str, item: Route, handlers: Mapping[Any, ErrorHandler]
    ) -> None:
        self._app = app
        self._exact = {(method, route.path): route for route in exact for method in route.methods or ()}
        self._collection = f"{collection}/"
        self._item = item
        self._handlers = handlers
        # A name that is a route of its own is longer or shorter than an id.
        self._item_length = len(self._collection) + 36
        [self._parameter] = item.param_convertors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        route = self._exact.get((method, path))
        parameters = {}
        if (
            route is None
            and method == "GET"
            and len(path) == self._item_length
            and path.startswith(self._collection)
            and "/" not in path[len(self._collection) :]
            # Nobody here would read it.
            and not announces_body(scope)
        ):
            route = self._item
            parameters = {self._parameter: path[len(self._collection) :]}
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = route, parameters
        request = Request(scope, receive, send)
        try:
            reply: Response = await route.endpoint(request)
        except Exception as error:
            handler = next((self._handlers[kind] for kind in type(error).__mro__ if kind in self._handlers), None)
            if handler is None:
                raise
            reply = await handler(request, error)
            if not exchange_of(request).body_read:
                await UnreadBodies(reply)(scope, receive, send)
                return
        whole: WholeMessages | None = scope.get("whole")
        if whole is None or type(reply) is not ReadyJson or not exchange_of(request).send_whole(whole, reply):
            await reply(scope, receive, send)
