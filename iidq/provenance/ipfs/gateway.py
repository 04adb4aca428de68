"""One gateway asked for one IPFS file; only bytes that the CID proves come back.

Follows the trustless gateway specification (specs.ipfs.tech/http-gateways/trustless-gateway): a single block as
``format=raw``, a path or a file of several blocks as a CAR with ``dag-scope=entity``. A gateway that ignores
``format`` and serves the plain file will do when the file, wrapped again, gives the CID.
"""

import hashlib
from base64 import b64encode
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from iidq.errors import GatewayFault, ManifestFault, SettingsFault
from iidq.guarded_http.fetch import WebAnswer, WebFetcher, retry_after_seconds
from iidq.guarded_http.host import canonical_host
from iidq.guarded_http.uri import IpfsUri, WebUri
from iidq.provenance.ethereum.decoding import decode_beside
from iidq.provenance.ipfs.car import MAX_BLOCK_BYTES, LyingCar, UnusableCar, read_car
from iidq.provenance.ipfs.unixfs import MissingBlock, assemble_file, names_plain_file

# Above the file's own bytes a CAR carries directories on the path and the file's inner blocks.
_CAR_OVERHEAD_BYTES = 2 * MAX_BLOCK_BYTES
# A longer block is decoded beside the event loop. This one takes 4 ms at worst, the usual manifest 10 µs.
_LONG_BLOCK_BYTES = 8 << 10


class WrongBytes(GatewayFault):
    """The gateway delivered bytes that the CID does not name."""

    code = "fetch.wrong_bytes"

    def __init__(self, message: str, digest: str) -> None:
        super().__init__(message)
        self.digest = digest


class NotHere(GatewayFault):
    """The gateway says that it cannot find the file, which another one may still have."""

    code = "fetch.not_here"


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """An operator's gateway: where it is, and the header that carries its credentials if its URL had some."""

    base: WebUri
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> "GatewayAddress":
        """Read one of ``IPFS_GATEWAYS``; raises :class:`SettingsFault`."""
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
        return cls(WebUri(parts.scheme, host, port or default_port, parts.path.rstrip("/")), headers)

    def url_of(self, uri: IpfsUri, query: str = "") -> WebUri:
        """Where this gateway serves ``uri``."""
        path = "/".join(quote(segment, safe="") for segment in (uri.cid.text, *uri.path))
        return WebUri(self.base.scheme, self.base.host, self.base.port, f"{self.base.target}/ipfs/{path}{query}")

    def shown_url_of(self, uri: IpfsUri) -> str:
        """The same for a report: without the gateway's own path, in which keys may stand."""
        own = "/***" if self.base.target else ""
        return str(replace(self, base=replace(self.base, target=own)).url_of(uri))


async def retrieve(fetcher: WebFetcher, gateway: GatewayAddress, uri: IpfsUri, *, max_bytes: int) -> bytes:
    """The file's bytes, proven by the CID.

    Raises :class:`WrongBytes`, :class:`NotHere` or another :class:`GatewayFault` for what is this gateway's
    fault, :class:`FetchRefused` for a rule that its answer broke, and :class:`ManifestFault` for what verified
    blocks themselves prove: too large, no file, no such entry.
    """
    if uri.path:
        return await _retrieve_car(fetcher, gateway, uri, max_bytes)
    answer = await _ask(fetcher, gateway, uri, "?format=raw", "application/vnd.ipld.raw", MAX_BLOCK_BYTES)
    if not answer.complete:
        raise GatewayFault(f"{gateway.base.authority} sent more than {MAX_BLOCK_BYTES} bytes for one block")
    try:
        if len(answer.body) > _LONG_BLOCK_BYTES:
            return await decode_beside(_file_in_block, gateway, uri, answer.body, max_bytes)
        return _file_in_block(gateway, uri, answer.body, max_bytes)
    except MissingBlock:
        return await _retrieve_car(fetcher, gateway, uri, max_bytes)


def _file_in_block(gateway: GatewayAddress, uri: IpfsUri, body: bytes, max_bytes: int) -> bytes:
    if uri.cid.names(body):
        return assemble_file(uri.cid, (), {uri.cid: body}, max_bytes=max_bytes)
    if names_plain_file(uri.cid, body):
        if len(body) > max_bytes:
            raise ManifestFault(f"the manifest is longer than {max_bytes} bytes", code="manifest.too_large")
        return body
    raise _wrong_bytes(gateway, body)


async def _retrieve_car(fetcher: WebFetcher, gateway: GatewayAddress, uri: IpfsUri, max_bytes: int) -> bytes:
    answer = await _ask(
        fetcher,
        gateway,
        uri,
        "?format=car&dag-scope=entity",
        "application/vnd.ipld.car",
        max_bytes + _CAR_OVERHEAD_BYTES,
    )
    return await decode_beside(_file_in_car, gateway, uri, answer, max_bytes)


def _file_in_car(gateway: GatewayAddress, uri: IpfsUri, answer: WebAnswer, max_bytes: int) -> bytes:
    try:
        blocks = read_car(answer.body, cut_off=not answer.complete)
        return assemble_file(uri.cid, uri.path, blocks, max_bytes=max_bytes)
    except LyingCar:
        raise _wrong_bytes(gateway, answer.body) from None
    except UnusableCar as error:
        raise GatewayFault(f"{gateway.base.authority} sent no usable CAR: {error}", code="fetch.bad_car") from None
    except MissingBlock:
        raise GatewayFault(f"{gateway.base.authority} sent a CAR without all blocks", code="fetch.bad_car") from None


async def _ask(
    fetcher: WebFetcher, gateway: GatewayAddress, uri: IpfsUri, query: str, accept: str, max_bytes: int
) -> WebAnswer:
    answer = await fetcher.get(
        gateway.url_of(uri, query), max_bytes=max_bytes, headers=(("Accept", accept), *gateway.headers)
    )
    peer = gateway.base.authority
    wish = retry_after_seconds(answer.headers)
    if answer.says_absent:
        raise NotHere(f"{peer} answered {answer.status}", retry_after_seconds=wish)
    if not answer.delivered:
        raise GatewayFault(f"{peer} answered {answer.status}", code="fetch.status", retry_after_seconds=wish)
    return answer


def _wrong_bytes(gateway: GatewayAddress, body: bytes) -> WrongBytes:
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return WrongBytes(f"{gateway.base.authority} sent bytes that are not the CID's", digest)
