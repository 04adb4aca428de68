"""Headers of reverse proxies: the client's address, and the path prefix of the service. Pure.

In ``X-Forwarded-For`` each proxy appends the address of the caller. The list is read from the end, as far as trusted
proxies (``TRUSTED_PROXIES``) wrote entries: the first other address is the client. Earlier entries prove nothing.

``ROOT_PATH`` names the prefix. ``X-Forwarded-Prefix`` of a trusted proxy replaces ``ROOT_PATH``: several values are
joined in order, the outermost proxy's first, as Traefik appends values. A malformed header is ignored.

Some proxies keep the prefix (``/iidq/api/…``), others remove it (``/api/…``); both are served. Only ``ROOT_PATH`` is
removed from a request's path: with a forwarded header clients could otherwise bypass paths refused by the proxy.
"""

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from iidq.setting_values.checks import LONGEST_PREFIX, parse_prefix

_FORWARDED_FOR: Final = b"x-forwarded-for"
# Some proxies add the port: "192.0.2.1:4711", "[2001:db8::1]:4711".
_WITH_PORT = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_REMEMBERED: Final = 4096
_LONGEST_TEXT: Final = 100
_SUBSCRIBER_BITS: Final = 64

Address = IPv4Address | IPv6Address


class ClientAddresses:
    """Find the client's address under ``TRUSTED_PROXIES``."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._networks = tuple(ip_network(item, strict=False) for item in trusted_proxies)
        self._is_trusted = lru_cache(_REMEMBERED)(self._is_in_a_network)

    def of(self, scope: Mapping[str, Any]) -> str:
        """Return the client's address; empty if the server has no peer address, as on a Unix socket."""
        peer = scope.get("client")
        host: str = peer[0] if peer else ""
        if not self._networks or not self._is_trusted(host):
            return _normal(host)
        # Several fields are one list, in their order (RFC 9110, section 5.3).
        entries = b",".join([value for name, value in scope["headers"] if name == _FORWARDED_FOR])
        for entry in reversed(entries.decode("latin-1").split(",")):
            address = _parse(entry)
            if address is None:
                break
            host = str(address)
            if not self._is_trusted(host):
                break
        return _normal(host)

    def trusts_peer(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the request comes directly from a trusted proxy."""
        peer = scope.get("client")
        return bool(self._networks) and peer is not None and self._is_trusted(peer[0])

    def _is_in_a_network(self, host: str) -> bool:
        address = _parse(host)
        return address is not None and any(address in network for network in self._networks)


@lru_cache(_REMEMBERED)
def rate_limit_client(address: str) -> str:
    """Return the client for rate limits: an IPv4 address, or the /64 of an IPv6 address (a subscriber)."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), _SUBSCRIBER_BITS), strict=False))
    return address


@lru_cache(_REMEMBERED)
def _normal(host: str) -> str:
    address = _parse(host)
    return host if address is None else str(address)


def _parse(text: str) -> Address | None:
    # Clients choose the text, so cached texts must be short.
    return _parse_address(text) if len(text) <= _LONGEST_TEXT else None


@lru_cache(_REMEMBERED)
def _parse_address(text: str) -> Address | None:
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2] or ""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A listener on :: sees IPv4 callers as ::ffff:192.0.2.1 (RFC 4291, section 2.5.5.2).
    return getattr(address, "ipv4_mapped", None) or address


_FORWARDED_PREFIX: Final = b"x-forwarded-prefix"


class PathPrefixes:
    """Find each request's prefix; ``own_paths`` are those of the routes."""

    def __init__(self, root_path: str, trusted_proxies: Sequence[str], own_paths: Iterable[str]) -> None:
        self._root_path = root_path
        self._addresses = ClientAddresses(trusted_proxies)
        self._own_segments = frozenset(path.split("/")[1] for path in own_paths)

    def take(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
        """Remove the prefix from the request's path; return the prefix of URLs in the reply."""
        prefix = self._root_path
        if scope.get("root_path"):
            # Set by the ASGI server's own option, such as uvicorn's --root-path. The router must not remove it again.
            prefix = _prefix_or_none(scope["root_path"]) or prefix
            scope["root_path"] = ""
        if prefix:
            scope["path"] = self._without(prefix, scope["path"])
        if _FORWARDED_PREFIX in headers and self._addresses.trusts_peer(scope):
            fields = b",".join([value for name, value in scope["headers"] if name == _FORWARDED_PREFIX])
            joined = _joined(fields) if len(fields) <= LONGEST_PREFIX else None
            return prefix if joined is None else joined
        return prefix

    def _without(self, prefix: str, path: str) -> str:
        if path == prefix:
            return "/"
        rest = path.removeprefix(prefix)
        # Under ROOT_PATH=/api the path /api/docs has no prefix, and /api/api/docs has one.
        return rest if rest[:1] == "/" and rest.split("/", 2)[1] in self._own_segments else path


def _prefix_or_none(text: str) -> str | None:
    try:
        return parse_prefix(text)
    except ValueError:
        return None


@lru_cache(64)
def _joined(fields: bytes) -> str | None:
    values = [value for field in fields.decode("latin-1").split(",") if (value := field.strip(" \t"))]
    try:
        return parse_prefix("".join([parse_prefix(value) for value in values])) if values else None
    except ValueError:
        return None
