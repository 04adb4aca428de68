"""Test that direct routes and the router give the same replies and headers, for any form of request."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from iidq.observability import logs, metrics
from iidq.queue.read import readers
from iidq.web.server.direct import DirectRoutes, SinglePieceIO
from tests.eventually import eventually
from tests.job_rows import COMPLETED, insert
from tests.web.serving import JOBS, ServeApi

VALID = {"contentHash": "0x" + "ab" * 32, "manifestURI": "https://example.org/m", "registryAddress": "0x" + "cd" * 20}
UNKNOWN = "00000000-0000-7000-8000-000000000000"
_VARYING = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f-]{17}|[0-9a-f]{32}")


@pytest.fixture
def sql(database_url: str) -> Any:
    """Connect to the database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def _ask_all(client: httpx.AsyncClient, job_id: str) -> list[tuple[int, list[str], bytes]]:
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{JOBS}/verify", {"json": VALID}),
        ("POST", f"{JOBS}/proof", {"json": VALID, "headers": {"Prefer": "respond-async"}}),
        ("POST", f"{JOBS}/verify", {"data": VALID, "files": {"file": ("a.txt", b"abc")}}),
        ("POST", f"{JOBS}/verify", {"json": {**VALID, "chainId": 0}}),
        ("POST", f"{JOBS}/verify", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        ("POST", f"{JOBS}/verify", {"content": b"x" * 70_000, "headers": {"Content-Type": "application/json"}}),
        ("POST", f"{JOBS}/verify", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
        ("POST", f"{JOBS}/verify", {"json": VALID, "headers": {"Idempotency-Key": "no blanks"}}),
        ("GET", f"{JOBS}/verify", {}),
        ("GET", f"{JOBS}/{job_id}", {}),
        ("HEAD", f"{JOBS}/{job_id}", {}),
        ("GET", f"{JOBS}/{job_id}", {"headers": {"If-None-Match": "*"}}),
        ("GET", f"{JOBS}/{job_id}", {"headers": {"Connection": "close"}}),
        ("GET", f"{JOBS}/{UNKNOWN}", {}),
        ("GET", f"{JOBS}/{'x' * 36}", {}),
        ("DELETE", f"{JOBS}/{job_id}", {}),
    ]
    replies = [await client.request(method, path, **how) for method, path, how in asked]
    return [(r.status_code, sorted(r.headers), _VARYING.sub(b"ID", r.content)) for r in replies]


async def test_both_ways_answer_alike(
    serve_api: ServeApi, database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status, headers and body of a direct route equal the router's, for good and bad requests."""
    job_id = str(insert(sql, COMPLETED))
    async with serve_api(database_url=database_url) as client:
        short = await _ask_all(client, job_id)

    async def usual_way(self: DirectRoutes, scope: Scope, receive: Receive, send: Send) -> None:
        scope.pop("single_piece", None)
        await self._app(scope, receive, send)

    monkeypatch.setattr(DirectRoutes, "__call__", usual_way)
    async with serve_api(database_url=database_url) as client:
        assert await _ask_all(client, job_id) == short


LANES = ("short", "short, in pieces", "router", "router, in pieces")


@dataclass(slots=True)
class _Lanes:
    """An API with a selectable lane, and its counts and logs."""

    client: httpx.AsyncClient
    """A client of the API."""
    jobs: dict[str, str]
    """The ids of the jobs, by state."""
    lane: str = LANES[0]
    """The selected lane, one of ``LANES``. Default: the direct route."""
    logged: list[Any] = field(default_factory=list)
    """The logged requests, without durations."""
    counted: list[Any] = field(default_factory=list)
    """The counted requests, without durations."""

    async def ask(self, method: str, path: str, headers: list[tuple[str, str]], body: "_Body") -> Any:
        """Return the visible reply without random values, with log and metrics."""
        self.logged.clear()
        self.counted.clear()
        reply = await self.client.request(
            method, JOBS + path.format(**self.jobs), headers=headers, content=body() if callable(body) else body
        )
        await eventually(lambda: self.logged and self.counted)
        keyed = reply.status_code == 200 and any(name == "Idempotency-Key" for name, _ in headers)

        def plain(text: bytes) -> bytes:
            # Under one key all lanes find the same job; without a key each lane creates a job.
            return text if keyed else _VARYING.sub(b"ID", text)

        fields = sorted(
            (name, b"" if name.startswith(b"ratelimit") else plain(value))
            for name, value in reply.headers.raw
            if name != b"date"
        )
        return reply.status_code, fields, plain(reply.content), list(self.logged), list(self.counted)


@pytest.fixture
async def lanes(
    serve_api: ServeApi, database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[_Lanes]:
    jobs = {"ended": str(insert(sql, COMPLETED)), "queued": str(insert(sql)), "unknown": UNKNOWN}
    async with serve_api(
        database_url=database_url,
        api_key="open sesame",
        cors_origins=["https://page.example"],
        trusted_proxies=["127.0.0.1"],
        rate_limit_submit_per_minute=1_000_000,
        rate_limit_read_per_minute=1_000_000,
    ) as client:
        lanes = _Lanes(client, jobs)
        short: Callable[..., Awaitable[None]] = DirectRoutes.__call__

        async def chosen(self: DirectRoutes, scope: Scope, receive: Receive, send: Send) -> None:
            if lanes.lane.endswith("in pieces"):
                scope.pop("single_piece", None)
            if lanes.lane.startswith("short"):
                await short(self, scope, receive, send)
            else:
                await self._app(scope, receive, send)

        def logged(
            correlation_id: str, method: str, path: str, route: str, status: int, duration_ms: float, client: str
        ) -> None:
            lanes.logged.append((correlation_id, method, path, route, status, client))

        def counted(method: str, route: str, status: int, seconds: float) -> None:
            lanes.counted.append((method, route, status))

        monkeypatch.setattr(DirectRoutes, "__call__", chosen)
        monkeypatch.setattr(logs, "request_served", logged)
        monkeypatch.setattr(metrics, "request_served", counted)
        yield lanes


async def _in_chunks() -> AsyncIterator[bytes]:
    yield json.dumps(VALID).encode()[:20]
    yield json.dumps(VALID).encode()[20:]


_Body = bytes | Callable[[], AsyncIterator[bytes]]
_FORM = httpx.Request("POST", "http://x/", data=VALID, files={"file": ("a.txt", b"abc")})
_JSON = ("Content-Type", "application/json")
_SUBMISSION: tuple[_Body, list[tuple[str, str]]] = (json.dumps(VALID).encode(), [_JSON])
_BATCH: tuple[_Body, list[tuple[str, str]]] = (json.dumps({"jobs": [{**VALID, "type": "proof"}]}).encode(), [_JSON])
_BODIES: list[tuple[_Body, list[tuple[str, str]]]] = [
    (b"", []),
    (b"", [_JSON]),
    _SUBMISSION,
    (json.dumps(VALID).encode(), [("Content-Type", "Application/JSON; charset=utf-8")]),
    (json.dumps(VALID).encode(), [_JSON, ("Content-Encoding", "gzip")]),
    (json.dumps(VALID).encode(), [("Content-Type", "text/plain")]),
    (json.dumps({**VALID, "chainId": 0, "share": 1}).encode(), [_JSON]),
    (json.dumps({**VALID, "fileName": "ä\u2028.txt"}).encode(), [_JSON]),
    _BATCH,
    (b"[1]", [_JSON]),
    (b"{", [_JSON]),
    (b" " * 70_000, [_JSON]),
    (_in_chunks, [_JSON]),
    (b"".join(_FORM.stream), [("Content-Type", _FORM.headers["content-type"])]),  # type: ignore[arg-type]
]
_PATHS = [
    "/verify",
    "/proof",
    "/{ended}",
    "/{queued}",
    "/{unknown}",
    "/{ended}?after=all",
    "/" + "x" * 36,
    "/%41" + "x" * 35,
    "/%2F" + "x" * 35,
    "/" + "x" * 36 + "/",
    "/verify/",
    "/verify?x=1",
    "/batch",
    "/pause",
]
_HEADERS = [
    ("Prefer", "respond-async"),
    ("Prefer", "wait=0"),
    ("If-None-Match", "*"),
    ("If-None-Match", '"other"'),
    ("Idempotency-Key", "{key}"),
    ("Idempotency-Key", "{key}"),
    ("Idempotency-Key", "no blanks"),
    ("Origin", "https://page.example"),
    ("Origin", "https://other.example"),
    ("Access-Control-Request-Method", "POST"),
    ("x-api-key", "open sesame"),
    ("Authorization", "Bearer wrong"),
    ("X-Forwarded-For", "192.0.2.7, 198.51.100.1"),
    ("X-Forwarded-Prefix", "/iidq"),
    ("X-Forwarded-Prefix", "//evil.example"),
    ("Connection", "close"),
    ("Expect", "100-continue"),
]
_EXAMPLES = itertools.count()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["POST", "POST", "POST", "GET", "GET", "GET", "HEAD", "OPTIONS", "DELETE"]),
    path=st.sampled_from(_PATHS),
    headers=st.lists(st.sampled_from(_HEADERS), max_size=4),
    body=st.sampled_from(_BODIES),
)
@example("POST", "/batch", [("x-api-key", "open sesame")], _BATCH)
@example("GET", "/{ended}", [], _SUBMISSION)
@example("POST", "/verify", [("Idempotency-Key", "{key}"), ("Origin", "https://page.example")], _SUBMISSION)
async def test_no_request_can_tell_the_lanes_apart(
    lanes: _Lanes, method: str, path: str, headers: list[tuple[str, str]], body: tuple[_Body, list[tuple[str, str]]]
) -> None:
    """Reply, headers (CORS and ``Connection`` included), access log, metrics and keys are the same on each lane."""
    content, described = body
    number = f"example-{next(_EXAMPLES)}"
    sent = [(name, value.format(key=number)) for name, value in headers]
    sent += [*described, ("X-Correlation-ID", number)]
    seen = {}
    for lanes.lane in LANES:
        seen[lanes.lane] = await lanes.ask(method, path, sent, content)
    assert seen == dict.fromkeys(LANES, seen["router, in pieces"])


async def _raw(client: httpx.AsyncClient, *pieces: bytes, replies: int = 1) -> list[bytes]:
    """Send each piece after the previous piece; return the replies' status lines and bodies."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            # The server reads the piece before the next piece.
            await client.get("/livez")
        found = []
        for _ in range(replies):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            found.append(head.split(b"\r\n")[0] + b" " + await reader.readexactly(int(length[1])))
        return found
    finally:
        writer.close()


def _post(**headers: str) -> tuple[bytes, bytes]:
    body = json.dumps(VALID).encode()
    lines = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {JOBS}/verify HTTP/1.1\r\n{head}\r\n".encode(), body


async def test_a_body_may_come_in_pieces(api: httpx.AsyncClient) -> None:
    """A body split at any place gives the same request, and the connection serves the next request."""
    head, body = _post()
    for pieces in (
        [head + body],
        [head, body],
        [head[:30], head[30:], body[:40], body[40:]],
        [head + body[:1], body[1:]],
    ):
        [reply] = await _raw(api, *pieces)
        assert b" 200 " in reply
        assert b'"status":"queued"' in reply
    replies = await _raw(api, head + body + head + body, head + body, replies=3)
    assert len({reply for reply in replies if b'"status":"queued"' in reply}) == 3


async def test_pollers_share_a_statement(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many concurrent reads share a few statements and each get the right job; later reads see every change."""
    ids = [str(insert(sql)) for _ in range(20)]
    statements = 0
    find_changed = readers.find_changed

    async def counted(*arguments: Any) -> Any:
        nonlocal statements
        statements += 1
        await asyncio.sleep(0.05)
        return await find_changed(*arguments)

    monkeypatch.setattr(readers, "find_changed", counted)
    replies = await asyncio.gather(*(api.get(f"{JOBS}/{job_id}") for job_id in ids * 3))
    assert [reply.json()["id"] for reply in replies] == ids * 3
    assert statements < 30
    sql.execute('UPDATE "VerificationJob" SET priority = 5, "fileName" = %s WHERE id = %s', ["new.txt", ids[0]])
    assert (await api.get(f"{JOBS}/{ids[0]}")).json()["fileName"] == "new.txt"
    sql.execute('DELETE FROM "VerificationJob" WHERE id = %s', [ids[1]])
    gone, there = await asyncio.gather(api.get(f"{JOBS}/{ids[1]}"), api.get(f"{JOBS}/{ids[2]}"))
    assert (gone.status_code, there.status_code) == (404, 200)


class _Cycle:
    """The part of uvicorn's cycle needed for a reply."""

    response_started = disconnected = response_complete = False
    keep_alive = True
    default_headers: list[tuple[bytes, bytes]] = []  # noqa: RUF012
    flow = type("Flow", (), {"write_paused": False})


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb", b"a\0b"])
def test_no_header_can_become_two(value: bytes) -> None:
    """A header value with a line break raises an error and is never sent."""
    with pytest.raises(ValueError, match="more than one line"):
        SinglePieceIO(_Cycle()).reply(200, [(b"x", value)], b"")  # type: ignore[arg-type]


def test_the_last_reply_goes_the_way_that_closes() -> None:
    """A reply with ``Connection: close`` goes through the router, because only the router closes the connection."""
    cycle = _Cycle()
    cycle.default_headers = [(b"date", b"today"), (b"connection", b"close")]
    assert not SinglePieceIO(cycle).reply(200, [(b"content-length", b"0")], b"")  # type: ignore[arg-type]
    assert not cycle.response_started
