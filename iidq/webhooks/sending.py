"""One guarded POST to a URL that somebody else chose: no redirects, one deadline, the answer's body dropped."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from iidq import __version__
from iidq.errors import GatewayFault
from iidq.guarded_http.dialing import Dialer, Resolve
from iidq.guarded_http.fetch import retry_after_seconds
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.http_connection import Deadlines, HttpConnection
from iidq.guarded_http.url import parse_web_url

_MAX_ANSWER_BYTES = 64 << 10
_ANSWER_SECONDS = 2.0


class Answer(NamedTuple):
    """The receiver's status, and in how many seconds it asked to be tried again."""

    status: int
    asked_seconds: float | None


class Sender:
    """Posts under one policy, over a connection of its own each time."""

    def __init__(self, policy: FetchPolicy, *, timeout_seconds: float, resolve: Resolve | None = None) -> None:
        self._policy = policy
        self._deadlines = Deadlines(
            connect_seconds=timeout_seconds,
            first_byte_seconds=timeout_seconds,
            idle_seconds=_ANSWER_SECONDS,
            total_seconds=timeout_seconds,
        )
        self._dialer = Dialer(policy, deadlines=self._deadlines, resolve=resolve)

    async def post(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes, *, longest_wish_seconds: float
    ) -> Answer:
        """Send ``body`` and return the answer, its ``Retry-After`` cut at ``longest_wish_seconds``.

        Raises :class:`FetchRefused` when a rule forbids the URL or where it leads, and :class:`GatewayFault` when
        there is no answer within the deadline.
        """
        uri = parse_web_url(url, allow_private=self._policy)
        fields = (
            ("Host", uri.authority),
            ("User-Agent", f"iidq/{__version__}"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *headers,
        )
        seconds = self._deadlines.total_seconds
        try:
            async with asyncio.timeout(seconds):
                connection = await self._dialer.dial(uri)
                try:
                    head = await connection.request("POST", uri.target, fields, body, max_bytes=_MAX_ANSWER_BYTES)
                except BaseException:
                    connection.abort()
                    raise
        except TimeoutError:
            raise GatewayFault(f"{uri.authority} did not answer within {seconds:g} s", code="fetch.timeout") from None
        await _hang_up(connection)
        return Answer(head.status, retry_after_seconds(head.headers, longest_seconds=longest_wish_seconds))


async def _hang_up(connection: HttpConnection) -> None:
    """Let the receiver finish a short answer, lest it takes the closed connection for a failure of its own."""
    try:
        with contextlib.suppress(GatewayFault, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connection.read_body()
    finally:
        connection.abort()
    await connection.aclose()
