"""Opening a connection to where a URL leads, and only if its rules allow that very address.

The name is looked up once per connection, every answer is checked, and the connection goes to a checked
address: a name that resolves differently the next time gains nothing. TLS still verifies the name.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from ipaddress import ip_address

import certifi

from iidq.errors import FetchRefused, GatewayFault
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.http_connection import Deadlines, HttpConnection
from iidq.guarded_http.ip_addresses import IpAddress, literal_address
from iidq.guarded_http.uri import WebUri

Resolve = Callable[[str], Awaitable[Sequence[IpAddress]]]

_MAX_LOOKUPS = 16
_MAX_ADDRESSES_TRIED = 4


class SystemResolver:
    """The operating system's resolver, off the event loop.

    Look-ups run in threads of their own, at most 16: a hostile name server can make them last, and neither the
    loop's default executor nor the process's end may wait for that.
    """

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_MAX_LOOKUPS)

    async def __call__(self, host: str) -> Sequence[IpAddress]:
        """Every address of ``host``; raises :class:`OSError` when there is none."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[IpAddress]] = loop.create_future()

        def settle(addresses: list[IpAddress] | None, error: Exception | None) -> None:
            self._slots.release()
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            elif addresses is not None:
                answer.set_result(addresses)

        def look_up() -> None:
            addresses: list[IpAddress] | None = None
            error: Exception | None = None
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                addresses = list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
            except (OSError, ValueError) as fault:
                error = OSError(str(fault))
            try:
                loop.call_soon_threadsafe(settle, addresses, error)
            except RuntimeError:
                # The loop was closed while the look-up lasted: nobody waits for the answer.
                return

        threading.Thread(target=look_up, name="iidq-lookup", daemon=True).start()
        return await answer


class Dialer:
    """Connects to web URLs under one policy."""

    def __init__(
        self,
        policy: FetchPolicy,
        *,
        deadlines: Deadlines,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._deadlines = deadlines
        self._resolve = resolve or SystemResolver()
        self._tls = tls

    async def dial(self, uri: WebUri) -> HttpConnection:
        """Look up, check, connect, and for https verify the certificate for the name.

        Raises :class:`FetchRefused` when a rule forbids the address, :class:`GatewayFault` when there is no
        connection within the deadline.
        """
        try:
            async with asyncio.timeout(self._deadlines.connect_seconds):
                addresses = self._allowed(uri, await self._addresses(uri))
                return await self._connect(uri, addresses[:_MAX_ADDRESSES_TRIED])
        except TimeoutError:
            raise GatewayFault(
                f"{uri.authority} accepted no connection within {self._deadlines.connect_seconds:g} s"
            ) from None

    async def _addresses(self, uri: WebUri) -> Sequence[IpAddress]:
        literal = literal_address(uri.host)
        if literal is not None:
            return [literal]
        try:
            addresses = await self._resolve(uri.host)
        except OSError:
            addresses = ()
        if not addresses:
            raise GatewayFault(f"the host name {uri.host} could not be resolved")
        return addresses

    def _allowed(self, uri: WebUri, addresses: Sequence[IpAddress]) -> Sequence[IpAddress]:
        if self._policy.opens_host(uri.host):
            return addresses
        # localhost, say, is ::1 and 127.0.0.1, of which the operator may have opened one.
        opened = [address for address in addresses if self._policy.opens_address(address)]
        if opened:
            return opened
        if not all(map(self._policy.allows, addresses)):
            raise FetchRefused(
                f"{uri.host} does not lead to public addresses alone; expected a public host",
                code="fetch.refused.address",
            )
        if not uri.has_default_port:
            raise FetchRefused(
                f"port {uri.port} is not allowed for {uri.scheme}; expected the scheme's own",
                code="fetch.refused.port",
            )
        return addresses

    async def _connect(self, uri: WebUri, addresses: Sequence[IpAddress]) -> HttpConnection:
        loop = asyncio.get_running_loop()
        tls = (self._tls or _verifying_tls()) if uri.scheme == "https" else None
        for tried, address in enumerate(addresses, start=1):
            try:
                # A dead address must leave time for the others.
                async with asyncio.timeout(self._deadlines.connect_seconds / len(addresses)):
                    _, connection = await loop.create_connection(
                        lambda: HttpConnection(uri.authority, self._deadlines),
                        str(address),
                        uri.port,
                        ssl=tls,
                        server_hostname=uri.host if tls else None,
                    )
                    return connection
            except ssl.SSLCertVerificationError:
                raise GatewayFault(f"the certificate of {uri.authority} could not be verified") from None
            except (OSError, TimeoutError):
                if tried == len(addresses):
                    raise GatewayFault(f"{uri.authority} could not be connected to") from None
        raise GatewayFault(f"{uri.authority} could not be connected to")


@cache
def _verifying_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Slim images have no certificates of their own.
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context
