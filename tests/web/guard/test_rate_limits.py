"""Test rate limits over HTTP, in one process and in two."""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from iidq.embedded.processes import IidqProcess
from tests.eventually import eventually
from tests.web.request.test_submit import CONTENT, CONTENT_HASH, FIELDS
from tests.web.serving import JOBS, ServeApi

KEY = "a-key-of-the-operator"
QUESTION = {**FIELDS, "contentHash": CONTENT_HASH}


async def statuses(api: httpx.AsyncClient, count: int, **headers: str) -> list[int]:
    """Read ``count`` times in sequence; return the statuses."""
    replies = [await api.get(f"{JOBS}/~none", headers=headers) for _ in range(count)]
    return [reply.status_code for reply in replies]


async def test_one_request_too_many_is_429(serve_api: ServeApi, database_url: str) -> None:
    """A request over the limit gives 429 with the contract's body and headers and the time to retry, and no job."""
    async with serve_api(database_url=database_url, rate_limit_submit_per_minute=2) as api:
        first, second, third = [await api.post(f"{JOBS}/verify", json=QUESTION) for _ in range(3)]
        count = (await api.get(JOBS)).json()["count"]
    assert [first.status_code, second.status_code, third.status_code, count] == [200, 200, 429, 2]
    seconds = int(third.headers["retry-after"])
    assert 1 <= seconds <= 60
    assert third.json() == {
        "error": "Too Many Requests",
        "message": "Rate limit exceeded: at most 2 submissions per minute. Please try again later.",
        "retryAfter": seconds,
    }
    assert third.headers["ratelimit"] == f'"submit";r=0;t={seconds}'
    assert "x-correlation-id" in third.headers


