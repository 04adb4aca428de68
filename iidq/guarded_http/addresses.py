"""Hosts and IP addresses: the canonical spelling of a host, and the table of addresses that are not public.

The tables follow IANA's special-purpose address registries (RFC 6890 and its updates). Addresses that embed another
address are not public either. ``ipaddress.is_global`` is no guard: NAT64, 6to4, IPv4-compatible and multicast
addresses pass as global.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_IPV4_RULES = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_IPV6_RULES = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("100::/64", "discard-only"),
        ("2001::/32", "Teredo"),
        ("2001:2::/48", "benchmarking"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "reserved"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "unique local"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_IPV6_GLOBAL_UNICAST = IPv6Network("2000::/3")

_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def special_kind(address: IpAddress) -> str | None:
    """Return the kind of a non-public address, such as ``loopback``; None for a public address."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _IPV4_RULES if address in network), None)
    kind = next((kind for network, kind in _IPV6_RULES if address in network), None)
    return kind if kind or address in _IPV6_GLOBAL_UNICAST else "reserved"


def literal_address(host: str) -> IpAddress | None:
    """Return the address that a URL's host text spells out; None for a name. IPv6 comes without brackets.

    Raises :class:`ValueError` for text that some resolvers read as an address although the notation is not plain:
    decimal, octal, hexadecimal and short IPv4 (``inet_aton``), a dot after an address, IPv6 with a zone.
    """
    if ":" in host:
        address = IPv6Address(host)
        if address.scope_id is not None:
            raise AddressValueError("an IPv6 zone")
        return address
    if _NUMERIC_LABEL.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        return IPv4Address(host)
    return None


def canonical_host(text: str) -> str:
    """Return a lower-case name without the root's dot, or an address in plain notation (IPv6 without brackets).

    Raises :class:`ValueError` for anything else. Names must be ASCII (``xn--`` for international names): a mapping from
    other scripts can turn an innocent text into an address.
    """
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if ":" not in text:
            raise ValueError("brackets belong around an IPv6 address")
    elif ":" in text:
        raise ValueError("an IPv6 address belongs in brackets")
    address = literal_address(text)
    if address is not None:
        return str(address)
    name = text.lower().removesuffix(".")
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise ValueError("not a host name")
    return name
