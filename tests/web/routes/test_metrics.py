"""Test GET /metrics on a real API and a real socket."""

import asyncio
import json
import random
import string
from typing import Any

import httpx
import psycopg
import pytest

from iidq.observability.metrics import REGISTRY
from iidq.queue.read import queue_health
from iidq.web import reads
from tests.exposition_format import samples, value
from tests.job_rows import insert
from tests.web.serving import JOBS, ServeApi

CONTENT_HASH = "0x" + "ab" * 32
FIELDS = {"registryAddress": "0x" + "11" * 20, "manifestURI": "https://example.org/m.json"}


async def scrape(api: httpx.AsyncClient) -> str:
    reply = await api.get("/metrics")
    assert reply.status_code == 200
    return reply.text


async def test_requests_are_counted_by_route_and_status(api: httpx.AsyncClient) -> None:
    """A request counts under its route's template and status, for any path and query, with its duration."""
    before = await scrape(api)
    for path in ("a", "b?x=1", "0190b5a0-0000-7000-8000-000000000000"):
        assert (await api.get(f"{JOBS}/{path}")).status_code == 404
    after = await scrape(api)
    labels = {"method": "GET", "route": f"{JOBS}/{{job_id}}", "status": "404"}
    name = "iidq_http_requests_total"
    assert value(after, name, **labels) - value(before, name, **labels) == 3
    route = {"route": labels["route"]}
    name = "iidq_http_request_duration_seconds_count"
    assert value(after, name, **route) - value(before, name, **route) == 3


async def test_refused_requests_count_with_their_route(serve_api: ServeApi) -> None:
    """401, 429, 414 and preflights count under the route of the request."""
    async with serve_api(api_key="s3cret", api_key_scope="all", rate_limit_submit_per_minute=1) as api:
        key = {"x-api-key": "s3cret"}
        before = (await api.get("/metrics", headers=key)).text
        assert [(await api.post(f"{JOBS}/verify")).status_code for _ in range(2)] == [401, 429]
        assert (await api.get(f"{JOBS}/a?{'x' * 9000}")).status_code == 414
        preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        assert (await api.options(f"{JOBS}/verify", headers=preflight)).status_code == 204
        after = (await api.get("/metrics", headers=key)).text
    name = "iidq_http_requests_total"
    for method, path, status in (
        ("POST", "verify", "401"),
        ("POST", "verify", "429"),
        ("OPTIONS", "verify", "204"),
        ("GET", "{job_id}", "414"),
    ):
        labels = {"method": method, "route": f"{JOBS}/{path}", "status": status}
        assert value(after, name, **labels) - value(before, name, **labels) == 1


async def test_uploads_are_counted(api: httpx.AsyncClient) -> None:
    """A complete upload counts with its bytes and its duration."""
    before = await scrape(api)
    reply = await api.post(f"{JOBS}/verify", data=FIELDS, files={"file": ("x", b"x" * 12_345)})
    assert reply.status_code == 200
    after = await scrape(api)
    grown = {
        name: value(after, name) - value(before, name)
        for name in ("iidq_uploads_total", "iidq_upload_bytes_total", "iidq_upload_duration_seconds_count")
    }
    assert list(grown.values()) == [1, 12_345, 1]


async def test_strangers_make_no_series(api: httpx.AsyncClient) -> None:
    """Paths, methods and headers made up by clients create no new series."""
    host, port = str(api.base_url.host), api.base_url.port
    draw = random.Random(8)
    words = []

    async def bother(count: int) -> None:
        for _ in range(count):
            word = "".join(draw.choices(string.ascii_letters, k=12))
            words.append(word)
            method = draw.choice(["GET", "POST", "DELETE", "PATCH", "PUT", "OPTIONS", "REPORT", "PURGE", "MKCOL"])
            path = draw.choice(["/", f"{JOBS}/", "/api/"]) + word
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(f"{method} {path}?{word} HTTP/1.1\r\nHost: {word}\r\nConnection: close\r\n\r\n".encode())
            await reader.read()
            writer.close()

    await bother(150)
    first = list(samples(await scrape(api)))
    await bother(150)
    second = list(samples(await scrape(api)))
    # The second round meets the same few routes, methods and statuses, except for a rare pair.
    assert len(second) <= len(first) + 20
    templates = {sample.labels["route"] for sample in second if "route" in sample.labels}
    assert {"unmatched", f"{JOBS}/{{job_id}}"} <= templates
    assert not [template for template in templates for word in words if word in template]
    methods = {sample.labels["method"] for sample in second if "method" in sample.labels}
    assert methods <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    assert "other" in methods


