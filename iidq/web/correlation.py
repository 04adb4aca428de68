"""A correlation id for every request, in the reply's ``X-Correlation-ID``, in error bodies and in the log.

An id that the client sends is kept if it is plain; anything else could forge lines in a log. This is also the last
stop of an error that nobody expected: it is logged once, with the id, and the client learns no more than the id.
"""

import re
import time
from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iidq import logs
from iidq.web.wire import JsonReply

HEADER = "X-Correlation-ID"
_HEADER_BYTES = HEADER.lower().encode()
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def correlation_id(request: Request) -> str:
    """The id of this request."""
    return str(request.scope["correlation_id"])


class CorrelationIds:
    """Gives each request its id; the outermost layer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _sent_id(scope) or uuid4().hex
        scope["correlation_id"] = request_id
        started_at = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER_BYTES, request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            logs.request_failed(request_id, scope["method"], scope["path"], error)
            if status:
                # Half a reply is on its way: only a cut connection tells the client so.
                raise
            reply = JsonReply({"error": "Internal Server Error", "correlationId": request_id}, 500)
            await reply(scope, receive, send_with_id)
        finally:
            logs.request_served(
                correlation_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round((time.perf_counter() - started_at) * 1000, 1),
            )


def _sent_id(scope: MutableMapping[str, Any]) -> str | None:
    for name, value in scope["headers"]:
        if name == _HEADER_BYTES:
            return value.decode() if _PLAIN.fullmatch(value) else None
    return None
