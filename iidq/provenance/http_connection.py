"""One HTTP/1.1 connection with every wait and every body bounded.

Written on h11 instead of an HTTP client: with 64 requests at a time on two cores a bare exchange costs 0.16 ms
of CPU, with httpcore's pool 1.4 ms and with httpx 2.3 ms; and every byte is counted before anything unpacks it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h11

from iidq.errors import GatewayFault
from iidq.provenance.dialing import Streams

_READ_BYTES = 32 << 10
_MAX_INFORMATIONAL_ANSWERS = 8
# A body in one-byte chunks costs a thousand times more to read than its length says: beyond the first thousand,
# pieces have to be of this size on average.
_FREE_PIECES = 1024
_LEAST_PIECE_BYTES = 256
_CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds for each phase of an exchange, and in all (redirects included)."""

    connect_seconds: float = 4
    first_byte_seconds: float = 8
    idle_seconds: float = 4
    total_seconds: float = 15


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and header fields; names are lower-case, repeated fields joined as RFC 9110 allows."""

    status: int
    headers: dict[str, str]


class ConnectionLost(GatewayFault):
    """The far side closed the connection before its answer was complete."""


class HttpConnection:
    """Requests go out one after the other; after a failure the connection is of no further use."""

    def __init__(self, streams: Streams, peer: str, deadlines: Deadlines) -> None:
        self._reader, self._writer = streams
        self._peer = peer
        self._deadlines = deadlines
        self._http = h11.Connection(h11.CLIENT)
        self.idle_since = 0.0
        self.answered = False

    async def request(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes = b""
    ) -> ResponseHead:
        """Send a request and wait for the answer's head; raises :class:`GatewayFault`."""
        self.answered = False
        head = h11.Request(method=method, target=target, headers=list(headers))
        self._writer.write(self._http.send(head) or b"")
        if body:
            self._writer.write(self._http.send(h11.Data(data=body)) or b"")
        self._writer.write(self._http.send(h11.EndOfMessage()) or b"")
        try:
            async with asyncio.timeout(self._deadlines.first_byte_seconds):
                await self._writer.drain()
                event = await self._next_event()
                for _ in range(_MAX_INFORMATIONAL_ANSWERS):
                    if isinstance(event, h11.Response):
                        break
                    event = await self._next_event()
        except TimeoutError:
            raise GatewayFault(
                f"{self._peer} did not answer within {self._deadlines.first_byte_seconds:g} s", code="fetch.timeout"
            ) from None
        except OSError:
            raise ConnectionLost(f"{self._peer} closed the connection") from None
        if not isinstance(event, h11.Response):
            raise GatewayFault(f"{self._peer} does not come to its answer")
        self.answered = True
        fields: dict[str, str] = {}
        for name, value in event.headers:
            key, text = name.decode("ascii").lower(), value.decode("latin-1")
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
        return ResponseHead(event.status_code, fields)

    async def read_body(self, max_bytes: int) -> tuple[bytes, bool]:
        """The body, and whether it ended within ``max_bytes``; raises :class:`GatewayFault`."""
        body = bytearray()
        for _ in range(_FREE_PIECES + max_bytes // _LEAST_PIECE_BYTES):
            try:
                async with asyncio.timeout(self._deadlines.idle_seconds):
                    event = await self._next_event()
            except TimeoutError:
                raise GatewayFault(
                    f"{self._peer} sent nothing for {self._deadlines.idle_seconds:g} s", code="fetch.timeout"
                ) from None
            except OSError:
                raise ConnectionLost(f"{self._peer} closed the connection") from None
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > max_bytes:
                    return bytes(body[:max_bytes]), False
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body), True
        raise GatewayFault(f"{self._peer} sent its answer in too many small pieces")

    def reuse(self) -> bool:
        """Make ready for another request if the answer was read to its end and the far side agrees."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return not self.is_stale()

    def is_stale(self) -> bool:
        """Whether the far side has closed, or sent what nobody asked for, since the last answer."""
        return self._reader.at_eof() or self._writer.is_closing() or bool(self._http.trailing_data[0])

    def abort(self) -> None:
        """Drop the connection at once."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        """Drop the connection and wait until its socket is closed."""
        self.abort()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            # It failed before it was closed; closed it is.
            return

    async def _next_event(self) -> Any:
        while True:
            try:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self._reader.read(_READ_BYTES))
                    continue
            except h11.RemoteProtocolError:
                if self._reader.at_eof():
                    raise ConnectionLost(f"{self._peer} closed the connection before its answer was complete") from None
                raise GatewayFault(f"{self._peer} does not speak proper HTTP") from None
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionLost(f"{self._peer} closed the connection before its answer was complete")
            return event
