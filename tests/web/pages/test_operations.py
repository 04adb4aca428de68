"""Test the operations page over HTTP: access, changes, and the cost of viewers."""

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest

from iidq.queue.identifiers import new_job_id
from iidq.web.operations import operations_routes
from iidq.web.operations.operations_access import OperationsAccess
from iidq.web.pages import PAGE_POLICY
from tests.job_rows import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PROCESSING,
    QUEUED,
    Sql,
    insert,
    read,
    statuses,
)
from tests.web.serving import ServeApi

PAGE = "/admin/queues"
DATA = f"{PAGE}/data"
KEY = "open sesame"
SIGHTS = ("snapshot", "jobs", f"jobs/{new_job_id()}")
CHANGES = (f"jobs/{new_job_id()}/cancel", f"jobs/{new_job_id()}/retry", "failures/retry", "pause", "resume", "sign-out")


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the operator."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def sign_in(api: httpx.AsyncClient, key: str = KEY) -> None:
    """Sign the client in."""
    reply = await api.post(f"{DATA}/sign-in", json={"key": key})
    assert reply.status_code == 200
    api.headers["X-CSRF-Token"] = reply.json()["csrfToken"]


async def come_in(api: httpx.AsyncClient) -> None:
    """Start a session without a key."""
    api.headers["X-CSRF-Token"] = (await api.get(f"{DATA}/session")).json()["csrfToken"]


async def test_with_a_key_nothing_is_seen_or_changed_without_it(serve_api: ServeApi, database_url: str) -> None:
    """With a key set, the empty page is served; data and changes give 401 without sign-in."""
    async with serve_api(database_url=database_url, api_key=KEY, api_key_scope="all") as api:
        for path in (PAGE, f"{PAGE}/jobs", f"{PAGE}/jobs/{new_job_id()}"):
            assert (await api.get(path)).status_code == 200
        session = (await api.get(f"{DATA}/session")).json()
        assert session == {"access": "key", "signedIn": False, "csrfToken": None}
        for headers in ({}, {"Cookie": "iidq_session=2000000000.x.y"}):
            for path in SIGHTS:
                assert (await api.get(f"{DATA}/{path}", headers=headers)).status_code == 401
            for path in CHANGES:
                assert (await api.post(f"{DATA}/{path}", headers=headers, json={})).status_code == 401


@pytest.mark.parametrize("key", ["", "open sesam", "open sesame ", "öpen", 7, None, [KEY]])
async def test_a_wrong_key_opens_no_session(serve_api: ServeApi, key: object) -> None:
    """A wrong key gives 401 and no cookie, even if the key is not a text."""
    async with serve_api(api_key=KEY) as api:
        reply = await api.post(f"{DATA}/sign-in", json={"key": key})
    assert reply.status_code == 401
    assert "set-cookie" not in reply.headers


async def test_the_session_cookie_is_for_this_service_alone(serve_api: ServeApi, database_url: str) -> None:
    """The session cookie is HttpOnly, SameSite=Strict, valid for 12 hours, and Secure over https."""
    async with serve_api(database_url=database_url, api_key=KEY) as api:
        reply = await api.post(f"{DATA}/sign-in", json={"key": KEY})
        cookie = reply.headers["set-cookie"].lower()
        for rule in ("httponly", "samesite=strict", "path=/", "max-age=43200"):
            assert rule in cookie
        assert "secure" not in cookie
        assert KEY not in cookie
        proxied = await api.post(f"{DATA}/sign-in", json={"key": KEY}, headers={"X-Forwarded-Proto": "https"})
        assert "secure" in proxied.headers["set-cookie"].lower()


