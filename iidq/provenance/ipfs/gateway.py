"""One IPFS gateway: fetch a file and return only bytes proven by the CID.

Follows the trustless gateway specification (specs.ipfs.tech/http-gateways/trustless-gateway). A single block comes as
``format=raw``; a path, or a file of several blocks, comes as a CAR with ``dag-scope=entity``. Some gateways ignore
``format`` and serve the plain file: accepted if the bytes, wrapped as a block, give the CID.
"""

from base64 import b64encode
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from iidq.concurrency.circuit_breaker import CircuitBreaker
from iidq.concurrency.decoding import decode_in_thread
from iidq.errors import GatewayFault, ManifestFault, SettingsFault
from iidq.guarded_http.addresses import canonical_host
from iidq.guarded_http.dialing import Resolve
from iidq.guarded_http.fetch import WebAnswer, WebFetcher, retry_after_seconds
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.http_connection import Deadlines
from iidq.guarded_http.url import WebUrl
from iidq.provenance.digest import sha256_label
from iidq.provenance.ipfs.car import MAX_BLOCK_BYTES, LyingCar, UnusableCar, read_car
from iidq.provenance.ipfs.unixfs import MissingBlock, assemble_file, names_plain_file
from iidq.provenance.manifest_uri import IpfsUri

GATEWAY_DEADLINES = Deadlines(first_byte_seconds=20, idle_seconds=5, total_seconds=30)
_MAX_IDLE_CONNECTIONS = 64
# A CAR also carries the directories on the path and the file's inner blocks.
_CAR_OVERHEAD_BYTES = 2 * MAX_BLOCK_BYTES
# Longer blocks are decoded off the event loop. A block of this size takes 4 ms at worst.
_LONG_BLOCK_BYTES = 8 << 10


class WrongBytes(GatewayFault):
    """The gateway delivered bytes that do not match the CID; ``digest`` is the bytes' ``sha256:`` label."""

    code = "fetch.wrong_bytes"

    def __init__(self, message: str, digest: str) -> None:
        super().__init__(message)
        self.digest = digest


class NotHere(GatewayFault):
    """The gateway cannot find the file; another gateway may have it."""

    code = "fetch.not_here"


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """The URL of an operator's gateway, without credentials."""

    base: WebUrl
    """The base URL; its ``target`` is the gateway's own path, without a final slash."""
    headers: tuple[tuple[str, str], ...] = ()
    """An ``Authorization`` field with the credentials of the configured URL; empty without credentials."""

    @classmethod
    def parse(cls, url: str) -> "GatewayAddress":
        """Parse an item of ``IPFS_GATEWAYS``; raise :class:`SettingsFault`."""
        try:
            parts = urlsplit(url)
            host = canonical_host(f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "")
            port = parts.port
        except ValueError:
            raise SettingsFault("IPFS_GATEWAYS has an entry without a usable host or port") from None
        if parts.query or parts.fragment:
            raise SettingsFault("IPFS_GATEWAYS has an entry with a query or fragment; expected https://host/path")
        headers: tuple[tuple[str, str], ...] = ()
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            headers = (("Authorization", f"Basic {b64encode(credentials).decode()}"),)
        default_port = 443 if parts.scheme == "https" else 80
        return cls(WebUrl(parts.scheme, host, port or default_port, parts.path.rstrip("/")), headers)

    def url_of(self, uri: IpfsUri, query: str = "") -> WebUrl:
        """Return the gateway's URL of a file."""
        path = "/".join(quote(segment, safe="") for segment in (uri.cid.text, *uri.path))
        return replace(self.base, target=f"{self.base.target}/ipfs/{path}{query}")

    def shown_url_of(self, uri: IpfsUri) -> str:
        """Return the URL for a report: without the gateway's own path, which may hold a key."""
        own = "/***" if self.base.target else ""
        return str(replace(self, base=replace(self.base, target=own)).url_of(uri))


