"""Test metrics of several ``iidq serve`` processes: each process serves the sums of all, ended processes included."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from iidq.process import die_with_parent
from tests.eventually import eventually
from tests.exposition_format import samples, value
from tests.web.serving import NO_DATABASE

PROCESSES = 2
_STOP_SECONDS = 30


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start ``iidq serve`` in two processes; yield its URL and the process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "DATABASE_URL": NO_DATABASE,
        "RPC_URL": "http://rpc.invalid/",
        "WEB_CONCURRENCY": str(PROCESSES),
        "PORT": str(port),
        "TMPDIR": str(tmp_path),
        "LOG_LEVEL": "warning",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "iidq", "serve"],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)


async def ask(url: str) -> httpx.Response | None:
    """Request ``url`` on a new connection, so that any process may reply."""
    async with httpx.AsyncClient(timeout=10) as client:
        try:
            return await client.get(url)
        except httpx.TransportError:
            return None


async def asked(url: str, times: int) -> int:
    """Send ``times`` simultaneous requests; return the number of replies."""
    return sum(reply is not None for reply in await asyncio.gather(*(ask(url) for _ in range(times))))


def private_folder(home: Path) -> Path:
    [folder] = home.glob("iidq-metrics-*")
    return folder


def counting_processes(folder: Path) -> set[int]:
    return {int(match[1]) for path in folder.glob("counter_*.db") if (match := re.search(r"_(\d+)\.db", path.name))}


def exists(pid: int) -> bool:
    """Return whether the process exists, also as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_processes_add_up(served: tuple[str, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """Each process serves the same sums, a killed process does not lower the sums, and no file is left."""
    url, process = served
    livez = {"route": "/livez", "status": "200"}
    sent = 0
    while not sent:
        sent = await asked(f"{url}/livez", 1)
    folder = private_folder(tmp_path)
    assert folder.stat().st_mode & 0o077 == 0

    async def all_count() -> bool:
        nonlocal sent
        sent += await asked(f"{url}/livez", 8)
        return len(counting_processes(folder)) == PROCESSES

    everybody = False
    while not everybody:
        everybody = await all_count()

    async def total() -> set[float]:
        # Several scrapes, answered by either process.
        replies = [reply for reply in [await ask(f"{url}/metrics") for _ in range(4)] if reply is not None]
        assert all(reply.status_code == 200 for reply in replies)
        return {value(reply.text, "iidq_http_requests_total", **livez) for reply in replies}

    assert await total() == {sent}
    victim = next(iter(counting_processes(folder)))
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: not exists(victim))
    reply = await ask(f"{url}/metrics")
    assert reply is not None
    assert value(reply.text, "iidq_http_requests_total", **livez) == sent
    assert not list(folder.glob(f"*_{victim}.db"))
    names = {sample.name for sample in samples(reply.text)}
    assert {"iidq_http_request_duration_seconds_bucket", "iidq_database_up", "iidq_build_info"} <= names
    process.terminate()
    process.wait(_STOP_SECONDS)
    assert not folder.exists()