async def test_the_queue_is_told_by_state(api: httpx.AsyncClient, database_url: str) -> None:
    """The metrics show depth and age of each state from the database, with workers and pause."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        insert(sql, copies=3)
        sql.execute('UPDATE "VerificationJob" SET "runAt" = now() - interval \'90 s\' WHERE ready')
        sql.execute("SELECT pause_queue('lunch')")
    text = await scrape(api)
    assert value(text, "iidq_database_up") == 1
    assert value(text, "iidq_queue_jobs", state="waiting") == 3
    assert value(text, "iidq_queue_jobs", state="failed") == 0
    assert 90 <= value(text, "iidq_queue_oldest_seconds", state="waiting") < 400
    assert value(text, "iidq_queue_paused") == 1
    assert value(text, "iidq_queue_workers") == 0


async def test_scrapes_share_a_query(api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many scrapes within a second share one query."""
    asked = 0
    read = queue_health.read_health

    async def counted(connection: Any) -> Any:
        nonlocal asked
        asked += 1
        return await read(connection)

    monkeypatch.setattr(reads, "read_health", counted)
    monkeypatch.setattr(reads, "KEEP_SECONDS", 3600.0)
    await asyncio.gather(*(scrape(api) for _ in range(5)))
    await scrape(api)
    assert asked == 1


async def test_metrics_survive_the_database(lonely_api: httpx.AsyncClient) -> None:
    """Without a database the API serves its own metrics and reports the loss."""
    text = await scrape(lonely_api)
    assert value(text, "iidq_database_up") == 0
    assert not [sample for sample in samples(text) if sample.name.startswith("iidq_queue_")]
    assert value(text, "iidq_build_info") == 1


async def test_metrics_need_the_key(serve_api: ServeApi) -> None:
    """With ``API_KEY`` set, metrics need the key."""
    async with serve_api(api_key="s3cret") as api:
        assert (await api.get("/metrics")).status_code == 401
        assert (await api.get("/metrics", headers={"x-api-key": "wrong"})).status_code == 401
        for headers in ({"x-api-key": "s3cret"}, {"Authorization": "Bearer s3cret"}):
            assert (await api.get("/metrics", headers=headers)).status_code == 200


async def test_openmetrics_where_it_is_asked_for(lonely_api: httpx.AsyncClient) -> None:
    """The metrics format depends on ``Accept``, as expected by Prometheus."""
    plain = await lonely_api.get("/metrics")
    modern = await lonely_api.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert plain.headers["content-type"].startswith("text/plain")
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")


async def test_synchronous_runs_are_counted(lonely_api: httpx.AsyncClient) -> None:
    """A legacy call counts with its outcome."""
    before = REGISTRY.get_sample_value("iidq_synchronous_runs_total", {"outcome": "failed"}) or 0
    reply = await lonely_api.post(
        "/api/verify", json={**FIELDS, "manifestURI": "https://manifests.invalid/m.json", "contentHash": CONTENT_HASH}
    )
    assert reply.status_code >= 400
    assert REGISTRY.get_sample_value("iidq_synchronous_runs_total", {"outcome": "failed"}) == before + 1


async def test_readiness_tells_who_listens(api: httpx.AsyncClient, database_url: str) -> None:
    """``/readyz`` shows the database, the number of live workers, and the number of listening workers."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        sql.execute(
            "INSERT INTO iidq_queue_worker"
            ' ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil")'
            " SELECT n::text, 'h', n, '1', 3, 0, n = 1, now() + interval '1 min' FROM generate_series(1, 2) AS n"
        )
    body = json.loads((await api.get("/readyz")).text)
    assert (body["status"], body["database"]) == ("ready", "ok")
    assert body["queue"] == {"workers": 2, "listeningWorkers": 1, "paused": False}