class Gateway:
    """An operator's gateway, with connections and health.

    The gateway may be in a private network. Redirects may lead to the gateway's host and to public addresses.
    """

    def __init__(self, url: str, *, deadlines: Deadlines = GATEWAY_DEADLINES, resolve: Resolve | None = None) -> None:
        self.address = GatewayAddress.parse(url)
        self.health = CircuitBreaker(threshold=12, first_pause_seconds=10, longest_pause_seconds=300)
        self.fetcher = WebFetcher(
            FetchPolicy(hosts=frozenset({self.address.base.host})),
            deadlines=deadlines,
            resolve=resolve,
            max_idle_connections=_MAX_IDLE_CONNECTIONS,
        )

    async def fetch(self, uri: IpfsUri, *, max_bytes: int) -> bytes:
        """Return the file's bytes, proven by the CID.

        Raises :class:`WrongBytes`, :class:`NotHere` or another :class:`GatewayFault` for a failure of this gateway, and
        :class:`FetchRefused` if the answer broke a rule. Raises :class:`ManifestFault` for a fact proven by verified
        blocks: too large, no file, no such entry.
        """
        if uri.path:
            return await self._fetch_car(uri, max_bytes)
        answer = await self._get(uri, "?format=raw", "application/vnd.ipld.raw", MAX_BLOCK_BYTES)
        if not answer.complete:
            raise self._fault(f"sent more than {MAX_BLOCK_BYTES} bytes for one block")
        try:
            if len(answer.body) > _LONG_BLOCK_BYTES:
                return await decode_in_thread(self._file_in_block, uri, answer.body, max_bytes)
            return self._file_in_block(uri, answer.body, max_bytes)
        except MissingBlock:
            return await self._fetch_car(uri, max_bytes)

    def _file_in_block(self, uri: IpfsUri, body: bytes, max_bytes: int) -> bytes:
        if uri.cid.names(body):
            return assemble_file(uri.cid, (), {uri.cid: body}, max_bytes=max_bytes)
        if names_plain_file(uri.cid, body):
            if len(body) > max_bytes:
                raise ManifestFault(f"the manifest is longer than {max_bytes} bytes", code="manifest.too_large")
            return body
        raise self._wrong_bytes(body)

    async def _fetch_car(self, uri: IpfsUri, max_bytes: int) -> bytes:
        answer = await self._get(
            uri, "?format=car&dag-scope=entity", "application/vnd.ipld.car", max_bytes + _CAR_OVERHEAD_BYTES
        )
        return await decode_in_thread(self._file_in_car, uri, answer, max_bytes)

    def _file_in_car(self, uri: IpfsUri, answer: WebAnswer, max_bytes: int) -> bytes:
        try:
            blocks = read_car(answer.body, cut_off=not answer.complete)
            return assemble_file(uri.cid, uri.path, blocks, max_bytes=max_bytes)
        except LyingCar:
            raise self._wrong_bytes(answer.body) from None
        except UnusableCar as error:
            raise self._fault(f"sent no usable CAR: {error}", code="fetch.bad_car") from None
        except MissingBlock:
            raise self._fault("sent a CAR without all blocks", code="fetch.bad_car") from None

    async def _get(self, uri: IpfsUri, query: str, accept: str, max_bytes: int) -> WebAnswer:
        answer = await self.fetcher.fetch(
            self.address.url_of(uri, query), max_bytes=max_bytes, headers=(("Accept", accept), *self.address.headers)
        )
        if answer.delivered:
            return answer
        message = f"{self.address.base.authority} answered {answer.status}"
        retry_after = retry_after_seconds(answer.headers)
        if answer.says_absent:
            raise NotHere(message, retry_after_seconds=retry_after)
        raise GatewayFault(message, code="fetch.status", retry_after_seconds=retry_after)

    def _fault(self, message: str, code: str | None = None) -> GatewayFault:
        return GatewayFault(f"{self.address.base.authority} {message}", code=code)

    def _wrong_bytes(self, body: bytes) -> WrongBytes:
        return WrongBytes(f"{self.address.base.authority} sent bytes that are not the CID's", sha256_label(body))
