"""The API's socket: where it can listen, and what is said where it cannot."""

import socket

import pytest

from iidq.errors import SettingsFault
from iidq.listening import base_url, listen


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_clients_can_connect_at_once(host: str, shown: str) -> None:
    """A client connects to the URL before any process accepts, and a restart finds the port free."""
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        assert base_url(listener) == f"http://{shown}:{port}"
        socket.create_connection((host, port), timeout=10).close()
    listen(host, port).close()


def test_a_taken_port_is_named() -> None:
    """Two services on one port: the second is told which port is taken, and by which variable to choose another."""
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(SettingsFault) as caught:
            listen("127.0.0.1", port)
    assert caught.value.message == (
        f"PORT={port}: another process listens there on '127.0.0.1'; expected a free port (0 takes any)"
    )


@pytest.mark.parametrize("host", ["192.0.2.7", "not a host", "::ffff:192.0.2.7", "::zz", "a" * 300, "\u2028"])
def test_a_host_that_cannot_be_used_is_named(host: str) -> None:
    """An address of another machine, or a text that is no address, is a fault of HOST in one line."""
    with pytest.raises(SettingsFault, match=r": HOST="):
        listen(host, 0)


def test_a_host_that_holds_a_secret_is_not_shown() -> None:
    """Another variable's value in HOST is not repeated."""
    with pytest.raises(SettingsFault) as caught:
        listen("postgresql://u:S3CRET@h", 0)
    assert caught.value.message.startswith("HOST=(hidden): ")
