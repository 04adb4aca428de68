"""The socket that an API listens on; a port or host that cannot be used is one line that names the variable."""

import errno
import os
import re
import socket
from typing import Final

from iidq.errors import SettingsFault

_SHOWABLE: Final = re.compile(r"[\w.:-]{1,253}", re.ASCII)
BACKLOG: Final = 2048
"""Connections that the kernel accepts for processes that are busy, or not up yet."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that clients can connect to from now on; port 0 takes any free one.

    Raises :class:`SettingsFault` that names HOST or PORT.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on accepted connections; without it a reply takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Clients wait in the backlog while the processes come up.
        listener.listen(BACKLOG)
    except (UnicodeError, TypeError):
        # Raised for a text that cannot even be asked for.
        listener.close()
        raise _fault(host, port, socket.gaierror()) from None
    except OSError as error:
        listener.close()
        raise _fault(host, port, error) from None
    return listener


def base_url(listener: socket.socket) -> str:
    """Return the ``http`` URL of a listening socket, without a slash at its end."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _fault(host: str, port: int, error: OSError) -> SettingsFault:
    # What is neither an address nor a name may be another variable's value, with a password in it.
    shown = repr(host) if _SHOWABLE.fullmatch(host) else "(hidden)"
    match error:
        case socket.gaierror():
            return SettingsFault(f"HOST={shown}: no address belongs to this name; expected an address of this machine")
        case OSError(errno=errno.EADDRNOTAVAIL):
            return SettingsFault(f"HOST={shown}: this machine has no such address; expected one of its own")
        case OSError(errno=errno.EADDRINUSE):
            return SettingsFault(
                f"PORT={port}: another process listens there on {shown}; expected a free port (0 takes any)"
            )
        case OSError(errno=errno.EACCES):
            return SettingsFault(f"PORT={port}: this user may not listen there; expected a port from 1024 up")
        case _:
            return SettingsFault(f"HOST={shown}, PORT={port}: cannot listen there ({os.strerror(error.errno or 0)})")
