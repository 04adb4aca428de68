"""Test pages of other origins: submitting and reading depend on the settings; changing the queue is refused."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from starlette.routing import Route

from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.guard.admission import SAFE_METHODS, SUBMISSIONS
from iidq.web.operations.operations_access import is_operations_path
from tests.job_rows import FAILED, insert, read
from tests.web.serving import JOBS, NO_DATABASE, ServeApi

KEY = "open sesame"
NAMED = "https://app.example.org"
FIELDS = {
    "contentHash": "0x" + "ab" * 32,
    "manifestURI": "https://example.org/m",
    "registryAddress": "0x" + "cd" * 20,
}

FOREIGN: dict[str, dict[str, str]] = {
    "a foreign origin": {"Origin": "https://evil.example"},
    "no origin of its own": {"Origin": "null"},
    "another site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "another site without origin": {"Sec-Fetch-Site": "cross-site"},
    "another port": {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    "a lie about the host": {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"},
    "an origin that is none": {"Origin": "http://["},
    "an empty origin": {"Origin": ""},
    "a star": {"Origin": "*"},
}
OWN: dict[str, dict[str, str]] = {
    "no page": {},
    "our own page": {"Origin": "{own}"},
    "our own page, as the browser says": {"Origin": "http://renamed.example", "Sec-Fetch-Site": "same-origin"},
    "the address bar": {"Sec-Fetch-Site": "none"},
}
BODIES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "JSON": {"json": {"reason": "x"}},
    "text/plain": {"content": b'{"reason":"x"}', "headers": {"Content-Type": "text/plain"}},
    "no type": {"content": b'{"reason":"x"}'},
    "what curl -d sends": {
        "content": b'{"reason":"x"}',
        "headers": {"Content-Type": "application/x-www-form-urlencoded"},
    },
}


def changes() -> list[str]:
    """Return the path of every change except submissions and the operations page."""
    app = create_app(Settings(_env_file=None, database_url=NO_DATABASE, rpc_url="http://rpc.invalid/"))
    return sorted(
        route.path
        for route in app.routes
        if isinstance(route, Route)
        and (route.methods or set()) - SAFE_METHODS
        and route.path not in SUBMISSIONS
        and not is_operations_path(route.path)
    )


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def state(sql: psycopg.Connection[Any], *job_ids: UUID) -> Any:
    """Return everything that a change affects."""
    return sql.execute("SELECT state, pause_reason FROM queue_health").fetchone(), [read(sql, id_) for id_ in job_ids]


def as_sent(api: httpx.AsyncClient, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    own = str(api.base_url).rstrip("/")
    named = {name: value.format(own=own) for name, value in headers.items()}
    return {**body, "headers": {**body.get("headers", {}), **named}}


async def test_another_page_changes_nothing(api: httpx.AsyncClient, sql: psycopg.Connection[Any]) -> None:
    """Without a key, a change from a foreign page gives 403 with the cause, for any content type."""
    waiting, failed = insert(sql), insert(sql, FAILED)
    before = state(sql, waiting, failed)
    paths = changes()
    assert f"{JOBS}/pause" in paths
    for path in paths:
        url = path.replace("{job_id}", str(failed if path.endswith("retry") else waiting))
        for headers in FOREIGN.values():
            for body in BODIES.values():
                reply = await api.post(url, **as_sent(api, headers, body))
                assert (reply.status_code, reply.json().keys()) == (403, {"error", "correlationId"})
                assert "CORS_ORIGINS" in reply.json()["error"]
    assert state(sql, waiting, failed) == before


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_our_own_page_and_no_page_change_the_queue(
    api: httpx.AsyncClient, sql: psycopg.Connection[Any], headers: dict[str, str], body: dict[str, Any]
) -> None:
    """The service's own page, scripts and curl can change the queue, with or without a body of any type."""
    waiting, failed = insert(sql), insert(sql, FAILED)
    for path in (f"{waiting}/cancel", f"{failed}/retry", "pause", "resume"):
        reply = await api.post(f"{JOBS}/{path}", **as_sent(api, headers, body))
        assert reply.status_code == 200, path
        if path == "pause":
            assert state(sql)[0] == ("paused", "x" if body else None)


async def test_a_named_origin_changes_the_queue(serve_api: ServeApi, database_url: str) -> None:
    """Pages of an origin in `CORS_ORIGINS` can change the queue, except through the operations page."""
    async with serve_api(database_url=database_url, cors_origins=NAMED) as api:
        for headers in ({"Origin": NAMED}, {"Origin": NAMED, "Sec-Fetch-Site": "cross-site"}):
            reply = await api.post(f"{JOBS}/pause", headers=headers)
            assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, NAMED)
            assert (await api.post("/admin/queues/data/pause", headers=headers)).status_code == 403
        for origin in ("https://evil.example", "null", NAMED.upper(), f"{NAMED}.evil.example", f"{NAMED}:444"):
            assert (await api.post(f"{JOBS}/resume", headers={"Origin": origin})).status_code == 403


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_with_a_key_the_key_decides(serve_api: ServeApi, database_url: str, headers: dict[str, str]) -> None:
    """With a key set, only the key decides about changes."""
    async with serve_api(database_url=database_url, api_key=KEY) as api:
        sent = as_sent(api, headers, {})["headers"]
        assert (await api.post(f"{JOBS}/pause", headers=sent)).status_code == 401
        assert (await api.post(f"{JOBS}/pause", headers={**sent, "x-api-key": KEY})).status_code == 200


@pytest.mark.parametrize("headers", [*FOREIGN.values(), *OWN.values()], ids=[*FOREIGN, *OWN])
async def test_submitting_stays_open(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """As in the replaced system, pages of any origin can submit, and by default read the reply."""
    form = {"files": {"file": ("a.txt", b"x")}, "data": {name: FIELDS[name] for name in FIELDS if name[0] != "c"}}
    for path in ("verify", "proof"):
        for body in (form, {"json": FIELDS}):
            reply = await api.post(f"{JOBS}/{path}", **as_sent(api, headers, body))
            assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "*")
    batch = {"json": {"jobs": [{"type": "verify", **FIELDS}]}}
    assert (await api.post(f"{JOBS}/batch", **as_sent(api, headers, batch))).status_code == 200
    assert (await api.get(JOBS, headers=as_sent(api, headers, {})["headers"])).status_code == 200
