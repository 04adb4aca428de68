"""Who asks: the address of the client itself, where proxies stand between. Pure.

``X-Forwarded-For`` is believed only as far as trusted proxies wrote it. Each proxy appends the address that it was
called from, so the list is read from its end: the first entry that is no trusted proxy is the client. What stands
before that entry came from the client and proves nothing.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

_HEADER: Final = b"x-forwarded-for"
# Some proxies add the port: "192.0.2.1:4711", "[2001:db8::1]:4711".
_WITH_PORT = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_REMEMBERED: Final = 4096
_LONGEST_TEXT: Final = 100
_SUBSCRIBER_BITS: Final = 64

Address = IPv4Address | IPv6Address


class ClientAddresses:
    """Finds the client's address under ``TRUSTED_PROXIES``."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._networks = tuple(ip_network(item, strict=False) for item in trusted_proxies)
        self._is_trusted = lru_cache(_REMEMBERED)(self._is_in_a_network)

    def of(self, scope: Mapping[str, Any]) -> str:
        """The client's address; empty where the server does not know who called, as on a Unix socket."""
        peer = scope.get("client")
        host: str = peer[0] if peer else ""
        if not self._networks or not self._is_trusted(host):
            return _normal(host)
        # Several fields are one list, in their order (RFC 9110, section 5.3).
        entries = b",".join([value for name, value in scope["headers"] if name == _HEADER])
        for entry in reversed(entries.decode("latin-1").split(",")):
            address = _parse(entry)
            if address is None:
                break
            host = str(address)
            if not self._is_trusted(host):
                break
        return _normal(host)

    def trusts_peer(self, scope: Mapping[str, Any]) -> bool:
        """Whether the request comes straight from a trusted proxy."""
        peer = scope.get("client")
        return bool(self._networks) and peer is not None and self._is_trusted(peer[0])

    def _is_in_a_network(self, host: str) -> bool:
        address = _parse(host)
        return address is not None and any(address in network for network in self._networks)


@lru_cache(_REMEMBERED)
def rate_limited_as(address: str) -> str:
    """Whom the rate limits count: an IPv4 address, or an IPv6 /64, for that is what one subscriber gets."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), _SUBSCRIBER_BITS), strict=False))
    return address


@lru_cache(_REMEMBERED)
def _normal(host: str) -> str:
    address = _parse(host)
    return host if address is None else str(address)


def _parse(text: str) -> Address | None:
    # What is remembered must be short, for clients choose it.
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
