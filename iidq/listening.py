"""The listening socket of an API; an unusable port or host is one line that names the variable."""

import errno
import os
import re
import socket
from typing import Any, Final

from iidq.errors import SettingsFault

_SHOWABLE: Final = re.compile(r"[\w.:%\[\]-]{1,253}", re.ASCII)
_NOT_OURS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
BACKLOG: Final = 2048
"""Connections that the kernel accepts for busy processes, and before processes are up."""


def listen(host: str, port: int, port_variable: str = "PORT") -> socket.socket:
    """Return a listening socket; port 0 takes any free port.

    An IPv6 address may have brackets, as in URLs. For a name with several addresses, take the first of this machine,
    IPv4 before IPv6. Raise :class:`SettingsFault` that names HOST or ``port_variable``.
    """
    fault: OSError = socket.gaierror()
    for family, address in _addresses(host, port):
        try:
            return _bound(family, address)
        except OSError as error:
            fault = error
            if error.errno not in _NOT_OURS:
                break
    raise _fault(host, port, port_variable, fault) from None


def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(plain, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP) if plain else []
    except (ValueError, TypeError, socket.gaierror):
        # The first two are raised for a text that cannot be encoded.
        return []
    return sorted(((family, address) for family, *_, address in found), key=lambda one: one[0] != socket.AF_INET)


def _bound(family: int, address: Any) -> socket.socket:
    # asyncio sets TCP_NODELAY only with the protocol named; otherwise a reply takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Clients wait in the backlog until the processes are up.
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def base_url(listener: socket.socket) -> str:
    """Return the ``http`` URL of a listening socket, without a final slash."""
    host, port, *of_ipv6 = listener.getsockname()
    if of_ipv6 and of_ipv6[1]:
        # A link-local address needs its interface.
        host += f"%{socket.if_indextoname(of_ipv6[1])}"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _fault(host: str, port: int, port_variable: str, error: OSError) -> SettingsFault:
    # A text that is neither address nor name may be another variable's value, with a password.
    shown = repr(host) if _SHOWABLE.fullmatch(host) else "(hidden)"
    match error:
        case socket.gaierror():
            return SettingsFault(
                f"HOST={shown}: no address was found for this name; expected an address or a name of this machine, "
                "without a port"
            )
        case OSError(errno=number) if number in _NOT_OURS:
            return SettingsFault(f"HOST={shown}: this machine has no such address; expected one of its own")
        case OSError(errno=errno.EINVAL) if ":" in host:
            return SettingsFault(
                f"HOST={shown}: cannot listen there; expected a link-local address with its interface (fe80::1%eth0)"
            )
        case OSError(errno=errno.EADDRINUSE):
            return SettingsFault(
                f"{port_variable}={port}: another process listens there on {shown}; expected a free port"
                + (" (0 takes any)" if port_variable == "PORT" else "")
            )
        case OSError(errno=errno.EACCES):
            return SettingsFault(
                f"{port_variable}={port}: this user may not listen there; expected a port from 1024 up"
            )
        case _:
            return SettingsFault(
                f"HOST={shown}, {port_variable}={port}: cannot listen there ({os.strerror(error.errno or 0)})"
            )
