"""The choice of public addresses."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.guarded_http.addresses import canonical_host, literal_address, special_kind

SPECIAL = {
    "0.0.0.0": "unspecified",  # noqa: S104
    "0.1.2.3": "unspecified",
    "10.255.255.255": "private",
    "100.64.0.1": "carrier-grade NAT",
    "100.127.255.254": "carrier-grade NAT",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.169.254": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "reserved",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relay",
    "192.168.0.1": "private",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.7": "documentation",
    "203.0.113.7": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::ffff:127.0.0.1": "IPv4-mapped",
    "::ffff:8.8.8.8": "IPv4-mapped",
    "::ffff:0:10.0.0.1": "IPv4-translated",
    "::127.0.0.1": "IPv4-compatible",
    "64:ff9b::7f00:1": "NAT64",
    "64:ff9b:1::a00:1": "NAT64",
    "100::1": "discard-only",
    "2001::1": "Teredo",
    "2001:2::1": "benchmarking",
    "2001:10::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4",
    "3fff::1": "documentation",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "unique local",
    "fd00:ec2::254": "unique local",
    "fe80::1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
}


@pytest.mark.parametrize(("text", "kind"), SPECIAL.items())
def test_special_addresses_are_told_by_kind(text: str, kind: str) -> None:
    """Every special-purpose range is recognised and named."""
    assert special_kind(ip_address(text)) == kind


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_public_addresses_are_public(text: str) -> None:
    """Addresses next to the special ranges are public."""
    assert special_kind(ip_address(text)) is None


@given(st.ip_addresses(v=4))
def test_no_ipv6_form_that_carries_ipv4_is_public(inner: IPv4Address) -> None:
    """Mapped, compatible, translated, NAT64, 6to4 and Teredo addresses are never public."""
    number = int(inner)
    for carrier in (
        number,
        0xFFFF << 32 | number,
        0xFFFF << 48 | number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80,
        0x20010000 << 96 | (number ^ 0xFFFFFFFF),
    ):
        assert special_kind(IPv6Address(carrier)) is not None


@given(st.ip_addresses())
def test_what_python_calls_private_is_not_public(address: IPv4Address | IPv6Address) -> None:
    """An address private to the standard library is never public here."""
    if not address.is_global:
        assert special_kind(address) is not None


def _part_forms(value: int) -> list[str]:
    return [str(value), hex(value), hex(value).upper(), f"0{value:o}", f"0x0{value:x}"]


@given(st.ip_addresses(v=4), st.data())
def test_every_inet_aton_spelling_is_refused_or_plain(address: IPv4Address, data: st.DataObject) -> None:
    """An octal, hexadecimal, short or whole-number address is never taken for a name."""
    number = int(address)
    length = data.draw(st.integers(1, 4))
    head = [number >> (24 - 8 * index) & 0xFF for index in range(length - 1)]
    tail = number & ((1 << (32 - 8 * (length - 1))) - 1)
    spelling = ".".join(data.draw(st.sampled_from(_part_forms(part))) for part in [*head, tail])
    try:
        host = canonical_host(spelling)
    except ValueError:
        return
    assert host == spelling == str(address)


@pytest.mark.parametrize("text", ["example.org", "1.example", "x1", "0xfg", "a-b.c_d.e"])
def test_names_are_no_addresses(text: str) -> None:
    """A host with a last label other than a number is a name."""
    assert literal_address(text) is None
    assert canonical_host(text) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [("EXAMPLE.org.", "example.org"), ("[::0:1]", "::1"), ("[::FFFF:7F00:1]", "::ffff:7f00:1")],
)
def test_a_host_has_one_spelling(one: str, other: str) -> None:
    """Case, the root's dot and IPv6's zeros do not make another host."""
    assert ip_address(canonical_host(one)) == ip_address(other) if ":" in other else canonical_host(one) == other
