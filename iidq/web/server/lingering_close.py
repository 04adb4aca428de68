"""Replies that go out before the request's body was read to its end: 401, 413, 415, early 400.

Such a reply says ``Connection: close``, and the rest of the body is not waited for. Closing at once would make the
kernel answer the bytes still in flight with a reset, which can destroy the reply before the client has read it
(RFC 9112, section 9.6). So the connection lingers: what arrives is dropped, for a bounded time and size.
"""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS: Final = 1.0
LINGER_BYTES: Final = 8 << 20


class UnreadBodies:
    """Closes the connection, gently, after a reply that came before the body's end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, watching how far its body is read."""
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
            # A body that came in one piece passes ``receive`` by (``whole_messages``).
            if message["type"] == "http.response.start" and unread and not scope["exchange"].body_read:
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
    """Whether the request's headers say that a body follows them (RFC 9112, section 6.3)."""
    return any(
        (name == b"content-length" and value.strip(b"0 ")) or name == b"transfer-encoding"
        for name, value in scope["headers"]
    )
