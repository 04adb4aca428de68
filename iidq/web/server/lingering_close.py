"""Close the connection gently after a reply before the end of the body: 401, 413, 415, early 400.

Such a reply carries ``Connection: close``, and the rest of the body is dropped. An immediate close would let the
kernel answer bytes in flight with a reset, which can destroy an unread reply (RFC 9112, section 9.6). Therefore the
connection stays open for a bounded time and size.
"""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS: Final = 1.0
"""Longest time for which the rest of a body is dropped."""
LINGER_BYTES: Final = 8 << 20
"""Most bytes that are dropped."""


class LingeringClose:
    """Wrap ``app``; close the connection after a reply that comes before the end of the request's body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and watch how far its body is read."""
        if scope["type"] != "http" or not announces_body(scope):
            await self._app(scope, receive, send)
            return
        unread = True
        lingering = False

        async def watched_receive() -> Message:
            nonlocal unread
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                unread = False
            return message

        async def closing_send(message: Message) -> None:
            nonlocal lingering
            # A body read in one piece (``direct.py``) does not pass through ``receive``.
            if message["type"] == "http.response.start" and unread and not scope["context"].body_read:
                lingering = True
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            if message["type"] == "http.response.body" and lingering and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _linger(watched_receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        await self._app(scope, watched_receive, closing_send)


async def _linger(receive: Receive) -> None:
    dropped_bytes = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while dropped_bytes < LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                dropped_bytes += len(message.get("body", b""))
    except TimeoutError:
        return


def announces_body(scope: Scope) -> bool:
    """Return whether the request's headers announce a body (RFC 9112, section 6.3)."""
    return any(
        (name == b"content-length" and value.strip(b"0 ")) or name == b"transfer-encoding"
        for name, value in scope["headers"]
    )
