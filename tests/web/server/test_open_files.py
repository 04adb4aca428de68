"""Test that the process keeps its own file descriptors under any number of connections."""

import asyncio
import contextlib
import subprocess
import sys

import httpx
import pytest

from iidq.web.server import http_protocol
from tests.web.serving import ServeApi

_LIMITS = """
import resource
from iidq.process import RESERVED_FILES, most_connections, raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
before = most_connections()
raise_open_files()
print(before, resource.getrlimit(resource.RLIMIT_NOFILE), most_connections() == 1024 - RESERVED_FILES)
"""


def test_a_process_takes_what_the_hard_limit_allows() -> None:
    """The process raises the soft limit of open files to the hard limit, and reserves some files for itself."""
    told = subprocess.run([sys.executable, "-c", _LIMITS], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "128 (1024, 1024) True\n"


async def test_one_connection_too_many_is_turned_away(serve_api: ServeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection over the limit gets 503 with Retry-After and is closed; the others are served."""
    monkeypatch.setattr(http_protocol, "most_connections", lambda: 3)
    async with serve_api() as api:
        host, port = str(api.base_url.host), api.base_url.port
        idle = [await asyncio.open_connection(host, port) for _ in range(3)]
        reader, writer = await asyncio.open_connection(host, port)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert b"too many connections" in body
        idle[0][1].write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await idle[0][0].readline()).startswith(b"HTTP/1.1 200 ")
        idle[1][1].close()

        async def is_let_in() -> None:
            # A client refused while sending may see only a reset.
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await api.get("/livez")).status_code == 200:
                        return

        await asyncio.wait_for(is_let_in(), 15)
        for _, connection in idle:
            connection.close()
