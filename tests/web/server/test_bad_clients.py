"""Test bad clients over real sockets: correct replies or none, and no leftovers."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from iidq.settings import Settings
from tests.eventually import eventually
from tests.web.server.bad_clients import ALL, GOOD_FIELDS, BadClient, Played, form, head, part, play
from tests.web.serving import NO_DATABASE, ServeApi

IDLE_SECONDS = 1.0
CLIENTS_AT_ONCE = 64


async def faults(host: str, port: int) -> list[str]:
    """Run all clients of the table, many at once; return the faults of their replies."""
    turns = asyncio.Semaphore(CLIENTS_AT_ONCE)

    async def fault(client: BadClient) -> str | None:
        async with turns:
            try:
                return wrong(client, await play(host, port, client))
            except TimeoutError:
                return f"{client.name}: the connection stays open"

    return [found for found in await asyncio.gather(*map(fault, ALL)) if found]


def wrong(client: BadClient, played: Played) -> str | None:
    """Return the fault of a client's replies, or None."""
    statuses = played.statuses
    if client.then != "reads":
        return None
    last = statuses[-1] if statuses else None
    if last not in client.statuses:
        return f"{client.name}: {statuses} instead of {client.statuses}"
    if 503 in statuses and b"retry-after: " not in played.received:
        return f"{client.name}: a 503 that does not say when to come back"
    if any(status >= 500 and status != 503 for status in statuses):
        return f"{client.name}: {statuses}"
    if last is not None and last >= 400 and b'"error":' not in played.received:
        return f"{client.name}: {last} is not told in JSON"
    return None


async def test_bad_clients_leave_no_task_and_no_connection(serve_api: ServeApi, database_url: str) -> None:
    """No bad client gets a 5xx other than 503, and each connection and task ends in time."""
    async with serve_api(database_url=database_url, request_idle_seconds=IDLE_SECONDS, keep_alive_seconds=5) as api:
        assert (await api.get("/readyz")).status_code == 200
        before = asyncio.all_tasks()
        assert await faults(api.base_url.host, api.base_url.port or 0) == []
        await eventually(lambda: not {task for task in asyncio.all_tasks() - before if serves(task)})
        assert (await api.get("/readyz")).status_code == 200
    with psycopg.connect(database_url) as connection:
        unfinished = connection.execute("SELECT count(*) FROM \"VerificationJob\" WHERE status <> 'queued'").fetchone()
    assert unfinished == (0,)


def serves(task: asyncio.Task[object]) -> bool:
    """Return whether the task serves a request."""
    return "run_asgi" in repr(task.get_coro())


@asynccontextmanager
async def api_process(folder: Path) -> AsyncIterator[tuple[str, int, int]]:
    """Start ``iidq serve`` with home and temporary files in ``folder``; yield host, port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "DATABASE_URL": NO_DATABASE,
            "RPC_URL": "http://rpc.invalid/",
            "SYNC_FALLBACK": "off",
            "RATE_LIMIT_SUBMIT_PER_MINUTE": "0",
            "RATE_LIMIT_READ_PER_MINUTE": "0",
            "REQUEST_IDLE_SECONDS": str(IDLE_SECONDS),
            "KEEP_ALIVE_SECONDS": "5",
            "LOG_LEVEL": "error",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "iidq", "serve", "--fd", str(listener.fileno()),
            env=environment, cwd=folder, pass_fds=[listener.fileno()], stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    assert process.stderr is not None
    said = asyncio.create_task(process.stderr.read())
    try:
        # The listener is bound already, so the first request waits until the server is ready.
        async with httpx.AsyncClient(timeout=60) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/livez")).status_code == 200
        yield "127.0.0.1", port, process.pid
    finally:
        process.terminate()
        await process.wait()
    assert await said == b"", "an error was logged"


def open_files(pid: int) -> dict[str, int]:
    """Return the number of open files of a process by kind."""
    found: dict[str, int] = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        kind = target.split(":", 1)[0]
        found[kind] = found.get(kind, 0) + 1
    return found


def all_below(folder: Path) -> list[Path]:
    """Return all files and folders below ``folder``."""
    return sorted(folder.rglob("*"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
async def test_bad_clients_leave_no_file_and_no_connection_in_a_real_process(tmp_path: Path) -> None:
    """After all bad clients the server process has no more open files, no new file and no logged error."""
    async with api_process(tmp_path) as (host, port, pid):
        await play(host, port, BadClient("warms up", form(GOOD_FIELDS + part('name="file"; filename="x"')), ()))
        before = await eventually(lambda: open_files(pid))
        files = all_below(tmp_path)
        assert await faults(host, port) == []
        await eventually(lambda: open_files(pid) == before or None)
        assert all_below(tmp_path) == files


async def test_slow_clients_do_not_slow_others(serve_api: ServeApi) -> None:
    """Other clients are served while 200 connections send heads slowly."""
    slow = BadClient("drips", [head(length=9)[:-2], *[b"X: y\r\n"] * 20], (408,), pause_seconds=0.1)
    async with serve_api(request_idle_seconds=IDLE_SECONDS) as api:
        host, port = api.base_url.host, api.base_url.port or 0
        dripping = [asyncio.create_task(play(host, port, slow)) for _ in range(200)]
        while not all(task.done() for task in dripping):
            assert (await api.get("/livez")).status_code == 200
        assert {tuple(task.result().statuses) for task in dripping} == {(408,)}


async def test_a_good_request_before_garbage_keeps_its_reply(api: httpx.AsyncClient, database_url: str) -> None:
    """Bytes after a request never destroy its reply: the reply comes, and then the connection closes."""
    body = GOOD_FIELDS + part('name="file"; filename="x"') + b"--b--\r\n"
    client = BadClient("sends too much", [head(length=len(body), close=False) + body + b"\x00garbage"], (200,))
    played = await play(api.base_url.host, api.base_url.port or 0, client)
    assert played.statuses == [200]
    assert b"connection: close" in played.received


async def test_pipelined_uploads_are_all_served(api: httpx.AsyncClient, database_url: str) -> None:
    """Pipelined requests with bodies of both framings each get their reply, in order."""
    body = GOOD_FIELDS + part('name="file"; filename="x"', bytes(200_000)) + b"--b--\r\n"
    declared = head(length=len(body), close=False) + body
    chunked = head("Transfer-Encoding: chunked", close=False) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    last = head(length=5) + b"wrong"
    client = BadClient("hurries", [declared + chunked + declared + last], (400,))
    played = await play(api.base_url.host, api.base_url.port or 0, client)
    assert played.statuses == [200, 200, 200, 400]


async def test_a_connection_is_kept_for_its_time(serve_api: ServeApi) -> None:
    """Idle connections close after the keep-alive time, by default longer than a load balancer's 60 s."""
    async with serve_api(keep_alive_seconds=0.05) as api:
        client = BadClient("stays", [b"GET /livez HTTP/1.1\r\nHost: api\r\n\r\n"], (200,))
        played = await play(api.base_url.host, api.base_url.port or 0, client)
    assert played.statuses == [200]
    assert b"connection: close" not in played.received
    assert Settings(_env_file=None).keep_alive_seconds > 60
