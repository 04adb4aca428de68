"""Test CORS and security headers."""

import httpx
import pytest

from iidq.web.guard.browser_headers import SECURITY_HEADERS, security_headers
from tests.web.serving import JOBS, ServeApi

PAGE = "https://app.example.org"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,idempotency-key,x-api-key",
}


async def test_every_page_may_use_the_api_as_before(lonely_api: httpx.AsyncClient) -> None:
    """As in the replaced system, pages of any origin may read replies and errors, without credentials."""
    for path in ("/livez", f"{JOBS}/~none", "/nowhere"):
        reply = await lonely_api.get(path, headers={"Origin": PAGE})
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in reply.headers
        exposed = {name.strip().lower() for name in reply.headers["access-control-expose-headers"].split(",")}
        assert exposed >= {"location", "retry-after", "ratelimit", "etag", "x-correlation-id", "preference-applied"}


async def test_a_preflight_is_answered_at_once(serve_api: ServeApi) -> None:
    """A preflight gives 204 with the requested permissions, even if a key or a limit would refuse the request."""
    async with serve_api(api_key="secret", api_key_scope="all", rate_limit_submit_per_minute=1) as api:
        for _ in range(3):
            reply = await api.options(f"{JOBS}/verify", headers=PREFLIGHT)
            assert (reply.status_code, reply.content) == (204, b"")
            assert reply.headers["access-control-allow-origin"] == "*"
            assert "POST" in reply.headers["access-control-allow-methods"]
            assert reply.headers["access-control-allow-headers"] == PREFLIGHT["Access-Control-Request-Headers"]
            assert "access-control-request-headers" in reply.headers["vary"].lower()


async def test_refusals_can_be_read_by_pages(serve_api: ServeApi) -> None:
    """Pages can read 401 and 429 replies, and so show the reason."""
    async with serve_api(api_key="secret", api_key_scope="all", rate_limit_read_per_minute=1) as api:
        for status in (401, 429):
            reply = await api.get(JOBS, headers={"Origin": PAGE})
            assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, "*")


async def test_only_named_origins(serve_api: ServeApi) -> None:
    """With listed origins only their pages get CORS headers, and ``Vary`` keeps caches correct."""
    async with serve_api(cors_origins=f"{PAGE},http://localhost:5173") as api:
        for origin in (PAGE, "http://localhost:5173"):
            reply = await api.get("/livez", headers={"Origin": origin})
            assert reply.headers["access-control-allow-origin"] == origin
            assert reply.headers["vary"] == "Origin"
        for headers in ({"Origin": "https://evil.example.org"}, {"Origin": "null"}, {}):
            reply = await api.get("/livez", headers=headers)
            assert "access-control-allow-origin" not in reply.headers
            assert reply.headers["vary"] == "Origin"
        allowed = await api.options(JOBS, headers=PREFLIGHT)
        assert allowed.headers["access-control-allow-origin"] == PAGE
        refused = await api.options(JOBS, headers={**PREFLIGHT, "Origin": "https://evil.example.org"})
        assert refused.status_code == 204
        assert [name for name in refused.headers if name.startswith("access-control")] == []


async def test_no_origin_at_all(serve_api: ServeApi) -> None:
    """With `CORS_ORIGINS=none` pages of other origins get no CORS headers."""
    async with serve_api(cors_origins="none") as api:
        reply = await api.get("/livez", headers={"Origin": PAGE})
        preflight = await api.options(JOBS, headers=PREFLIGHT)
    assert [name for name in {**reply.headers, **preflight.headers} if name.startswith("access-control")] == []


@pytest.mark.parametrize("asked", ["x" * 1001, "content-type\x01", "a;b", ""])
async def test_only_field_names_are_allowed_back(lonely_api: httpx.AsyncClient, asked: str) -> None:
    """A preflight with malformed header names gets none of these back."""
    headers = {**PREFLIGHT, "Access-Control-Request-Headers": asked}
    reply = await lonely_api.options(JOBS, headers=headers)
    assert "access-control-allow-headers" not in reply.headers


async def test_options_without_an_origin_is_no_preflight(lonely_api: httpx.AsyncClient) -> None:
    """OPTIONS without an origin gives 405."""
    assert (await lonely_api.options(f"{JOBS}/verify")).status_code == 405


EXPECTED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize("path", ["/livez", f"{JOBS}/~none", f"{JOBS}?limit=0", "/nowhere"])
async def test_every_reply_carries_them(lonely_api: httpx.AsyncClient, path: str) -> None:
    """Every reply has each security header exactly once, errors included."""
    reply = await lonely_api.get(path)
    for name, value in EXPECTED.items():
        assert reply.headers.get_list(name) == [value]


async def test_refusals_carry_them(serve_api: ServeApi) -> None:
    """Replies before any endpoint have the security headers, too."""
    async with serve_api(api_key="secret", api_key_scope="all", rate_limit_read_per_minute=1) as api:
        for status in (401, 429):
            reply = await api.get(JOBS)
            assert reply.status_code == status
            assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_pages_own_policy_stands() -> None:
    """A security header set by the reply is not repeated, and the others are added."""
    own = [(b"content-type", b"text/html"), (b"content-security-policy", b"default-src 'self'")]
    added = dict(security_headers(own))
    assert b"content-security-policy" not in added
    assert len(added) == len(SECURITY_HEADERS) - 1
