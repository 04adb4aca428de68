"""A request or reply that is in one piece anyway, past ASGI, which hands both on in pieces.

For the busiest routes under our own server, which puts a :class:`WholeMessages` into ``scope["whole"]``: a third of
what a small request costs there is waiting for pieces under a deadline and writing header by header.
"""

from collections.abc import Sequence
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

RawHeader = tuple[bytes, bytes]

_CLOSE: Final[RawHeader] = (b"connection", b"close")


class WholeMessages:
    """One request and its reply, as far as they are whole."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def body(self) -> bytes | None:
        """The request's body, once, if all of it has come in and nobody has read of it; else None."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        # Whoever calls ``receive`` from now on waits for the client to go away.
        cycle.message_event.clear()
        cycle.flow.resume_reading()
        return body

    def reply(self, status: int, headers: Sequence[RawHeader], body: bytes) -> bool:
        """Send a whole reply with a Content-Length among its headers; False: nothing was sent, go the usual way."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused or not cycle.keep_alive:
            return False
        # A server that is stopping says so with each reply, and whoever says it has to close.
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
