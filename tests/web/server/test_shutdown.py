"""Test the stop of an API process: running requests end, late requests are refused, no job is lost."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from starlette.applications import Starlette

from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.server import api_server as server_module
from iidq.web.server.api_server import ApiServer
from tests.eventually import eventually
from tests.job_rows import CONTENT_HASH, MANIFEST_URI, REGISTRY_ADDRESS
from tests.web.serving import JOBS, NO_LIMITS

FIELDS = {"registryAddress": REGISTRY_ADDRESS, "manifestURI": MANIFEST_URI, "contentHash": CONTENT_HASH}
BODY = json.dumps(FIELDS).encode()
HEAD = b"POST %b/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
    JOBS.encode(),
    len(BODY),
)


class _Server(ApiServer):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # pytest handles the signals.
        yield


class Serving:
    """A running API server inside the test process."""

    def __init__(self, app: Starlette, server: ApiServer, task: asyncio.Task[None], port: int) -> None:
        self.app = app
        self.server = server
        self.task = task
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a new connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def stops_listening(self) -> None:
        """Wait until no connection is accepted."""
        await eventually(self._is_deaf)

    def _is_deaf(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) != 0


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


@pytest.fixture
def serve(database_url: str) -> Serve:
    """Start API servers; each is stopped at the end of its ``async with`` and must then end."""

    @asynccontextmanager
    async def run(**variables: Any) -> AsyncIterator[Serving]:
        defaults: dict[str, Any] = {"database_url": database_url, "rpc_url": "http://rpc.invalid/", **NO_LIMITS}
        settings = Settings(_env_file=None, **{**defaults, **variables})
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        app = create_app(settings)
        server = _Server(app, settings)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await eventually(lambda: server.started)
        try:
            yield Serving(app, server, task, port)
        finally:
            if not task.done():
                server.ask_to_stop()
            await task

    return run


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and JSON of the next reply."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


def stored(database_url: str) -> set[str]:
    """Return the ids of all jobs."""
    with psycopg.connect(database_url) as connection:
        return {str(job_id) for (job_id,) in connection.execute('SELECT id FROM "VerificationJob"')}


async def test_readiness_goes_first(serve: Serve) -> None:
    """For ``SHUTDOWN_DELAY_SECONDS`` /readyz gives 503, and requests are still served."""
    async with serve(shutdown_delay_seconds=300) as serving, httpx.AsyncClient(base_url=serving.url) as client:
        assert (await client.get("/readyz")).status_code == 200
        serving.server.ask_to_stop()
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        assert int(ready.headers["retry-after"]) > 0
        assert (await client.get("/livez")).status_code == 200
        assert (await client.post(f"{JOBS}/verify", json=FIELDS)).status_code == 200
        serving.server.ask_to_stop()
        await serving.task
        assert serving.server.force_exit


async def test_an_upload_under_way_may_end(serve: Serve, database_url: str) -> None:
    """At shutdown the server waits for the rest of a body; the reply is sent and closes the connection."""
    async with serve() as serving:
        reader, writer = await serving.connect()
        writer.write(HEAD + BODY[:20])
        await eventually(lambda: serving.server.server_state.tasks)
        serving.server.ask_to_stop()
        await serving.stops_listening()
        writer.write(BODY[20:])
        status, headers, reply = await read_reply(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await reader.read() == b""
        writer.close()
        await serving.task
        assert stored(database_url) == {reply["jobId"]}


async def test_an_upload_that_does_not_end_is_told_to_come_back(serve: Serve, database_url: str) -> None:
    """After ``DRAIN_TIMEOUT_SECONDS`` an unfinished upload gets a 503, not a cut connection."""
    async with serve(drain_timeout_seconds=0.2) as serving:
        reader, writer = await serving.connect()
        writer.write(HEAD + BODY[:20])
        await eventually(lambda: serving.server.server_state.tasks)
        serving.server.ask_to_stop()
        status, headers, reply = await read_reply(reader)
        assert (status, reply["code"], headers["connection"]) == (503, "service.stopping", "close")
        assert int(headers["retry-after"]) > 0
        assert reply["correlationId"] == headers["x-correlation-id"]
        writer.close()
        await serving.task
        assert stored(database_url) == set()


async def test_a_kept_connection_may_bring_one_more_request(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept connection may bring one more request during shutdown, served with ``Connection: close``."""
    monkeypatch.setattr(server_module, "QUIET_SECONDS", 3600.0)
    async with serve() as serving:
        connections = [await serving.connect() for _ in range(2)]
        for reader, writer in connections[:1]:
            writer.write(HEAD + BODY)
            status, headers, _ = await read_reply(reader)
            assert (status, headers.get("connection")) == (200, None)
        await eventually(lambda: len(serving.server.server_state.connections) == 2)
        serving.server.ask_to_stop()
        await serving.stops_listening()
        for reader, writer in connections:
            writer.write(HEAD + BODY)
            status, headers, _ = await read_reply(reader)
            assert (status, headers["connection"]) == (200, "close")
            assert await reader.read() == b""
            writer.close()


async def test_silent_connections_do_not_hold_up_the_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections, used or unused, are closed at shutdown, and the process ends."""
    monkeypatch.setattr(server_module, "QUIET_SECONDS", 0.0)
    async with serve(drain_timeout_seconds=3600) as serving:
        used, unused = await serving.connect(), await serving.connect()
        used[1].write(HEAD + BODY)
        assert (await read_reply(used[0]))[0] == 200
        await eventually(lambda: len(serving.server.server_state.connections) == 2)
        serving.server.ask_to_stop()
        for reader, writer in (used, unused):
            assert await reader.read() == b""
            writer.close()
        await serving.task


async def test_who_waits_for_a_job_is_answered_at_once(serve: Serve) -> None:
    """A request waiting for a job gets its reply at shutdown, as after its wait."""
    async with serve(drain_timeout_seconds=3600) as serving, httpx.AsyncClient(base_url=serving.url) as client:
        waiting = asyncio.create_task(client.post(f"{JOBS}/verify", json=FIELDS, headers={"Prefer": "wait=60"}))
        service = serving.app.state.service
        await eventually(lambda: service.watching.watchers)
        serving.server.ask_to_stop()
        reply = await waiting
        assert (reply.status_code, reply.json()["status"]) == (202, "queued")


async def test_acknowledged_is_stored(serve: Serve, database_url: str) -> None:
    """At shutdown each submission waiting for a commit gets its reply, and its row is stored."""
    async with serve() as serving, httpx.AsyncClient(base_url=serving.url, timeout=30) as client:
        async with await psycopg.AsyncConnection.connect(database_url) as lock:
            await lock.execute('LOCK TABLE "VerificationJob" IN ACCESS EXCLUSIVE MODE')
            sent = [asyncio.create_task(client.post(f"{JOBS}/verify", json=FIELDS)) for _ in range(50)]
            await eventually(lambda: len(serving.server.server_state.tasks) == len(sent))
            serving.server.ask_to_stop()
            await serving.stops_listening()
        replies = await asyncio.gather(*sent)
        await serving.task
        assert {reply.status_code for reply in replies} == {200}
        assert {reply.json()["jobId"] for reply in replies} == stored(database_url)
