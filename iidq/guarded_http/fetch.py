"""A bounded GET of a URL that somebody else chose: deadlines, few and re-checked redirects, no unpacking."""

import asyncio
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from iidq import __version__
from iidq.errors import FetchRefused, GatewayFault
from iidq.guarded_http.dialing import Dialer, Resolve
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.http_connection import ConnectionLost, Deadlines, HttpConnection, ResponseHead
from iidq.guarded_http.uri import WebUri, redirect_target

MAX_REDIRECTS = 3
MAX_RETRY_AFTER_SECONDS = 300.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DELIVERED = frozenset({200, 203})
_IDLE_SECONDS = 10.0
# Fractions are no HTTP, but sent, and so is the field twice.
_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]*)?)(?:\s*,\s*[0-9.]+)*")


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """The last answer of a redirect chain; ``body`` is read only for 200 and 203.

    ``complete`` is False when the body is longer than was asked for; then ``body`` is its beginning.
    """

    uri: WebUri
    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    redirected: bool

    @property
    def delivered(self) -> bool:
        return self.status in _DELIVERED

    @property
    def says_absent(self) -> bool:
        return self.status in (404, 410)

    @property
    def asks_for_patience(self) -> bool:
        """Whether the same request may well succeed later."""
        return self.status >= 500 or self.status in (408, 425, 429)


class WebFetcher:
    """Fetches under one policy, over connections that are kept open for a short while."""

    def __init__(
        self,
        policy: FetchPolicy,
        *,
        deadlines: Deadlines | None = None,
        resolve: Resolve | None = None,
        max_idle_connections: int = 8,
    ) -> None:
        self._policy = policy
        self._deadlines = deadlines or Deadlines()
        self._dialer = Dialer(policy, deadlines=self._deadlines, resolve=resolve)
        self._idle: deque[tuple[str, HttpConnection]] = deque()
        self._max_idle = max_idle_connections

    async def get(self, uri: WebUri, *, max_bytes: int, headers: tuple[tuple[str, str], ...] = ()) -> WebAnswer:
        """Fetch ``uri``, following at most three redirects, each checked like a fresh URL.

        ``headers`` go to ``uri``'s own host and port alone. Raises :class:`FetchRefused` when a rule forbids the
        answer or the way to it, and :class:`GatewayFault` when there is no usable answer within the deadlines.
        """
        try:
            async with asyncio.timeout(self._deadlines.total_seconds):
                return await self._follow(uri, max_bytes, headers)
        except TimeoutError:
            raise GatewayFault(
                f"{uri.authority} did not deliver within {self._deadlines.total_seconds:g} s", code="fetch.timeout"
            ) from None

    async def aclose(self) -> None:
        """Close the connections that are kept open."""
        while self._idle:
            await self._idle.pop()[1].aclose()

    async def _follow(self, start: WebUri, max_bytes: int, headers: tuple[tuple[str, str], ...]) -> WebAnswer:
        uri = start
        for followed in range(MAX_REDIRECTS + 1):
            own = headers if _same_origin(uri, start) else ()
            answer = await self._exchange(uri, max_bytes, own, redirected=followed > 0)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            uri = redirect_target(uri, location, allow_private=self._policy)
        raise FetchRefused(
            f"more than {MAX_REDIRECTS} redirects; expected the manifest's final URL", code="fetch.refused.redirects"
        )

    async def _exchange(
        self, uri: WebUri, max_bytes: int, headers: tuple[tuple[str, str], ...], *, redirected: bool
    ) -> WebAnswer:
        fields = (
            ("Host", uri.authority),
            ("User-Agent", f"iidq/{__version__}"),
            ("Accept-Encoding", "identity"),
            *headers,
        )
        connection, head = await self._request(uri, fields, max_bytes)
        try:
            body, complete = b"", True
            if head.status in _DELIVERED:
                _check_encoding(uri, head)
                body, complete = await connection.read_body()
            answer = WebAnswer(uri, head.status, head.headers, body, complete, redirected)
        except BaseException:
            connection.abort()
            raise
        await self._keep(uri, connection)
        return answer

    async def _request(
        self, uri: WebUri, fields: tuple[tuple[str, str], ...], max_bytes: int
    ) -> tuple[HttpConnection, ResponseHead]:
        kept = self._kept(uri)
        connection = kept or await self._dialer.dial(uri)
        while True:
            try:
                return connection, await connection.request("GET", uri.target, fields, max_bytes=max_bytes)
            except ConnectionLost:
                # The far side closed it just as it was chosen; that says nothing about a new one.
                if connection is not kept or connection.answered:
                    raise
            except BaseException:
                connection.abort()
                raise
            connection = await self._dialer.dial(uri)

    def _kept(self, uri: WebUri) -> HttpConnection | None:
        oldest_of_use = time.monotonic() - _IDLE_SECONDS
        origin = _origin(uri)
        for index in range(len(self._idle) - 1, -1, -1):
            kept_origin, connection = self._idle[index]
            if connection.idle_since < oldest_of_use or not connection.is_reusable():
                del self._idle[index]
                connection.abort()
            elif kept_origin == origin:
                del self._idle[index]
                return connection
        return None

    async def _keep(self, uri: WebUri, connection: HttpConnection) -> None:
        if not (self._max_idle and connection.is_reusable()):
            await connection.aclose()
            return
        connection.idle_since = time.monotonic()
        self._idle.append((_origin(uri), connection))
        if len(self._idle) > self._max_idle:
            await self._idle.popleft()[1].aclose()


def retry_after_seconds(
    headers: Mapping[str, str], *, longest_seconds: float = MAX_RETRY_AFTER_SECONDS
) -> float | None:
    """What ``Retry-After`` asks for (RFC 9110, seconds or a date), at most ``longest_seconds``; None without it.

    A date is compared with the answer's own ``Date`` where it has one: clocks differ.
    """
    text = headers.get("retry-after", "").strip()
    if match := _SECONDS.fullmatch(text):
        return min(float(match[1][:9]), longest_seconds)
    at = _unix_seconds(text)
    if at is None:
        return None
    now = _unix_seconds(headers.get("date", ""))
    return min(max(at - (time.time() if now is None else now), 0.0), longest_seconds)


def _unix_seconds(text: str) -> float | None:
    """Read an HTTP date; None for anything else."""
    try:
        at = parsedate_to_datetime(text)
        # RFC 850 and asctime dates, without an offset, are UTC as well (RFC 9110, section 5.6.7).
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _origin(uri: WebUri) -> str:
    return f"{uri.scheme}://{uri.authority}"


def _same_origin(one: WebUri, other: WebUri) -> bool:
    return _origin(one) == _origin(other)


def _check_encoding(uri: WebUri, head: ResponseHead) -> None:
    encoding = head.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise FetchRefused(
            f"{uri.authority} sent a compressed answer ({encoding[:32]}); expected identity encoding",
            code="fetch.refused.encoding",
        )
