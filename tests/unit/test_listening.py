"""The API's socket: possible addresses, and messages for impossible ones."""

import errno
import os
import socket
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

import pytest

from iidq.errors import SettingsFault
from iidq.listening import base_url, listen

_NOBODY: Final = 65534


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("::", "[::]"),
        ("[::]", "[::]"),
        ("[::FFFF:127.0.0.1]", "[::ffff:127.0.0.1]"),
        ("LOCALHOST", "127.0.0.1"),
    ],
)
def test_clients_can_connect_at_once(host: str, shown: str) -> None:
    """A client connects to the URL before any process accepts, and a restart finds the port free."""
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert base_url(listener) == f"http://{shown}:{port}"
        socket.create_connection((shown.strip("[]"), port), timeout=10).close()
    listen(host, port).close()


def link_local_address() -> str:
    """Return a link-local address with its interface; skip the test without such an address."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        digits, _, _, scope, _, interface = line.split()
        if scope == "20":
            return f"{IPv6Address(bytes.fromhex(digits))}%{interface}"
    pytest.skip("no interface has a link-local address")


@pytest.mark.parametrize("brackets", ["{}", "[{}]"])
def test_a_link_local_address_names_its_interface(brackets: str) -> None:
    """The printed URL leads back to the socket; without the interface the fault names the missing part."""
    address = link_local_address()
    with listen(brackets.format(address), 0) as listener:
        port = listener.getsockname()[1]
        assert base_url(listener) == f"http://[{address}]:{port}"
        socket.create_connection((address, port), timeout=10).close()
    with pytest.raises(SettingsFault, match=r"HOST='.*a link-local address with its interface"):
        listen(brackets.format(address.partition("%")[0]), 0)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Resolve every name to the given addresses."""
    ask = socket.getaddrinfo

    def asked(host: str, *arguments: Any, **options: Any) -> list[Any]:
        return [found for address in addresses for found in ask(address, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", asked)


@pytest.mark.parametrize(
    ("addresses", "shown"),
    [
        (["::1", "127.0.0.1"], "127.0.0.1"),
        (["::1"], "[::1]"),
        (["192.0.2.7", "127.0.0.2"], "127.0.0.2"),
        (["192.0.2.7", "::1"], "[::1]"),
    ],
)
def test_of_a_name_the_machines_own_address_is_taken(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], shown: str
) -> None:
    """A name's own address of the machine is used, IPv4 before IPv6; addresses of other machines are passed over."""
    resolve_to(monkeypatch, *addresses)
    with listen("name", 0) as listener:
        assert base_url(listener).rpartition(":")[0] == f"http://{shown}"


def test_a_taken_port_is_not_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a name's first address is taken, the second is not used: clients would not find the service there."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        resolve_to(monkeypatch, "127.0.0.1", "::1")
        with pytest.raises(SettingsFault, match=rf": PORT={port}: another process listens there"):
            listen("localhost", port)


def test_a_machine_without_ipv6_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without IPv6 is a fault of HOST: the machine does not have the address."""
    create = socket.socket

    def without_ipv6(family: int, *arguments: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return create(family, *arguments)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with pytest.raises(SettingsFault, match=r": HOST='::1': this machine has no such address"):
        listen("::1", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give its rights up")
def test_a_privileged_port_is_named() -> None:
    """A port without the right to listen is a fault of the port, not of the host."""
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("every user may listen on every port here")
    os.seteuid(_NOBODY)
    try:
        with pytest.raises(SettingsFault, match=r": PORT=1: this user may not listen there"):
            listen("127.0.0.1", 1)
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]"])
def test_a_taken_port_is_named(host: str) -> None:
    """A second service on a taken port stops with the port, the variable and the expected value."""
    with listen(host, 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(SettingsFault) as caught:
            listen(host, port)
    assert caught.value.message == (
        f"PORT={port}: another process listens there on '{host}'; expected a free port (0 takes any)"
    )


@pytest.mark.parametrize(
    "host",
    [
        "[]",
        "[",
        "127.0.0.1:80",
        "nowhere.invalid",
        "a..b",
        "fe80::1%nowhere",
        "192.0.2.7",
        "not a host",
        "::ffff:192.0.2.7",
        "::zz",
        "a" * 300,
        "\u2028",
    ],
)
def test_a_host_that_cannot_be_used_is_named(host: str) -> None:
    """An address of another machine, or a text other than an address, is a fault of HOST in a single line."""
    with pytest.raises(SettingsFault, match=r": HOST="):
        listen(host, 0)


def test_a_host_that_holds_a_secret_is_not_shown() -> None:
    """A secret in HOST is not repeated in the message."""
    with pytest.raises(SettingsFault) as caught:
        listen("postgresql://u:S3CRET@h", 0)
    assert caught.value.message.startswith("HOST=(hidden): ")
