"""Bad clients over real sockets: each gets an answer that fits, or none, and all of them together leave nothing."""

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
    """No client gets a 5xx, each connection ends in time, and so does every task."""
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
    """A request's task, not one of the app's own."""
    return "run_asgi" in repr(task.get_coro())


@asynccontextmanager
async def api_process(folder: Path) -> AsyncIterator[tuple[str, int, int]]:
    """``iidq serve`` with home and temporary files in ``folder``: host, port, process id."""
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
        # The listener is bound already, so the first request waits until it is served.
        async with httpx.AsyncClient(timeout=60) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/livez")).status_code == 200
        yield "127.0.0.1", port, process.pid
    finally:
        process.terminate()
        await process.wait()
    assert await said == b"", "an error was logged"


def open_files(pid: int) -> dict[str, int]:
    """Open files of a process, by kind; regular files by name."""
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
    """Files and folders."""
    return sorted(folder.rglob("*"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
async def test_bad_clients_leave_no_file_and_no_connection_in_a_real_process(tmp_path: Path) -> None:
    """After all of them the server process has as much open as before, wrote no file, and logged no error."""
    async with api_process(tmp_path) as (host, port, pid):
        await play(host, port, BadClient("warms up", form(GOOD_FIELDS + part('name="file"; filename="x"')), ()))
        before = await eventually(lambda: open_files(pid))
        files = all_below(tmp_path)
        assert await faults(host, port) == []
        await eventually(lambda: open_files(pid) == before or None)
        assert all_below(tmp_path) == files


async def test_slow_clients_do_not_slow_others(serve_api: ServeApi) -> None:
    """While hundreds of connections drip heads and bodies, others are served as if they were alone."""
    slow = BadClient("drips", [head(length=9)[:-2], *[b"X: y\r\n"] * 20], (408,), pause_seconds=0.1)
    async with serve_api(request_idle_seconds=IDLE_SECONDS) as api:
        host, port = api.base_url.host, api.base_url.port or 0
        dripping = [asyncio.create_task(play(host, port, slow)) for _ in range(200)]
        while not all(task.done() for task in dripping):
            assert (await api.get("/livez")).status_code == 200
        assert {tuple(task.result().statuses) for task in dripping} == {(408,)}


async def test_a_good_request_before_garbage_keeps_its_reply(api: httpx.AsyncClient, database_url: str) -> None:
    """Bytes behind a request never destroy its reply: the reply comes, and then the connection closes."""
    body = GOOD_FIELDS + part('name="file"; filename="x"') + b"--b--\r\n"
    client = BadClient("sends too much", [head(length=len(body), close=False) + body + b"\x00garbage"], (200,))
    played = await play(api.base_url.host, api.base_url.port or 0, client)
    assert played.statuses == [200]
    assert b"connection: close" in played.received


async def test_pipelined_uploads_are_all_served(api: httpx.AsyncClient, database_url: str) -> None:
    """Requests that arrive in one piece, behind bodies of both framings, each get their reply, in order."""
    body = GOOD_FIELDS + part('name="file"; filename="x"', bytes(200_000)) + b"--b--\r\n"
    declared = head(length=len(body), close=False) + body
    chunked = head("Transfer-Encoding: chunked", close=False) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    last = head(length=5) + b"wrong"
    client = BadClient("hurries", [declared + chunked + declared + last], (400,))
    played = await play(api.base_url.host, api.base_url.port or 0, client)
    assert played.statuses == [200, 200, 200, 400]


async def test_a_connection_is_kept_for_its_time(serve_api: ServeApi) -> None:
    """Idle connections stay open longer than those of load balancers (60 s), then close."""
    async with serve_api(keep_alive_seconds=0.05) as api:
        client = BadClient("stays", [b"GET /livez HTTP/1.1\r\nHost: api\r\n\r\n"], (200,))
        played = await play(api.base_url.host, api.base_url.port or 0, client)
    assert played.statuses == [200]
    assert b"connection: close" not in played.received
    assert Settings(_env_file=None).keep_alive_seconds > 60
