"""A guarded POST to a URL from a submission: no redirects, a single deadline, the answer's body dropped."""

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
from iidq.webhooks.delivery import MAX_RETRY_AFTER_SECONDS

_MAX_ANSWER_BYTES = 64 << 10
_ANSWER_SECONDS = 2.0


class ReceiverAnswer(NamedTuple):
    """Answer of a receiver, without its body."""

    status: int
    """HTTP status."""
    retry_after_seconds: float | None
    """``Retry-After``, at most ``MAX_RETRY_AFTER_SECONDS``; None without one."""


class Sender:
    """Posts under one policy, each time over a new connection."""

    def __init__(self, policy: FetchPolicy, *, timeout_seconds: float, resolve: Resolve | None = None) -> None:
        self._policy = policy
        self._deadlines = Deadlines(
            connect_seconds=timeout_seconds,
            first_byte_seconds=timeout_seconds,
            idle_seconds=_ANSWER_SECONDS,
            total_seconds=timeout_seconds,
        )
        self._dialer = Dialer(policy, deadlines=self._deadlines, resolve=resolve)

    async def post(self, url: str, headers: Sequence[tuple[str, str]], body: bytes) -> ReceiverAnswer:
        """Send ``body`` and return the answer.

        Raise :class:`FetchRefused` if a rule forbids the URL or its address, :class:`GatewayFault` without an answer
        within the deadline.
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
        await _finish(connection)
        return ReceiverAnswer(head.status, retry_after_seconds(head.headers, longest_seconds=MAX_RETRY_AFTER_SECONDS))


async def _finish(connection: HttpConnection) -> None:
    """Read a short answer to the end, lest the receiver logs a closed connection as a failure."""
    try:
        with contextlib.suppress(GatewayFault, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await connection.read_body()
    finally:
        connection.abort()
    await connection.aclose()
