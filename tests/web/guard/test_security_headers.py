"""What every reply forbids the browser."""

import httpx
import pytest

from iidq.web.guard.browser_headers import SECURITY_HEADERS, security_headers
from tests.web.serving import JOBS, ServeApi

EXPECTED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize("path", ["/livez", f"{JOBS}/~none", f"{JOBS}?limit=0", "/nowhere"])
async def test_every_reply_carries_them(lonely_api: httpx.AsyncClient, path: str) -> None:
    """Also errors; each once."""
    reply = await lonely_api.get(path)
    for name, value in EXPECTED.items():
        assert reply.headers.get_list(name) == [value]


async def test_refusals_carry_them(serve_api: ServeApi) -> None:
    """Also the replies that never reach an endpoint."""
    async with serve_api(api_key="secret", api_key_scope="all", rate_limit_read_per_minute=1) as api:
        for status in (401, 429):
            reply = await api.get(JOBS)
            assert reply.status_code == status
            assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_pages_own_policy_stands() -> None:
    """What a reply sets itself is not said twice, and the rest is added."""
    own = [(b"content-type", b"text/html"), (b"content-security-policy", b"default-src 'self'")]
    added = dict(security_headers(own))
    assert b"content-security-policy" not in added
    assert len(added) == len(SECURITY_HEADERS) - 1
