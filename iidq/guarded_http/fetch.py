"""A bounded GET of a URL that a caller named: deadlines, few and checked redirects, no decompression."""

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
from iidq.guarded_http.url import WebUrl, redirect_target

MAX_REDIRECTS = 3
MAX_RETRY_AFTER_SECONDS = 300.0
MAX_FRESH_SECONDS = 60.0

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DELIVERED = frozenset({200, 203})
_IDLE_SECONDS = 10.0
_NO_REUSE = frozenset({"no-store", "no-cache", "private"})
# Some servers send fractions, or the field twice; RFC 9110 has neither.
_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]*)?)(?:\s*,\s*[0-9.]+)*")


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """The last answer of a redirect chain."""

    url: WebUrl
    """The URL that answered, behind all redirects."""
    status: int
    """The HTTP status."""
    headers: dict[str, str]
    """The header fields, with lower-case names."""
    body: bytes
    """The body for 200 and 203; otherwise empty."""
    complete: bool
    """False if the body is longer than the limit; ``body`` is then the beginning."""
    redirected: bool
    """Whether at least one redirect was followed."""

    @property
    def delivered(self) -> bool:
        """Return whether the status is 200 or 203."""
        return self.status in _DELIVERED

    @property
    def says_absent(self) -> bool:
        """Return whether the status is 404 or 410."""
        return self.status in (404, 410)

    @property
    def may_pass(self) -> bool:
        """Return whether the same request may succeed later."""
        return self.status >= 500 or self.status in (408, 425, 429)


class WebFetcher:
    """GET requests under one policy, over connections that stay open for ten seconds.

    ``max_idle_connections`` bounds the open connections without a request; 0 closes each after one answer.
    """

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

    async def fetch(self, url: WebUrl, *, max_bytes: int, headers: tuple[tuple[str, str], ...] = ()) -> WebAnswer:
        """Fetch ``url``, following at most three redirects, each checked like a fresh URL.

        ``headers`` go to the host and port of ``url`` alone. Raises :class:`FetchRefused` if a rule forbids the answer
        or a redirect, and :class:`GatewayFault` without a usable answer within the deadlines.
        """
        try:
            async with asyncio.timeout(self._deadlines.total_seconds):
                return await self._follow(url, max_bytes, headers)
        except TimeoutError:
            raise GatewayFault(
                f"{url.authority} did not deliver within {self._deadlines.total_seconds:g} s", code="fetch.timeout"
            ) from None

    async def aclose(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop()[1].aclose()

    async def _follow(self, start: WebUrl, max_bytes: int, headers: tuple[tuple[str, str], ...]) -> WebAnswer:
        url = start
        for followed in range(MAX_REDIRECTS + 1):
            own = headers if url.origin == start.origin else ()
            answer = await self._exchange(url, max_bytes, own, redirected=followed > 0)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            url = redirect_target(url, location, allow_private=self._policy)
        raise FetchRefused(
            f"more than {MAX_REDIRECTS} redirects; expected the manifest's final URL", code="fetch.refused.redirects"
        )

    async def _exchange(
        self, url: WebUrl, max_bytes: int, headers: tuple[tuple[str, str], ...], *, redirected: bool
    ) -> WebAnswer:
        fields = (
            ("Host", url.authority),
            ("User-Agent", f"iidq/{__version__}"),
            ("Accept-Encoding", "identity"),
            *headers,
        )
        connection, head = await self._request(url, fields, max_bytes)
        try:
            body, complete = b"", True
            if head.status in _DELIVERED:
                _check_encoding(url, head)
                body, complete = await connection.read_body()
            answer = WebAnswer(url, head.status, head.headers, body, complete, redirected)
        except BaseException:
            connection.abort()
            raise
        await self._keep(url, connection)
        return answer

    async def _request(
        self, url: WebUrl, fields: tuple[tuple[str, str], ...], max_bytes: int
    ) -> tuple[HttpConnection, ResponseHead]:
        kept = self._kept(url)
        connection = kept or await self._dialer.dial(url)
        while True:
            try:
                return connection, await connection.request("GET", url.target, fields, max_bytes=max_bytes)
            except ConnectionLost:
                # The server closed an idle connection; a new one may work.
                if connection is not kept or connection.answered:
                    raise
            except BaseException:
                connection.abort()
                raise
            connection = await self._dialer.dial(url)

    def _kept(self, url: WebUrl) -> HttpConnection | None:
        oldest_of_use = time.monotonic() - _IDLE_SECONDS
        origin = url.origin
        for index in range(len(self._idle) - 1, -1, -1):
            kept_origin, connection = self._idle[index]
            if connection.idle_since < oldest_of_use or not connection.is_reusable():
                del self._idle[index]
                connection.abort()
            elif kept_origin == origin:
                del self._idle[index]
                return connection
        return None

    async def _keep(self, url: WebUrl, connection: HttpConnection) -> None:
        if not (self._max_idle and connection.is_reusable()):
            await connection.aclose()
            return
        connection.idle_since = time.monotonic()
        self._idle.append((url.origin, connection))
        if len(self._idle) > self._max_idle:
            await self._idle.popleft()[1].aclose()


def retry_after_seconds(
    headers: Mapping[str, str], *, longest_seconds: float = MAX_RETRY_AFTER_SECONDS
) -> float | None:
    """Return the seconds in ``Retry-After`` (RFC 9110), at most ``longest_seconds``; None without the field.

    A date is compared with the ``Date`` field, if present, because clocks differ.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if match := _SECONDS.fullmatch(text):
        return min(float(match[1][:9]), longest_seconds)
    at = _unix_seconds(text)
    if at is None:
        return None
    now = _unix_seconds(headers.get("date", ""))
    return min(max(at - (time.time() if now is None else now), 0.0), longest_seconds)


def _unix_seconds(text: str) -> float | None:
    """Parse an HTTP date; return None for anything else."""
    try:
        at = parsedate_to_datetime(text)
        # RFC 850 and asctime dates, without an offset, are UTC as well (RFC 9110, section 5.6.7).
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def fresh_seconds(headers: Mapping[str, str]) -> float:
    """Return the seconds for which a shared cache may reuse the answer (RFC 9111), at most a minute; 0 for none.

    Only an explicit ``max-age`` or ``s-maxage`` counts; there is no heuristic freshness.
    """
    if "*" in headers.get("vary", ""):
        return 0.0
    directives: dict[str, str] = {}
    for part in headers.get("cache-control", "").lower().split(","):
        name, _, value = part.strip().partition("=")
        directives.setdefault(name.strip(), value.strip().strip('"'))
    if _NO_REUSE & directives.keys():
        return 0.0
    lifetime = _whole_seconds(directives.get("s-maxage", directives.get("max-age", "")))
    return min(max(lifetime - _whole_seconds(headers.get("age", "")), 0.0), MAX_FRESH_SECONDS)


def _whole_seconds(text: str) -> float:
    return float(text[:12]) if text.isascii() and text.isdigit() else 0.0


def _check_encoding(url: WebUrl, head: ResponseHead) -> None:
    encoding = head.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise FetchRefused(
            f"{url.authority} sent a compressed answer ({encoding[:32]}); expected identity encoding",
            code="fetch.refused.encoding",
        )
