"""Whose request it is, where proxies stand between."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.web.guard.proxies import ClientAddresses, rate_limit_client

PROXIES = ("10.0.0.0/8", "192.0.2.7", "fd00::/8")


def client(peer: str, *forwarded: str, trusted: tuple[str, ...] = PROXIES) -> str:
    headers = [(b"x-forwarded-for", field.encode("latin-1")) for field in forwarded]
    scope: dict[str, Any] = {"client": (peer, 4711), "headers": headers}
    return ClientAddresses(trusted).of(scope)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9, 192.0.2.7"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9", "10.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.9,,"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, _hidden"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["x" * 100_000], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.009"], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(peer: str, forwarded: list[str], expected: str) -> None:
    """The list is read from its end; what is malformed ends the reading; a stranger's header is worth nothing."""
    assert client(peer, *forwarded) == expected


def test_without_trusted_proxies_the_header_is_worth_nothing() -> None:
    """Nobody gets another's limit by naming an address."""
    assert client("127.0.0.1", "203.0.113.9", trusted=()) == "127.0.0.1"


def test_an_unknown_caller_is_nobody() -> None:
    """A Unix socket has no address; that is no error."""
    assert ClientAddresses(PROXIES).of({"client": None, "headers": []}) == ""
    assert ClientAddresses(PROXIES).of({"headers": []}) == ""


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=30), max_size=5), st.ip_addresses())
def test_nothing_before_the_client_can_change_who_it_is(forged: list[str], address: Any) -> None:
    """Whatever a client sends itself, our proxy's entry comes behind it and decides."""
    real = client("10.0.0.1", str(address), trusted=("10.0.0.1/32",))
    assert client("10.0.0.1", *forged, str(address), trusted=("10.0.0.1/32",)) == real


def test_ipv6_clients_are_counted_by_their_network() -> None:
    """A subscriber has a /64, and could otherwise come from 2^64 addresses; IPv4 addresses stand for themselves."""
    assert rate_limit_client("2001:db8:1:2:3::4") == rate_limit_client("2001:db8:1:2:ffff::") == "2001:db8:1:2::/64"
    assert rate_limit_client("2001:db8:1:3::") != rate_limit_client("2001:db8:1:2::")
    assert rate_limit_client("203.0.113.9") == "203.0.113.9"
    assert rate_limit_client("") == ""
