"""The guard as a transport of httpx, for clients that talk to a URL which a caller named."""

import asyncio

import httpx

from iidq.errors import GatewayFault
from iidq.provenance.dialing import Dialer, Resolve, SystemResolver
from iidq.provenance.fetch_policy import FetchPolicy
from iidq.provenance.http_connection import Deadlines, HttpConnection
from iidq.provenance.uri import parse_web_uri

_OWN_FIELDS = frozenset({"host", "accept-encoding", "connection", "transfer-encoding", "content-length"})


class GuardedTransport(httpx.AsyncBaseTransport):
    """One guarded connection per request; bodies are read whole, up to ``max_bytes``, and never unpacked.

    Raises :class:`FetchRefused` when a rule forbids the URL or the address that it leads to, and
    :class:`httpx.TransportError` for everything that trying again may mend. The client's own time-outs do not
    count here; ``deadlines`` do.
    """

    def __init__(
        self,
        policy: FetchPolicy,
        *,
        max_bytes: int,
        deadlines: Deadlines | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._policy = policy
        self._max_bytes = max_bytes
        self._deadlines = deadlines or Deadlines()
        self._dialer = Dialer(
            policy, connect_seconds=self._deadlines.connect_seconds, resolve=resolve or SystemResolver()
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        content = await request.aread()
        try:
            async with asyncio.timeout(self._deadlines.total_seconds):
                return await self._exchange(request, content)
        except (GatewayFault, TimeoutError) as fault:
            raise httpx.TransportError(str(fault) or "the exchange took too long", request=request) from None

    async def _exchange(self, request: httpx.Request, content: bytes) -> httpx.Response:
        uri = parse_web_uri(str(request.url), allow_private=self._policy)
        own = [("Host", uri.authority), ("Accept-Encoding", "identity"), ("Connection", "close")]
        if content:
            own.append(("Content-Length", str(len(content))))
        theirs = [(name, value) for name, value in request.headers.items() if name.lower() not in _OWN_FIELDS]
        connection = HttpConnection(await self._dialer.dial(uri), uri.authority, self._deadlines)
        try:
            head = await connection.request(request.method, uri.target, own + theirs, content)
            if head.headers.get("content-encoding", "identity") != "identity":
                raise GatewayFault(f"{uri.authority} sent a compressed answer; expected identity encoding")
            body, complete = await connection.read_body(self._max_bytes)
        finally:
            await connection.aclose()
        if not complete:
            raise GatewayFault(f"{uri.authority} sent more than {self._max_bytes} bytes")
        return httpx.Response(head.status, headers=head.headers, content=body, request=request)
