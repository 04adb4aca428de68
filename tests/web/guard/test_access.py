"""Test the API key."""

import httpx
import pytest

from tests.web.serving import JOBS, ServeApi

KEY = "schlüssel-0123456789"


async def test_without_a_scope_everyone_may_submit_and_read(serve_api: ServeApi) -> None:
    """As in the replaced system, a key without a scope closes neither submissions nor reads."""
    async with serve_api(api_key=KEY) as api:
        assert (await api.get(f"{JOBS}/~")).status_code == 404
        assert (await api.post(f"{JOBS}/verify", json={})).status_code == 400


OPERATING = [
    *(("POST", f"{JOBS}/{step}") for step in ("none/cancel", "none/retry", "pause", "resume", "batch")),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize("scope", ["operate", "all"])
async def test_operating_needs_the_key(serve_api: ServeApi, database_url: str, scope: str) -> None:
    """In every scope, changing jobs, submitting batches and reading metrics need the key."""
    async with serve_api(database_url=database_url, api_key=KEY, api_key_scope=scope) as api:
        for method, path in OPERATING:
            for headers in ({}, {"x-api-key": "wrong"}):
                reply = await api.request(method, path, headers=headers)
                assert (reply.status_code, reply.json()) == (401, {"error": "Unauthorized"})
                assert reply.headers["www-authenticate"] == "Bearer"
            assert (await api.request(method, path, headers={b"x-api-key": KEY.encode()})).status_code != 401


async def test_without_a_key_in_the_settings_nobody_is_asked(api: httpx.AsyncClient) -> None:
    """Without a key in the settings, requests with any key or no key are accepted."""
    for method, path in OPERATING:
        assert (await api.request(method, path)).status_code != 401
        assert (await api.request(method, path, headers={"x-api-key": "any"})).status_code != 401


async def test_scope_all_asks_for_the_key_everywhere_but_health(serve_api: ServeApi) -> None:
    """With scope ``all`` the jobs' routes and unknown routes need the key, while health does not."""
    async with serve_api(api_key=KEY, api_key_scope="all") as api:
        for path in (f"{JOBS}/stats", JOBS, f"{JOBS}/x", "/nowhere", "/livez//"):
            reply = await api.get(path)
            assert (reply.status_code, reply.json()) == (401, {"error": "Unauthorized"})
            assert "x-correlation-id" in reply.headers
        assert (await api.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({b"x-api-key": KEY.encode()}, 404),
        ({b"Authorization": b"Bearer " + KEY.encode()}, 404),
        ({b"Authorization": b"bearer " + KEY.encode()}, 404),
        ({b"Authorization": b"Basic " + KEY.encode()}, 401),
        ({b"Authorization": KEY.encode()}, 401),
        ({b"x-api-key": b""}, 401),
        ({b"x-api-key": KEY.encode()[:-1]}, 401),
        ({b"x-api-key": KEY.encode("latin-1")}, 401),
    ],
)
async def test_the_key_comes_in_either_header(serve_api: ServeApi, headers: dict[bytes, bytes], status: int) -> None:
    """The key is accepted in `x-api-key` or `Authorization: Bearer` only, and only if exactly right."""
    async with serve_api(api_key=KEY, api_key_scope="all") as api:
        assert (await api.get(f"{JOBS}/~", headers=headers)).status_code == status


async def test_a_refused_upload_is_not_read(serve_api: ServeApi) -> None:
    """A refused upload gives 401 before the body is read, and the connection closes."""
    async with serve_api(api_key=KEY, api_key_scope="all") as api:
        reply = await api.post(f"{JOBS}/verify", files={"file": ("x", b"x" * 100_000)})
    assert (reply.status_code, reply.headers["connection"]) == (401, "close")
    assert isinstance(reply, httpx.Response)


DESCRIPTION = ("/api/docs", "/api/docs.json", "/api/docs/style.css")


async def test_the_description_asks_a_browser_for_the_key_on_a_page(serve_api: ServeApi) -> None:
    """Without the key a program gets 401 as JSON and a browser a sign-in page; key or session opens the description.

    No such reply is stored in a shared cache.
    """
    async with serve_api(api_key=KEY, api_key_scope="all") as api:
        for path in DESCRIPTION:
            program = await api.get(path)
            assert (program.status_code, program.json()) == (401, {"error": "Unauthorized"})
            browser = await api.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
            assert (browser.status_code, browser.headers["content-type"]) == (401, "text/html; charset=utf-8")
            assert "This service needs its API key" in browser.text
            keyed = await api.get(path, headers={b"x-api-key": KEY.encode()})
            assert keyed.status_code == 200
            for reply in (program, browser, keyed):
                assert "private" in reply.headers["cache-control"]
                assert "Cookie" in reply.headers["vary"]
            assert all(reply.headers["www-authenticate"] == "Bearer" for reply in (program, browser))
        signed_in = await api.post("/admin/queues/data/sign-in", json={"key": KEY})
        assert signed_in.status_code == 200
        for path in DESCRIPTION:
            assert (await api.get(path)).status_code == 200
        # A session opens pages only: the API needs the key.
        for path in (JOBS, f"{JOBS}/stats", "/metrics", "/nowhere"):
            assert (await api.get(path)).status_code == 401


async def test_a_forged_session_opens_no_description(serve_api: ServeApi) -> None:
    """A session cookie signed with another key gives 401."""
    async with serve_api(api_key="another") as other:
        assert (await other.post("/admin/queues/data/sign-in", json={"key": "another"})).status_code == 200
        foreign = other.cookies["iidq_session"]
    async with serve_api(api_key=KEY, api_key_scope="all") as api:
        for cookie in (foreign, "2000000000.x.y", ""):
            headers = {"Cookie": f"iidq_session={cookie}"}
            assert (await api.get("/api/docs", headers=headers)).status_code == 401


async def test_without_the_scope_the_description_is_open(serve_api: ServeApi) -> None:
    """A key without the scope does not close the description."""
    async with serve_api(api_key=KEY) as api:
        for path in DESCRIPTION:
            assert (await api.get(path)).status_code == 200
