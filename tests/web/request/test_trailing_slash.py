"""Test a final slash in the path: reply, access and limits do not change."""

import re
from typing import Any

import httpx
import psycopg
import pytest

from tests.job_rows import COMPLETED, insert
from tests.web.serving import JOBS, ServeApi, endpoints

KEY = "open sesame"
VALID = {"contentHash": "0x" + "ab" * 32, "manifestURI": "https://example.org/m", "registryAddress": "0x" + "cd" * 20}
_VARYING = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f-]{17}|[0-9a-f]{32}|(?<=csrfToken\":\")[\w-]+|\d+")


async def _told(client: httpx.AsyncClient, method: str, path: str, **asked: Any) -> object:
    """Return the constant parts of a reply."""
    client.cookies.clear()
    reply = await client.request(method, path, **asked)
    counted = path.rstrip("/") == "/metrics" and reply.is_success
    return reply.status_code, sorted(reply.headers), b"" if counted else _VARYING.sub(b"N", reply.content)


@pytest.mark.parametrize(
    ("access", "caller"),
    [
        ({"api_key": KEY}, {"x-api-key": KEY}),
        ({"api_key": KEY, "api_key_scope": "all"}, {"x-api-key": KEY}),
        ({"cors_origins": ["https://page.example"]}, {"Origin": "https://other.example"}),
    ],
    ids=["key", "key for all", "pages"],
)
async def test_every_endpoint_is_the_same_with_a_slash(
    serve_api: ServeApi, database_url: str, access: dict[str, Any], caller: dict[str, str]
) -> None:
    """Status, headers and body are the same with a final slash, for every route, method and caller."""
    limits = {"rate_limit_submit_per_minute": 100_000, "rate_limit_read_per_minute": 100_000}

    async def differs(method: str, path: str, headers: dict[str, str]) -> str | None:
        how: dict[str, Any] = {"headers": headers, **({"json": VALID} if method == "POST" else {})}
        plain = await _told(api, method, path, **how)
        slashed = await _told(api, method, f"{path}/", **how)
        return None if slashed == plain else f"{method} {path} {headers}: {plain} becomes {slashed}"

    asked = [
        (method, path, {**headers, "Accept": "text/html" if "docs" in path else "*/*"})
        for method, path in [*endpoints(), ("DELETE", JOBS), ("OPTIONS", f"{JOBS}/verify"), ("GET", "/nowhere")]
        for headers in ({}, caller)
        if path != "/"
    ]
    async with serve_api(database_url=database_url, **access, **limits) as api:
        # One request after the other, because pause and resume change other replies.
        assert [found for one in asked if (found := await differs(*one))] == []


async def test_a_body_is_taken_at_once(api: httpx.AsyncClient, database_url: str) -> None:
    """An upload needs no redirect; a job and an idempotency key are the same with and without a final slash."""
    form: dict[str, Any] = {"data": {**VALID, "contentHash": None}, "files": {"file": ("a.txt", b"abc")}}
    form["data"].pop("contentHash")
    headers = {"Idempotency-Key": "one"}
    first = await api.post(f"{JOBS}/verify/", headers=headers, **form)
    again = await api.post(f"{JOBS}/verify", headers=headers, **form)
    assert (first.status_code, first.history) == (200, [])
    assert first.json()["jobId"] == again.json()["jobId"]
    shown = await api.get(f"{first.headers['location']}/")
    assert shown.json()["fileName"] == "a.txt"
    with psycopg.connect(database_url, autocommit=True) as sql:
        ended = insert(sql, COMPLETED)
    assert (await api.get(f"{JOBS}/{ended}/events/")).content == (await api.get(f"{JOBS}/{ended}/events")).content
    listed = await api.get(f"{JOBS}/?limit=1")
    assert listed.json()["count"] == 1


async def test_a_slash_is_no_way_around_the_limits(serve_api: ServeApi) -> None:
    """A submission with a final slash counts as a submission, and a probe does not count."""
    limits = {"rate_limit_submit_per_minute": 1, "rate_limit_read_per_minute": 1}
    async with serve_api(**limits) as api:
        for path in (f"{JOBS}/verify/", f"{JOBS}/proof/", f"{JOBS}/batch/", "/api/verify/", "/api/proof/"):
            reply = await api.post(path, json={})
            assert (reply.status_code == 429) == (path != f"{JOBS}/verify/"), path
            assert '"submit"' in reply.headers["ratelimit-policy"]
        for path in ("/livez/", "/readyz/", "/api/health/", "/metrics/"):
            assert "ratelimit-policy" not in (await api.get(path)).headers


@pytest.mark.parametrize("path", ["/livez//", "//livez", "/api//health", "/livez/%2F", f"{JOBS}//"])
async def test_an_empty_segment_is_another_path(lonely_api: httpx.AsyncClient, path: str) -> None:
    """A path with an empty segment gives 404."""
    assert (await lonely_api.get(httpx.URL(f"{lonely_api.base_url}".rstrip("/") + path))).status_code == 404
