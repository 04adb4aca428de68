"""The API process while Postgres breaks, falls silent and comes back: the circuit, and the replies."""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from iidq.database import pool
from iidq.database.migrate import migrate
from iidq.embedded.postgres import EmbeddedPostgres, free_port
from iidq.web import availability
from iidq.web.synchronous import SynchronousVerification
from tests.eventually import eventually
from tests.faults.database.silent_proxy import SilentProxy
from tests.job_rows import CONTENT_HASH, REGISTRY_ADDRESS
from tests.web.conftest import serve_api  # noqa: F401 — a fixture
from tests.web.serving import JOBS, ServeApi

NOBODY = {"registryAddress": REGISTRY_ADDRESS, "manifestURI": "http://127.0.0.1:9/m", "contentHash": CONTENT_HASH}
"""Nothing listens at this address: a synchronous verification ends with a fault of its upstream."""


def processed_at_once(reply: httpx.Response) -> bool:
    """Return whether the verification ran inside the request."""
    return reply.status_code == 503 and reply.json()["code"].startswith(("fetch.", "rpc."))


async def until(api: httpx.AsyncClient, circuit: str) -> None:
    """Wait for the circuit's state in ``/readyz``."""
    async with asyncio.timeout(30):
        while (await api.get("/readyz")).json()["circuit"] != circuit:  # noqa: ASYNC110 — seen from outside
            await asyncio.sleep(0.01)


