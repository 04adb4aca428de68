"""What a caller may name as a manifest: ``ipfs://CID``, ``ipfs://CID/path`` or an http(s) URL.

Everything that can be judged by the text alone is judged here, without a look-up; where a name leads is judged
when the connection is made (:mod:`iidq.guarded_http.dialing`). Each refusal carries its rule's code:

    fetch.refused.uri          not a URI, too long, or with characters that parsers read differently
    fetch.refused.scheme       neither ipfs, http nor https
    fetch.refused.credentials  user or password inside the URL
    fetch.refused.host         no host, or not a plain ASCII name
    fetch.refused.address      an address that is not public, or not in plain notation
    fetch.refused.port         another port than the scheme's own
    fetch.refused.cid          not a CID that can be verified here
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urljoin

from iidq.errors import FetchRefused
from iidq.guarded_http.fetch_policy import FetchPolicy
from iidq.guarded_http.host import canonical_host
from iidq.guarded_http.ip_addresses import literal_address, special_kind
from iidq.provenance.ipfs.cid import Cid, parse_cid

MAX_URI_CHARACTERS = 2048
MAX_PATH_SEGMENTS = 16

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_HIERARCHY = re.compile(r"//(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]{0,5}))?")
# Control characters, blanks and backslashes: what one parser skips, another takes for the end of the host.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]")
_TARGET_CHARACTERS = "/?%:;=@!$&'()*+,~[]|"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class IpfsUri:
    """An immutable file: the CID names its bytes, or a directory that ``path`` leads on from."""

    cid: Cid
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join((f"ipfs://{self.cid.text}", *(quote(segment, safe="") for segment in self.path)))


@dataclass(frozen=True, slots=True)
class WebUri:
    """An http(s) URL in parts; ``host`` is canonical (IPv6 without brackets), ``target`` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def has_default_port(self) -> bool:
        return self.port == _DEFAULT_PORTS[self.scheme]

    @property
    def authority(self) -> str:
        """Host and, unless it is the scheme's own, port: as in a ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.has_default_port else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_manifest_uri(text: str, *, allow_private: FetchPolicy) -> IpfsUri | WebUri:
    """Read a manifest's URI; raises :class:`FetchRefused`, its message naming the rule and what was expected."""
    scheme, rest = _split_scheme(text, expected="ipfs://CID, http:// or https://")
    if scheme == "ipfs":
        return _ipfs_uri(rest)
    return _web_uri(scheme, rest, allow_private, expected="ipfs://CID, http:// or https://")


def parse_web_uri(text: str, *, allow_private: FetchPolicy) -> WebUri:
    """Read an http(s) URL by the same rules; raises :class:`FetchRefused`."""
    scheme, rest = _split_scheme(text, expected="http:// or https://")
    return _web_uri(scheme, rest, allow_private, expected="http:// or https://")


def redirect_target(base: WebUri, location: str, *, allow_private: FetchPolicy) -> WebUri:
    """Where a ``Location`` header leads from ``base``; raises :class:`FetchRefused` as for a fresh URL."""
    if len(location) > MAX_URI_CHARACTERS or _AMBIGUOUS.search(location):
        raise _refused("uri", "the redirect leads to something that is not a URL")
    try:
        absolute = urljoin(str(base), location)
    except ValueError:
        raise _refused("uri", "the redirect leads to something that is not a URL") from None
    return parse_web_uri(absolute, allow_private=allow_private)


def _split_scheme(text: str, *, expected: str) -> tuple[str, str]:
    if not text or len(text) > MAX_URI_CHARACTERS:
        raise _refused("uri", f"a URI of 1 to {MAX_URI_CHARACTERS} characters was expected")
    if _AMBIGUOUS.search(text):
        raise _refused("uri", "blanks, control characters and backslashes are not allowed; expected them encoded (%20)")
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise _refused("scheme", f"no scheme; expected {expected}")
    return match[1].lower(), match[2]


def _ipfs_uri(rest: str) -> IpfsUri:
    match = _HIERARCHY.fullmatch(rest)
    if match is None:
        raise _refused("uri", "expected ipfs://CID or ipfs://CID/path")
    if match["query"] is not None or match["fragment"] is not None:
        raise _refused("uri", "an ipfs URI has neither query nor fragment; expected ipfs://CID or ipfs://CID/path")
    cid = parse_cid(match["authority"])
    encoded = match["path"].strip("/")
    segments = tuple(map(_path_segment, encoded.split("/"))) if encoded else ()
    if len(segments) > MAX_PATH_SEGMENTS:
        raise _refused("uri", f"the path is too deep; expected at most {MAX_PATH_SEGMENTS} segments")
    return IpfsUri(cid, segments)


def _path_segment(encoded: str) -> str:
    try:
        segment = unquote_to_bytes(encoded).decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("uri", "the path is not UTF-8") from None
    if segment in ("", ".", "..") or "/" in segment or "\0" in segment:
        raise _refused("uri", "the path has an empty, '.' or '..' segment; expected plain names")
    return segment


def _web_uri(scheme: str, rest: str, policy: FetchPolicy, *, expected: str) -> WebUri:
    if scheme not in _DEFAULT_PORTS:
        raise _refused("scheme", f"the scheme {scheme[:32]!r} is not allowed; expected {expected}")
    match = _HIERARCHY.fullmatch(rest)
    if match is None or not match["authority"]:
        raise _refused("host", f"no host; expected {scheme}://host/path")
    if "@" in match["authority"]:
        raise _refused("credentials", "user and password are not allowed in the URL; expected none")
    host, port_text = _split_authority(match["authority"])
    uri = WebUri(
        scheme,
        host,
        int(port_text) if port_text else _DEFAULT_PORTS[scheme],
        quote((match["path"] or "/") + (match["query"] or ""), safe=_TARGET_CHARACTERS),
    )
    _check_address_and_port(uri, policy)
    return uri


def _split_authority(authority: str) -> tuple[str, str]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _refused("host", "host and port cannot be told apart; expected host or host:port")
    text = match["host"]
    try:
        return canonical_host(text), match["port"] or ""
    except ValueError:
        if _looks_like_address(text):
            raise _refused(
                "address", "the address is not in plain notation; expected four decimal numbers, or IPv6 in brackets"
            ) from None
        raise _refused("host", "not a host name; expected ASCII letters, digits, '-' and '.'") from None


def _looks_like_address(host: str) -> bool:
    if ":" in host:
        return True
    try:
        return literal_address(host) is not None
    except ValueError:
        return True


def _check_address_and_port(uri: WebUri, policy: FetchPolicy) -> None:
    if policy.opens_host(uri.host):
        if not 0 < uri.port < 65536:
            raise _refused("port", "expected a port from 1 to 65535")
        return
    address = literal_address(uri.host)
    if address is not None and not policy.allows(address):
        raise _refused(
            "address", f"{uri.host} is not a public address ({special_kind(address)}); expected a public one"
        )
    # A name may lead into an opened network, where any port goes: that is seen when it is resolved.
    may_be_opened = policy.opens_address(address) if address is not None else bool(policy.networks)
    if not (uri.has_default_port or (may_be_opened and 0 < uri.port < 65536)):
        default = _DEFAULT_PORTS[uri.scheme]
        raise _refused("port", f"port {uri.port} is not allowed for {uri.scheme}; expected {default}")


def _refused(rule: str, message: str) -> FetchRefused:
    return FetchRefused(message, code=f"fetch.refused.{rule}")