async def test_every_limited_reply_tells_what_remains(serve_api: ServeApi) -> None:
    """Every limited reply gives the remaining requests, in the draft's form and the replaced system's form."""
    async with serve_api(rate_limit_read_per_minute=5) as api:
        reply = await api.get(f"{JOBS}/~none")
    assert reply.headers["ratelimit-policy"] == '"read";q=5;w=60'
    told = re.fullmatch(r'"read";r=4;t=([0-9]+)', reply.headers["ratelimit"])
    assert told is not None
    assert 1 <= int(told[1]) <= 60
    assert [reply.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == ["5", "4", told[1]]


async def test_without_limits_no_word_of_them(lonely_api: httpx.AsyncClient) -> None:
    """With a limit of 0, replies have no rate limit headers."""
    reply = await lonely_api.get(f"{JOBS}/~none")
    assert [name for name in reply.headers if name.startswith("ratelimit")] == []


@pytest.mark.parametrize("path", [f"{JOBS}/verify", f"{JOBS}/proof", f"{JOBS}/batch", "/api/verify", "/api/proof"])
async def test_all_submissions_share_their_limit(serve_api: ServeApi, path: str) -> None:
    """All submissions share one limit: synchronous, batch (counted once) and bad submissions. Reads are separate."""
    async with serve_api(rate_limit_submit_per_minute=1) as api:
        await api.post(f"{JOBS}/verify", json={})
        assert (await api.post(path, json={})).status_code == 429
        assert (await api.get(f"{JOBS}/~none")).status_code == 404


async def test_health_and_metrics_are_never_limited(serve_api: ServeApi, database_url: str) -> None:
    """Probes and scrapers have no limit and use none."""
    async with serve_api(database_url=database_url, rate_limit_read_per_minute=1) as api:
        for path in ("/livez", "/readyz", "/api/health", "/metrics", "/metrics"):
            assert (await api.get(path)).status_code != 429
        assert await statuses(api, 2) == [404, 429]
        assert (await api.get("/livez")).status_code == 200


async def test_a_refused_upload_is_not_read(serve_api: ServeApi) -> None:
    """An upload over the limit gives 429 before the body is read, and the connection closes."""
    async with serve_api(rate_limit_submit_per_minute=1) as api:
        await api.post(f"{JOBS}/verify", json={})
        reply = await api.post(f"{JOBS}/verify", data=FIELDS, files={"file": ("x", CONTENT * 10_000)})
    assert (reply.status_code, reply.headers["connection"]) == (429, "close")


async def test_who_holds_the_key_has_a_limit_of_its_own(serve_api: ServeApi) -> None:
    """The key has a separate, higher limit, independent of the address; a wrong key counts for the address."""
    async with serve_api(api_key=KEY, rate_limit_read_per_minute=1, rate_limit_key_factor=3) as api:
        assert await statuses(api, 2) == [404, 429]
        assert await statuses(api, 1, **{"x-api-key": "wrong"}) == [429]
        assert await statuses(api, 4, **{"x-api-key": KEY}) == [404, 404, 404, 429]
        assert await statuses(api, 1, Authorization=f"Bearer {KEY}") == [429]


async def test_wrong_keys_cannot_be_tried_without_end(serve_api: ServeApi) -> None:
    """A 401 reply counts against the address."""
    async with serve_api(api_key=KEY, api_key_scope="all", rate_limit_read_per_minute=2) as api:
        assert await statuses(api, 3, **{"x-api-key": "guess"}) == [401, 401, 429]


async def test_clients_behind_a_trusted_proxy_are_counted_apart(serve_api: ServeApi) -> None:
    """Clients behind a trusted proxy have separate limits; entries from the client have no effect."""
    async with serve_api(trusted_proxies="127.0.0.0/8", rate_limit_read_per_minute=1) as api:
        assert await statuses(api, 2, **{"X-Forwarded-For": "203.0.113.1"}) == [404, 429]
        assert await statuses(api, 1, **{"X-Forwarded-For": "203.0.113.2"}) == [404]
        assert await statuses(api, 1, **{"X-Forwarded-For": "203.0.113.3, 203.0.113.2"}) == [429]
        assert await statuses(api, 1, **{"X-Forwarded-For": "2001:db8::1"}) == [404]
        assert await statuses(api, 1, **{"X-Forwarded-For": "2001:db8::2"}) == [429]


async def test_a_strangers_forwarded_for_is_worth_nothing(serve_api: ServeApi) -> None:
    """Without trusted proxies, ``X-Forwarded-For`` gives no new limit."""
    async with serve_api(rate_limit_read_per_minute=1) as api:
        assert await statuses(api, 1, **{"X-Forwarded-For": "203.0.113.1"}) == [404]
        assert await statuses(api, 1, **{"X-Forwarded-For": "203.0.113.2"}) == [429]


async def test_idempotency_keys_belong_to_the_client_behind_the_proxy(serve_api: ServeApi, database_url: str) -> None:
    """Two clients behind one proxy with the same idempotency key get separate jobs."""
    async with serve_api(database_url=database_url, trusted_proxies="127.0.0.1") as api:
        jobs = []
        for client in ("203.0.113.1", "203.0.113.2", "203.0.113.1"):
            headers = {"X-Forwarded-For": client, "Idempotency-Key": "order-1"}
            jobs.append((await api.post(f"{JOBS}/verify", json=QUESTION, headers=headers)).json()["jobId"])
    assert jobs[0] == jobs[2] != jobs[1]


async def test_limits_hold_without_a_database(serve_api: ServeApi) -> None:
    """Rate limits hold without a database, per process."""
    async with serve_api(rate_limit_read_per_minute=3) as api:
        assert await statuses(api, 4) == [404, 404, 404, 429]


async def test_an_endless_url_is_refused(lonely_api: httpx.AsyncClient) -> None:
    """A URL over 8 KiB gives 414."""
    reply = await lonely_api.get(f"{JOBS}?cursor={'x' * 8192}")
    assert reply.status_code == 414
    assert reply.json()["correlationId"] == reply.headers["x-correlation-id"]
    assert (await lonely_api.get(f"{JOBS}/{'x' * 8000}")).status_code == 404


@asynccontextmanager
async def api_process(database_url: str, log_path: Path, **environment: str) -> AsyncIterator[httpx.AsyncClient]:
    """Start ``iidq serve`` as a process; yield a client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = ["iidq", "serve", "--fd", str(listener.fileno())]
        settings = {"DATABASE_URL": database_url, "RPC_URL": "http://rpc.invalid/", **environment}
        process = IidqProcess("api", arguments, settings, log_path=log_path, keep_open=[listener.fileno()])
        process.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url, timeout=30) as api:
                await api.get("/livez")
                yield api
        finally:
            await process.stop()


async def test_two_processes_keep_one_limit(database_url: str, tmp_path: Path) -> None:
    """Requests accepted by one process count in the other process after the next exchange of counts."""
    assert "RATE_LIMIT_READ_PER_MINUTE" not in os.environ
    limit = {"RATE_LIMIT_READ_PER_MINUTE": "100", "LOG_LEVEL": "error", "REDIS_URL": ""}
    async with AsyncExitStack() as stack:
        first, second = await asyncio.gather(
            *(stack.enter_async_context(api_process(database_url, tmp_path / name, **limit)) for name in ("1", "2"))
        )
        assert await statuses(first, 95) == [404] * 95
        with psycopg.connect(database_url, autocommit=True) as connection:
            await eventually(
                lambda: connection.execute("SELECT sum(requests) = 95 FROM iidq_rate_count").fetchone() == (True,)
            )
        remaining = [100]
        async with asyncio.timeout(15):
            while remaining[-1] > 5:
                reply = await second.get(f"{JOBS}/~none")
                remaining.append(int(reply.headers["ratelimit-remaining"]))
                await asyncio.sleep(0.05)
        unknowing = len(remaining) - 2
        afterwards = [status != 429 for status in await statuses(second, 10)]
    # Before the exchange the process counts only its own requests; afterwards the requests of both.
    assert remaining[: unknowing + 1] == list(range(100, 99 - unknowing, -1))
    assert remaining[-1] == max(0, 100 - 95 - unknowing - 1)
    assert sum(afterwards) == remaining[-1]