@pytest.fixture
def nobody_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the requests' own deadlines, so that only the circuit ends requests."""
    monkeypatch.setattr(pool, "WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(pool, "ANSWER_SECONDS", 3600.0)


@pytest.fixture
def tcp_server() -> Iterator[EmbeddedPostgres]:
    """A migrated server on a TCP port."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        # Run by root, the server has another account, which must pass here.
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "postgres", port=free_port(), options={"fsync": "off"})
        server.start()
        try:
            migrate(server.url)
            yield server
        finally:
            server.close()


@asynccontextmanager
async def proxied(server: EmbeddedPostgres) -> AsyncIterator[tuple[SilentProxy, asyncio.Server, str]]:
    """A proxy in front of the server, its listener, and the URL through the proxy."""
    assert server.port is not None
    proxy = SilentProxy(server.port)
    listener = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy, listener, f"postgresql://iidq@127.0.0.1:{proxy.port}/iidq"
    finally:
        listener.close()
        await proxy.end()


def test_the_loss_is_noticed_within_two_seconds_and_the_return_within_five() -> None:
    """A lost database is noticed within 2 s and its return within 5 s, by the sum of the times on the longest way."""
    pause = availability.PROBE_INTERVAL_SECONDS
    assert pause + availability.PROBE_ANSWER_SECONDS + availability.RECONNECT_SECONDS <= 2
    assert pause + 2 * availability.CONNECT_SECONDS <= 5


@pytest.mark.usefixtures("nobody_gives_up")
async def test_nobody_waits_for_a_database_that_is_away(serve_api: ServeApi) -> None:  # noqa: F811
    """No request waits for a database that is away: submissions run synchronously, and reads get 503."""
    async with serve_api(fetch_allow_private=("127.0.0.1",)) as api:
        for _ in range(2):
            replies = await asyncio.gather(*(api.post(f"{JOBS}/verify", json=NOBODY) for _ in range(20)))
            assert all(map(processed_at_once, replies))
            refused = await api.get(JOBS)
            assert (refused.status_code, refused.json()["code"]) == (503, "database.unavailable")
        await until(api, "open")


@pytest.mark.usefixtures("nobody_gives_up")
async def test_it_stops_and_starts(serve_api: ServeApi, own_server: EmbeddedPostgres) -> None:  # noqa: F811
    """The circuit follows an outage of Postgres: jobs, then synchronous replies, then jobs again, without a restart."""
    async with serve_api(database_url=own_server.url, fetch_allow_private=("127.0.0.1",)) as api:
        assert (await api.post(f"{JOBS}/verify", json=NOBODY)).json()["mode"] == "async"
        await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
        assert processed_at_once(await api.post(f"{JOBS}/verify", json=NOBODY))
        await until(api, "open")
        await asyncio.to_thread(own_server.start)
        await until(api, "closed")
        assert (await api.post(f"{JOBS}/verify", json=NOBODY)).json()["mode"] == "async"
        assert (await api.get("/readyz")).status_code == 200


@pytest.mark.usefixtures("nobody_gives_up")
async def test_it_falls_silent(serve_api: ServeApi, tcp_server: EmbeddedPostgres) -> None:  # noqa: F811
    """A submission on a database fallen silent is processed synchronously, and the circuit opens."""
    private = {"fetch_allow_private": ("127.0.0.1",)}
    async with proxied(tcp_server) as (proxy, listener, url), serve_api(database_url=url, **private) as api:
        assert (await api.post(f"{JOBS}/verify", json=NOBODY)).json()["mode"] == "async"
        await eventually(lambda: proxy.accepted >= 2)
        listener.close()
        proxy.fall_silent()
        assert processed_at_once(await api.post(f"{JOBS}/verify", json=NOBODY))
        await until(api, "open")


@pytest.mark.usefixtures("nobody_gives_up")
async def test_only_the_lines_die(serve_api: ServeApi, tcp_server: EmbeddedPostgres) -> None:  # noqa: F811
    """A statement on a lost connection is sent again on a new connection, as long as the server is well."""
    private = {"fetch_allow_private": ("127.0.0.1",)}
    async with proxied(tcp_server) as (proxy, _, url), serve_api(database_url=url, **private) as api:
        first = await api.post(f"{JOBS}/verify", json=NOBODY)
        await eventually(lambda: proxy.accepted >= 2)
        await until(api, "closed")
        proxy.fall_silent()
        reply = await api.get(first.headers["location"])
        assert (reply.status_code, reply.json()["status"]) == (200, "queued")
        assert (await api.post(f"{JOBS}/verify", json=NOBODY)).json()["mode"] == "async"


async def test_a_stream_of_requests_through_outages(
    serve_api: ServeApi,  # noqa: F811
    own_server: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every reply through outages is a stored job, a synchronous result or a clean 503.

    The table may hold more jobs than acknowledged: at most one for each other reply, by an insert with a lost answer.
    """
    jobs: list[str] = []
    others: list[httpx.Response] = []
    done = asyncio.Event()

    async def verify(*_: object) -> dict[str, str]:
        return {"status": "OK"}

    # The verification itself is not under test.
    monkeypatch.setattr(SynchronousVerification, "_run", verify)

    async def submit(api: httpx.AsyncClient, fields: dict[str, Any]) -> None:
        while not done.is_set():
            reply = await api.post(f"{JOBS}/verify", json=fields)
            if reply.status_code == 200 and reply.json()["mode"] == "async":
                jobs.append(reply.json()["jobId"])
            else:
                others.append(reply)

    async def more(of: Callable[[], int], replies: int) -> None:
        wanted = of() + replies
        await eventually(lambda: of() >= wanted, 60)

    async with serve_api(database_url=own_server.url, fetch_allow_private=("127.0.0.1",)) as api:
        clients = [asyncio.create_task(submit(api, NOBODY)) for _ in range(8)]
        for how in (signal.SIGINT, signal.SIGQUIT):
            await more(lambda: len(jobs), 100)
            await asyncio.to_thread(own_server.stop, how)
            await more(lambda: len(others), 50)
            await asyncio.to_thread(own_server.start)
        await more(lambda: len(jobs), 100)
        done.set()
        await asyncio.gather(*clients)
    for reply in others:
        if reply.status_code != 200:
            assert (reply.status_code, int(reply.headers["retry-after"]) > 0) == (503, True), reply.text
            assert reply.json()["correlationId"] == reply.headers["x-correlation-id"]
        else:
            assert reply.json() == {"mode": "sync", "result": {"status": "OK"}}
    with psycopg.connect(own_server.url) as connection:
        stored = {str(job_id) for (job_id,) in connection.execute('SELECT id FROM "VerificationJob"')}
    assert len(jobs) == len(set(jobs))
    assert set(jobs) <= stored
    assert len(stored) - len(jobs) <= len(others)
