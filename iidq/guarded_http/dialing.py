"""Open a connection to a URL's host, if the policy allows the address.

The name is looked up once per connection, and every address is checked. The connection goes to a checked address, so a
later and different look-up has no effect. TLS verifies the name.
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
from iidq.guarded_http.addresses import IpAddress, literal_address
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.http_connection import Deadlines, HttpConnection
from iidq.guarded_http.url import WebUrl

Resolve = Callable[[str], Awaitable[Sequence[IpAddress]]]

_MAX_LOOKUPS = 16
_MAX_ADDRESSES_TRIED = 4


class SystemResolver:
    """The operating system's resolver, in daemon threads, at most 16.

    A hostile name server can delay a look-up. Neither the loop's default executor nor the end of the process may wait
    for such a look-up.
    """

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_MAX_LOOKUPS)

    async def __call__(self, host: str) -> Sequence[IpAddress]:
        """Return every address of ``host``; raise :class:`OSError` if there is none."""
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
                # The loop was closed during the look-up.
                return

        threading.Thread(target=look_up, name="iidq-lookup", daemon=True).start()
        return await answer


class Dialer:
    """Opens connections under one policy; ``resolve`` and ``tls`` replace the system's, for tests."""

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

    async def dial(self, url: WebUrl) -> HttpConnection:
        """Look up, check and connect; for https verify the certificate for the name.

        Raises :class:`FetchRefused` for a forbidden address, :class:`GatewayFault` without a connection in time.
        """
        try:
            async with asyncio.timeout(self._deadlines.connect_seconds):
                addresses = self._allowed(url, await self._addresses(url))
                return await self._connect(url, addresses[:_MAX_ADDRESSES_TRIED])
        except TimeoutError:
            raise GatewayFault(
                f"{url.authority} accepted no connection within {self._deadlines.connect_seconds:g} s"
            ) from None

    async def _addresses(self, url: WebUrl) -> Sequence[IpAddress]:
        literal = literal_address(url.host)
        if literal is not None:
            return [literal]
        try:
            addresses = await self._resolve(url.host)
        except OSError:
            addresses = ()
        if not addresses:
            raise GatewayFault(f"the host name {url.host} could not be resolved")
        return addresses

    def _allowed(self, url: WebUrl, addresses: Sequence[IpAddress]) -> Sequence[IpAddress]:
        if self._policy.opens_host(url.host):
            return addresses
        # The operator may have opened only one of several addresses, such as ::1 and 127.0.0.1 of localhost.
        opened = [address for address in addresses if self._policy.opens_address(address)]
        if opened:
            return opened
        if not all(map(self._policy.allows, addresses)):
            raise FetchRefused(
                f"{url.host} does not lead to public addresses alone; expected a public host",
                code="fetch.refused.address",
            )
        if not url.has_default_port:
            raise FetchRefused(
                f"port {url.port} is not allowed for {url.scheme}; expected the scheme's own",
                code="fetch.refused.port",
            )
        return addresses

    async def _connect(self, url: WebUrl, addresses: Sequence[IpAddress]) -> HttpConnection:
        loop = asyncio.get_running_loop()
        tls = (self._tls or _verifying_tls()) if url.scheme == "https" else None
        for address in addresses:
            try:
                # Divide the time, so that a dead address leaves some for the next.
                async with asyncio.timeout(self._deadlines.connect_seconds / len(addresses)):
                    _, connection = await loop.create_connection(
                        lambda: HttpConnection(url.authority, self._deadlines),
                        str(address),
                        url.port,
                        ssl=tls,
                        server_hostname=url.host if tls else None,
                    )
                    return connection
            except ssl.SSLCertVerificationError:
                raise GatewayFault(f"the certificate of {url.authority} could not be verified") from None
            except (OSError, TimeoutError):
                continue
        raise GatewayFault(f"{url.authority} could not be connected to")


@cache
def _verifying_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Slim images have no certificates.
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context