async def test_a_session_sees_and_ends(serve_api: ServeApi, database_url: str) -> None:
    """A signed-in client gets data, uncached; after sign-out the client gets 401."""
    async with serve_api(database_url=database_url, api_key=KEY) as api:
        await sign_in(api)
        for path in SIGHTS[:2]:
            reply = await api.get(f"{DATA}/{path}")
            assert reply.status_code == 200
            assert reply.headers["cache-control"] in ("no-store", "no-cache, private")
        assert (await api.get(f"{DATA}/session")).json()["csrfToken"] == api.headers["X-CSRF-Token"]
        assert (await api.post(f"{DATA}/sign-out")).status_code == 200
        assert (await api.get(f"{DATA}/snapshot")).status_code == 401


async def test_no_change_without_the_csrf_token(
    serve_api: ServeApi, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """A change needs the CSRF token of its own session; a missing or foreign token gives 403."""
    job_id = insert(sql)
    async with serve_api(database_url=database_url, api_key=KEY) as api:
        await sign_in(api)
        others = api.headers["X-CSRF-Token"]
        await sign_in(api)
        right = api.headers.pop("X-CSRF-Token")
        for token in ("", others, "é"):
            for path in (*CHANGES, f"jobs/{job_id}/cancel"):
                headers = {b"X-CSRF-Token": token.encode()} if token else {}
                reply = await api.post(f"{DATA}/{path}", json={}, headers=headers)
                assert reply.status_code == 403
                assert "X-CSRF-Token" in reply.json()["error"]
        assert read(sql, job_id)["status"] == "queued"
        assert (await api.post(f"{DATA}/jobs/{job_id}/cancel", headers={"X-CSRF-Token": right})).status_code == 200
    assert read(sql, job_id)["status"] == "cancelled"


async def test_the_key_itself_needs_no_session(serve_api: ServeApi, database_url: str) -> None:
    """A script with the API key in a header may read and change without a session."""
    async with serve_api(database_url=database_url, api_key=KEY) as api:
        api.headers["x-api-key"] = KEY
        assert (await api.get(f"{DATA}/snapshot")).status_code == 200
        assert (await api.post(f"{DATA}/pause", json={"reason": "x"})).json() == {"paused": True, "reason": "x"}


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:8080"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("key", [KEY, None])
async def test_another_sites_page_gets_nothing(
    serve_api: ServeApi, database_url: str, headers: dict[str, str], key: str | None
) -> None:
    """A page of another site gets neither data nor changes, even with cookie and token, and no CORS header."""
    async with serve_api(database_url=database_url, api_key=key) as api:
        await (sign_in(api) if key else come_in(api))
        for path in SIGHTS:
            assert (await api.get(f"{DATA}/{path}", headers=headers)).status_code == 403
        for path in (*CHANGES, "sign-in"):
            assert (await api.post(f"{DATA}/{path}", headers=headers, json={})).status_code == 403
        own = await api.get(f"{DATA}/snapshot", headers={"Origin": str(api.base_url).rstrip("/")})
        assert own.status_code == 200
        assert "access-control-allow-origin" not in own.headers


async def test_without_a_key_the_machine_itself_is_let_in(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """Without a key, a client on the same machine may read; a change needs the CSRF token."""
    assert (await api.get(f"{DATA}/snapshot")).status_code == 200
    assert (await api.post(f"{DATA}/pause", json={})).status_code == 403
    session = (await api.get(f"{DATA}/session")).json()
    assert (session["access"], session["signedIn"]) == ("loopback", True)
    assert (await api.post(f"{DATA}/pause", json={})).status_code == 403
    await come_in(api)
    assert (await api.post(f"{DATA}/pause", json={})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Prefix": "/iidq"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        # A foreign host name resolved to this machine (DNS rebinding).
        {"Host": "evil.example"},
        {"Host": "evil.example:3001"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
    ],
    ids=str,
)
async def test_without_a_key_nobody_else_is(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Without a key, access through a proxy or by another host name gives 403 with an explanation."""
    page = await api.get(PAGE, headers=headers)
    assert page.status_code == 403
    assert "Set API_KEY" in page.text
    assert page.headers["content-security-policy"] == PAGE_POLICY
    for path in (*SIGHTS, "session"):
        reply = await api.get(f"{DATA}/{path}", headers=headers)
        assert reply.status_code == 403
        assert "Set API_KEY" in reply.json()["error"]
        assert "set-cookie" not in reply.headers
    assert (await api.post(f"{DATA}/pause", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    ("peer", "host", "is_closed"),
    [
        ("127.0.0.1", "localhost:3001", False),
        ("127.8.8.8", "127.0.0.1", False),
        ("::1", "[::1]:3001", False),
        ("::ffff:127.0.0.1", "LOCALHOST", False),
        ("192.0.2.7", "localhost:3001", True),
        ("2001:db8::1", "[::1]:3001", True),
        ("10.0.0.1", "10.0.0.2:3001", True),
        ("", "localhost", True),
        (None, "localhost", True),
    ],
)
def test_who_is_the_machine_itself(peer: str | None, host: str, is_closed: bool) -> None:
    """Access without a key depends on the peer address and the host name, not on forwarding headers."""
    from starlette.requests import Request

    from iidq.settings import Settings

    scope = {
        "type": "http",
        "client": None if peer is None else (peer, 4711),
        "headers": [(b"host", host.encode())],
        "path": PAGE,
    }
    settings = Settings(_env_file=None, trusted_proxies="192.0.2.0/24,2001:db8::/32")
    assert OperationsAccess(settings).is_closed(Request(scope)) is is_closed


async def test_pages_are_strict(api: httpx.AsyncClient) -> None:
    """Pages have no inline script or style and no foreign resource; a page with its assets is below 150 kB."""
    reply = await api.get(PAGE)
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "<style" not in reply.text
    assert "style=" not in reply.text
    assert "onclick" not in reply.text
    assets = set(reply.text.split('"')) & {part for part in reply.text.split('"') if part.startswith("/assets/")}
    bodies = [await api.get(asset) for asset in assets]
    assert all(body.status_code == 200 for body in bodies)
    assert sum(len(body.content) for body in [reply, *bodies]) < 150_000
    assert (await api.get(f"{PAGE}/jobs/~7")).status_code == 404


async def test_the_snapshot_tells_the_state(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """The snapshot has counts, ages, workers with leases, rates, durations, failures by cause and the parts."""
    insert(sql, copies=3, createdAt=Sql("now() - interval '1 minute'"), runAt=Sql("now() - interval '1 minute'"))
    insert(sql, PROCESSING, workerId="here:1:a", copies=2)
    insert(sql, PROCESSING, workerId="gone:2:b", leaseUntil=Sql("now() - interval '5 s'"))
    insert(sql, FAILED, copies=4)
    insert(sql, FAILED, error="rpc.unavailable: https://user:hidden@rpc.example/ is down")
    insert(sql, COMPLETED, attempt=1, startedAt=Sql("now() - interval '3 s'"), runAt=Sql("now() - interval '4 s'"),
           createdAt=Sql("now() - interval '4 s'"))  # fmt: skip
    sql.execute(
        'INSERT INTO iidq_queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil")'
        " VALUES ('here:1:a', 'here', 1, '0.1.0', 3, 2, true, now() + interval '1 minute')"
    )
    told = (await api.get(f"{DATA}/snapshot")).json()
    assert (told["available"], told["circuit"]) == (True, "closed")
    assert told["redis"]["state"] in (("up", "open") if "REDIS_URL" in os.environ else ("off",))
    queue = told["queue"]
    states = ("waiting", "active", "delayed", "completed", "failed", "cancelled")
    assert [queue[state] for state in states] == [3, 3, 0, 1, 5, 0]
    assert queue["oldestWaitingSeconds"] >= 60
    assert (queue["expiredLeases"], queue["workers"], queue["slots"], queue["listeningWorkers"]) == (1, 1, 3, 1)
    gone, here = told["workers"]
    assert (gone["workerId"], gone["alive"], gone["leases"], gone["host"]) == ("gone:2:b", False, 1, None)
    assert gone["leaseSeconds"] < 0
    assert (here["workerId"], here["alive"], here["leases"], here["concurrency"]) == ("here:1:a", True, 2, 3)
    assert 0 < here["leaseSeconds"] <= 60
    lately = told["lately"]
    assert len(lately["rates"]) == 60
    assert sum(rate["enqueued"] for rate in lately["rates"]) == 3
    [ran] = [minute["ran"] for minute in lately["durations"] if minute["ran"]]
    assert ran == pytest.approx([3.0, 3.0], abs=0.1)
    causes = {cause["cause"]: cause for cause in lately["causes"]}
    assert {cause: (told["jobs"], told["lately"]) for cause, told in causes.items()} == {
        "manifest.missing": (4, 4),
        "rpc.unavailable": (1, 1),
    }
    assert "hidden" not in json.dumps(told)


async def test_all_viewers_share_one_snapshot_a_second(
    serve_api: ServeApi, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty simultaneous viewers cost one read of the queue; without viewers there is no read."""
    readings: list[str] = []
    from iidq.web.operations import operations_snapshot

    def counted(name: str) -> None:
        original = getattr(operations_snapshot, name)

        async def reading(connection: Any) -> Any:
            readings.append(name)
            return await original(connection)

        monkeypatch.setattr(operations_snapshot, name, reading)

    counted("read_live_overview")
    counted("read_recent_overview")
    monkeypatch.setattr(operations_snapshot, "KEEP_SECONDS", 3600.0)
    async with serve_api(database_url=database_url) as api:
        assert readings == []
        replies = await asyncio.gather(*(api.get(f"{DATA}/snapshot") for _ in range(30)))
        assert sorted(readings) == ["read_live_overview", "read_recent_overview"]
        [tag] = {reply.headers["etag"] for reply in replies}
        assert (await api.get(f"{DATA}/snapshot", headers={"If-None-Match": tag})).status_code == 304
    assert len(readings) == 2


async def test_without_a_database_the_snapshot_says_so(lonely_api: httpx.AsyncClient) -> None:
    """Without a database the snapshot gives a reason without Postgres' own text."""
    told = (await lonely_api.get(f"{DATA}/snapshot")).json()
    assert told["available"] is False
    assert told["reason"] == "the database cannot be reached"
    assert (await lonely_api.get(f"{DATA}/jobs")).status_code == 503


async def ids(api: httpx.AsyncClient, **query: str) -> list[str]:
    """Return the job ids of one page."""
    reply = await api.get(f"{DATA}/jobs", params=query)
    assert reply.status_code == 200, reply.text
    return [job["id"] for job in reply.json()["jobs"]]


async def test_each_state_is_listed_in_its_order(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """Waiting jobs are listed in queue order, delayed by due time, active longest first, all others newest first."""

    def aged(*bases: dict[str, Any], column: str, seconds: int, **columns: Any) -> str:
        return str(insert(sql, *bases, **{column: Sql(f"now() - interval '{seconds} s'"), **columns}))

    late, early = (aged(column="runAt", seconds=age) for age in (10, 90))
    proof = aged(column="runAt", seconds=100, type="proof")
    soon, later = (aged(column="runAt", seconds=-age, ready=False) for age in (60, 600))
    short, long = (aged(PROCESSING, column="startedAt", seconds=age) for age in (1, 50))
    new, old = (aged(COMPLETED, column="createdAt", seconds=age) for age in (7200, 9200))
    failed = aged(FAILED, column="createdAt", seconds=8000)
    cancelled = aged(CANCELLED, column="createdAt", seconds=8100)
    assert await ids(api, state="waiting") == [early, proof, late]
    assert await ids(api, state="delayed") == [soon, later]
    assert await ids(api, state="active") == [long, short]
    assert await ids(api, state="completed") == [new, old]
    assert (await ids(api, state="failed"), await ids(api, state="cancelled")) == ([failed], [cancelled])
    assert (await ids(api))[-4:] == [new, failed, cancelled, old]
    assert len(await ids(api)) == 11


@pytest.mark.parametrize("state", ["", "waiting", "delayed", "active", "completed", "failed", "cancelled"])
async def test_pages_follow_one_another(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Every job appears on exactly one page, even with equal times, and the last page has no cursor."""
    monkeypatch.setattr(operations_routes, "PAGE_JOBS", 3)
    later = {"runAt": Sql("now() + interval '1 hour'"), "ready": False}
    moment = Sql("now() - (generate_series / 4) * interval '1 s'")
    for base in ({}, later, PROCESSING, COMPLETED, FAILED, CANCELLED):
        insert(sql, QUEUED, base, createdAt=moment, copies=8)
    seen: list[str] = []
    query = {"state": state}
    while True:
        page = (await api.get(f"{DATA}/jobs", params=query)).json()
        assert len(page["jobs"]) <= 3
        seen += [job["id"] for job in page["jobs"]]
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    assert len(seen) == len(set(seen)) == (8 if state else 48)


async def test_search_by_id_hash_manifest_and_registry(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """The search finds ids, hashes and registries in any case, and manifests by a part of the address."""
    insert(sql, COMPLETED, copies=5)
    one_hash, one_registry = "0x" + "7f" * 32, "0x" + "Ab" * 20
    by_hash = [
        str(insert(sql, base, contentHash=one_hash)) for base in (COMPLETED, PROCESSING, {**QUEUED, "type": "proof"})
    ]
    by_manifest = str(insert(sql, FAILED, manifestUri="https://example.org/a%20b/Song.json"))
    by_registry = str(insert(sql, COMPLETED, registryAddress=one_registry))
    assert await ids(api, search=by_manifest.upper()) == [by_manifest]
    assert sorted(await ids(api, search=one_hash.upper().replace("X", "x"))) == sorted(by_hash)
    assert await ids(api, search=one_hash, state="active") == by_hash[1:2]
    assert await ids(api, search=" a%20b/Song ") == [by_manifest]
    assert await ids(api, search="Song.json", state="completed") == []
    assert await ids(api, search=one_registry.lower()) == [by_registry]
    assert await ids(api, search=str(new_job_id())) == []
    assert await ids(api, search="' OR 1=1 --") == []


async def test_a_rare_match_is_looked_for_step_by_step(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One search request reads a bounded number of rows and reports the cut; the next request continues."""
    monkeypatch.setattr(operations_routes, "REACH", 4)
    oldest = str(
        insert(sql, COMPLETED, manifestUri="https://rare.example/m", createdAt=Sql("now() - interval '1 day'"))
    )
    insert(sql, COMPLETED, copies=10)
    found, requests = [], 0
    query = {"search": "rare.example"}
    while True:
        page = (await api.get(f"{DATA}/jobs", params=query)).json()
        requests += 1
        found += [job["id"] for job in page["jobs"]]
        assert page["cut"] == (page["nextCursor"] is not None)
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    assert (found, requests) == ([oldest], 3)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"state": "queued"}, "state"),
        ({"cursor": "x"}, "cursor"),
        ({"search": "x" * 2049}, "search"),
        ({"cause": "\0"}, "cause"),
    ],
)
async def test_bad_queries_are_named(api: httpx.AsyncClient, query: dict[str, str], field: str) -> None:
    """A bad query gives 400 with the field's name."""
    reply = await api.get(f"{DATA}/jobs", params=query)
    assert reply.status_code == 400
    assert [fault["field"] for fault in reply.json()["errors"]] == [field]


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'


async def test_hostile_text_stays_text(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """Hostile text is sent as JSON with ``nosniff``, and arrives unchanged."""
    uri = f"https://x.example/{HOSTILE}"
    job_id = insert(sql, FAILED, fileName=HOSTILE, manifestUri=uri, error=f"{HOSTILE}: {HOSTILE}")
    listed = await api.get(f"{DATA}/jobs", params={"cause": HOSTILE})
    shown = await api.get(f"{DATA}/jobs/{job_id}")
    snapshot = await api.get(f"{DATA}/snapshot")
    for reply in (listed, shown, snapshot):
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-content-type-options"] == "nosniff"
    [job] = listed.json()["jobs"]
    assert (job["fileName"], job["manifestUri"], job["error"]) == (HOSTILE, uri, f"{HOSTILE}: {HOSTILE}")
    assert shown.json()["job"]["fileName"] == HOSTILE
    assert snapshot.json()["lately"]["causes"][0]["cause"] == HOSTILE


async def test_a_jobs_page_tells_who_runs_it(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """A job's data contain the public job with worker, lease and trace; an unknown job gives 404."""
    trace = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    job_id = insert(sql, PROCESSING, workerId="here:1:a", traceContext=trace)
    told = (await api.get(f"{DATA}/jobs/{job_id}")).json()
    assert told["job"] == (await api.get(f"/api/verification-jobs/{job_id}")).json()
    assert (told["holder"]["workerId"], told["holder"]["traceId"]) == ("here:1:a", "0123456789abcdef0123456789abcdef")
    assert told["holder"]["leaseUntil"] > told["holder"]["at"]
    for other in (new_job_id(), "7"):
        assert (await api.get(f"{DATA}/jobs/{other}")).status_code == 404


async def test_changes_do_what_they_say(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """Cancel ends a job, retry queues a job again, pause stores its reason, resume ends the pause."""
    await come_in(api)
    waiting, failed = insert(sql), insert(sql, FAILED)
    assert (await api.post(f"{DATA}/jobs/{waiting}/cancel")).json()["status"] == "cancelled"
    assert (await api.post(f"{DATA}/jobs/{failed}/retry")).json()["status"] == "queued"
    assert (await api.post(f"{DATA}/jobs/{failed}/retry")).status_code == 409
    await api.post(f"{DATA}/pause", json={"reason": "gateway maintenance"})
    assert sql.execute("SELECT state, pause_reason FROM queue_health").fetchone() == ("paused", "gateway maintenance")
    await api.post(f"{DATA}/resume")
    assert sql.execute("SELECT pause_reason FROM queue_health").fetchone() == (None,)


async def test_a_group_of_failures_is_retried_in_bounded_batches(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group retry takes the failures of one cause in batches, without later failures; other failures stay."""
    monkeypatch.setattr(operations_routes, "RETRY_BATCH", 3)
    await come_in(api)
    insert(sql, FAILED, copies=7, error="rpc.unavailable: down")
    insert(sql, FAILED, error="rpc.unavailable.other: not the same")
    insert(sql, FAILED)
    asked: dict[str, Any] = {"cause": "rpc.unavailable"}
    first = (await api.post(f"{DATA}/failures/retry", json=asked)).json()
    assert (first["retried"], first["more"]) == (3, True)
    assert datetime.fromisoformat(first["before"]).tzinfo is not None
    insert(sql, FAILED, error="rpc.unavailable: failed again")
    asked["before"] = first["before"]
    batches = [(await api.post(f"{DATA}/failures/retry", json=asked)).json() for _ in range(2)]
    assert [(batch["retried"], batch["more"]) for batch in batches] == [(3, True), (1, False)]
    assert statuses(sql) == {"queued": 7, "failed": 3}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "cause"),
        ({"cause": 7}, "cause"),
        ({"cause": "a", "before": "x"}, "before"),
        ({"cause": "a", "before": "2026-01-01"}, "before"),
    ],
)
async def test_a_bad_group_is_named(api: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    """A bad group gives 400 with the field's name."""
    await come_in(api)
    reply = await api.post(f"{DATA}/failures/retry", json=body)
    assert reply.status_code == 400
    assert [fault["field"] for fault in reply.json()["errors"]] == [field]
