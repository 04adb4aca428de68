"""A real nginx in front of a service under test."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.eventually import eventually

NGINX: Final = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
needs_nginx: Final = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

_CONFIGURATION: Final = """
user root;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
}}
"""


@asynccontextmanager
async def running_nginx(folder: Path, http: str, address: Path | int) -> AsyncIterator[None]:
    """Run nginx with the directives ``http``, which listen on ``address``: a Unix socket, or a port of 127.0.0.1."""
    assert NGINX is not None
    (folder / "nginx.conf").write_text(_CONFIGURATION.format(folder=folder, http=http))
    arguments = ("-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr")
    nginx = await asyncio.create_subprocess_exec(NGINX, *arguments)
    try:
        await eventually(lambda: nginx.returncode is not None or _answers(address))
        assert nginx.returncode is None
        yield
    finally:
        if nginx.returncode is None:
            nginx.terminate()
        await nginx.wait()


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(address: Path | int) -> bool:
    family, place = (
        (socket.AF_INET, ("127.0.0.1", address)) if isinstance(address, int) else (socket.AF_UNIX, str(address))
    )
    with socket.socket(family) as client:
        return client.connect_ex(place) == 0
