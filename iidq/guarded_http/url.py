"""An http(s) URL that a caller names, judged by the text alone, without a look-up.

The addresses behind a host name are judged when a connection is made (:mod:`iidq.guarded_http.dialing`). Each refusal
carries the code of the broken rule:

    fetch.refused.uri          not a URI, too long, or with characters that parsers read differently
    fetch.refused.scheme       a scheme that is not allowed
    fetch.refused.credentials  user or password inside the URL
    fetch.refused.host         no host, or not a plain ASCII name
    fetch.refused.address      an address that is not public, or not in plain notation
    fetch.refused.port         another port than the scheme's own
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin

from iidq.errors import FetchRefused
from iidq.guarded_http.addresses import canonical_host, literal_address, special_kind
from iidq.guarded_http.fetch_policy import FetchPolicy

MAX_URI_CHARACTERS = 2048
HIERARCHY = re.compile(r"//(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?")
"""The text of a URI behind the scheme's colon."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[0-9]{0,5}))?")
# Control characters, blanks and backslashes: some parsers skip them, others end the host there.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]")
_TARGET_CHARACTERS = "/?%:;=@!$&'()*+,~[]|"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class WebUrl:
    """An http(s) URL in parts."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """The canonical host; IPv6 without brackets."""
    port: int
    """The port, explicit even where it is the scheme's own."""
    target: str
    """Path and query, percent-encoded: the request target."""

    @property
    def has_default_port(self) -> bool:
        """Return whether the port is the scheme's own."""
        return self.port == _DEFAULT_PORTS[self.scheme]

    @property
    def authority(self) -> str:
        """Return host and port as in a ``Host`` header, without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.has_default_port else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Return scheme and authority."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return f"{self.origin}{self.target}"


def parse_web_url(text: str, *, allow_private: FetchPolicy) -> WebUrl:
    """Parse an http(s) URL; raise :class:`FetchRefused` naming the rule and the expected form."""
    scheme, rest = split_scheme(text, expected="http:// or https://")
    return web_url(scheme, rest, allow_private, expected="http:// or https://")


def redirect_target(base: WebUrl, location: str, *, allow_private: FetchPolicy) -> WebUrl:
    """Resolve a ``Location`` header against ``base``; raise :class:`FetchRefused` as for a fresh URL."""
    if len(location) > MAX_URI_CHARACTERS or _AMBIGUOUS.search(location):
        raise refused("uri", "the redirect leads to something that is not a URL")
    try:
        absolute = urljoin(str(base), location)
    except ValueError:
        raise refused("uri", "the redirect leads to something that is not a URL") from None
    return parse_web_url(absolute, allow_private=allow_private)


def split_scheme(text: str, *, expected: str) -> tuple[str, str]:
    """Return the lower-case scheme and the text behind the colon; raise :class:`FetchRefused`."""
    if not text or len(text) > MAX_URI_CHARACTERS:
        raise refused("uri", f"a URI of 1 to {MAX_URI_CHARACTERS} characters was expected")
    if _AMBIGUOUS.search(text):
        raise refused("uri", "blanks, control characters and backslashes are not allowed; expected them encoded (%20)")
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise refused("scheme", f"no scheme; expected {expected}")
    return match[1].lower(), match[2]


def web_url(scheme: str, rest: str, policy: FetchPolicy, *, expected: str) -> WebUrl:
    """Parse the text behind the scheme; raise :class:`FetchRefused`. ``expected`` describes the allowed schemes."""
    if scheme not in _DEFAULT_PORTS:
        raise refused("scheme", f"the scheme {scheme[:32]!r} is not allowed; expected {expected}")
    match = HIERARCHY.fullmatch(rest)
    if match is None or not match["authority"]:
        raise refused("host", f"no host; expected {scheme}://host/path")
    if "@" in match["authority"]:
        raise refused("credentials", "user and password are not allowed in the URL; expected none")
    host, port_text = _split_authority(match["authority"])
    url = WebUrl(
        scheme,
        host,
        int(port_text) if port_text else _DEFAULT_PORTS[scheme],
        quote((match["path"] or "/") + (match["query"] or ""), safe=_TARGET_CHARACTERS),
    )
    _check_address_and_port(url, policy)
    return url


def refused(rule: str, message: str) -> FetchRefused:
    """Return the fault for a broken rule."""
    return FetchRefused(message, code=f"fetch.refused.{rule}")


def _split_authority(authority: str) -> tuple[str, str]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise refused("host", "host and port cannot be separated; expected host or host:port")
    text = match["host"]
    try:
        return canonical_host(text), match["port"] or ""
    except ValueError:
        if _looks_like_address(text):
            raise refused(
                "address", "the address is not in plain notation; expected four decimal numbers, or IPv6 in brackets"
            ) from None
        raise refused("host", "not a host name; expected ASCII letters, digits, '-' and '.'") from None


def _looks_like_address(host: str) -> bool:
    if ":" in host:
        return True
    try:
        return literal_address(host) is not None
    except ValueError:
        return True


def _check_address_and_port(url: WebUrl, policy: FetchPolicy) -> None:
    if policy.opens_host(url.host):
        if not 0 < url.port < 65536:
            raise refused("port", "expected a port from 1 to 65535")
        return
    address = literal_address(url.host)
    if address is not None and not policy.allows(address):
        raise refused("address", f"{url.host} is not a public address ({special_kind(address)}); expected a public one")
    # A name may lead into an opened network, where any port is allowed. Dialing decides after the look-up.
    may_be_opened = policy.opens_address(address) if address is not None else bool(policy.networks)
    if not (url.has_default_port or (may_be_opened and 0 < url.port < 65536)):
        default = _DEFAULT_PORTS[url.scheme]
        raise refused("port", f"port {url.port} is not allowed for {url.scheme}; expected {default}")
