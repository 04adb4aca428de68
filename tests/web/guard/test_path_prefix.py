"""Test a path prefix behind a real nginx: every URL in a reply leads back to the service."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx
import psycopg
import pytest

from iidq.observability import logs
from tests.eventually import eventually
from tests.job_rows import COMPLETED, insert
from tests.nginx import needs_nginx, running_nginx
from tests.web.serving import JOBS, ServeApi

VALID: Final = {
    "contentHash": "0x" + "ab" * 32,
    "manifestURI": "https://example.org/m",
    "registryAddress": "0x" + "cd" * 20,
}
FORM: Final = {name: VALID[name] for name in ("manifestURI", "registryAddress")}
KEY: Final = "open sesame"
DOCS: Final = Path(__file__).parents[3] / "docs" / "operations.md"
PREFIX: Final = "/iidq"
TRUSTED: Final[dict[str, Any]] = {"trusted_proxies": ["127.0.0.1"]}


def snippets() -> list[str]:
    """Return both nginx snippets of the docs: with the prefix stripped and in a header, and with the prefix kept."""
    stripping, keeping = re.findall(r"```nginx\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return [stripping, keeping]


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the operator."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@dataclass(frozen=True)
class Site:
    """A host with only ``/iidq/`` served, and the API behind the host."""

    client: httpx.AsyncClient
    """A client of the host."""
    direct: httpx.AsyncClient
    """A client of the API without nginx."""


@asynccontextmanager
async def site(serve_api: ServeApi, folder: Path, snippet: str, **settings: Any) -> AsyncIterator[Site]:
    """Run nginx with a snippet of the docs in front of an API with these settings."""
    async with serve_api(api_key=KEY, **settings) as direct:
        place = snippet.replace("127.0.0.1:3001", f"{direct.base_url.host}:{direct.base_url.port}")
        server = f"server {{ listen unix:{folder}/nginx; root {folder}/none; {place} }}"
        async with running_nginx(folder, server, folder / "nginx"):
            transport = httpx.AsyncHTTPTransport(uds=str(folder / "nginx"))
            async with httpx.AsyncClient(transport=transport, base_url="http://host", timeout=30) as client:
                yield Site(client, direct)


@pytest.fixture(params=["stripped and told", "kept", "stripped"])
async def proxied(
    request: pytest.FixtureRequest, serve_api: ServeApi, database_url: str, tmp_path: Path
) -> AsyncIterator[Site]:
    """Return a site for each kind of proxy."""
    stripping, keeping = snippets()
    told = "proxy_set_header X-Forwarded-Prefix /iidq;"
    assert told in stripping
    snippet, settings = {
        "stripped and told": (stripping, {}),
        "kept": (keeping, {"root_path": "iidq/"}),
        "stripped": (stripping.replace(told, ""), {"root_path": PREFIX}),
    }[request.param]
    async with site(serve_api, tmp_path, snippet, database_url=database_url, **TRUSTED, **settings) as found:
        yield found


@needs_nginx
async def test_replies_lead_back(proxied: Site, sql: psycopg.Connection[Any]) -> None:
    """``pollUrl``, ``pollUrls`` and ``Location`` of every submission can be requested through the proxy."""
    client = proxied.client
    client.headers["x-api-key"] = KEY
    given: list[str] = []
    for kind in ("verify", "proof"):
        for how in (
            {"json": VALID},
            {"json": VALID, "headers": {"Prefer": "respond-async"}},
            {"json": VALID, "headers": {"Prefer": "wait=0"}},
            {"json": VALID, "headers": {"Idempotency-Key": kind}},
            {"json": VALID, "headers": {"Idempotency-Key": kind}},
            {"data": FORM, "files": {"file": ("a.txt", b"abc")}},
        ):
            reply = await client.post(f"{PREFIX}{JOBS}/{kind}", **how)
            assert reply.status_code in (200, 202), reply.text
            assert reply.headers["location"] == reply.json()["pollUrl"]
            given.append(reply.json()["pollUrl"])
    batch = await client.post(f"{PREFIX}{JOBS}/batch", json={"jobs": [{**VALID, "type": "proof"}] * 2})
    given += batch.json()["pollUrls"]
    for url in given:
        assert url.startswith(f"{PREFIX}{JOBS}/")
        assert url.endswith((await client.get(url)).json()["id"])
    ended = str(insert(sql, COMPLETED))
    events = await client.get(f"{PREFIX}{JOBS}/{ended}/events")
    assert (events.headers["content-type"], "event: completed" in events.text) == (
        "text/event-stream; charset=utf-8",
        True,
    )
    document = (await client.get(f"{PREFIX}/api/docs.json")).json()
    assert document["servers"] == [{"url": PREFIX}]
    for path, methods in document["paths"].items():
        if "get" in methods and "{" not in path:
            assert (await client.get(document["servers"][0]["url"] + path)).status_code == 200, path


@needs_nginx
async def test_every_link_stays_under_the_prefix(proxied: Site, sql: psycopg.Connection[Any]) -> None:
    """Every link in pages, styles and scripts works and stays under the prefix."""
    job_id = str(insert(sql, COMPLETED))
    proxied.client.headers["x-api-key"] = KEY
    # nginx redirects /iidq to the prefix.
    assert (await proxied.client.get(PREFIX)).headers["location"].endswith(f"{PREFIX}/")
    waiting = [
        f"{PREFIX}/",
        f"{PREFIX}/admin/queues",
        f"{PREFIX}/admin/queues/jobs/{job_id}",
        f"{PREFIX}/jobs/{job_id}",
    ]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        reply = await proxied.client.get(path)
        assert reply.status_code == 200, path
        for link in links(reply):
            target = urlsplit(urljoin(f"http://host{path}", link))
            assert target.netloc == "host", (path, link)
            assert target.path.startswith(f"{PREFIX}/"), (path, link)
            if target.path not in seen:
                seen.add(target.path)
                waiting.append(target.path)
    names = {path.rpartition("/")[2] for path in seen}
    assert {
        "docs",
        "docs.json",
        "verify.js",
        "request.js",
        "hash-worker.js",
        "sha2.js",
        "main.js",
        "style.css",
    } <= names


def links(reply: httpx.Response) -> list[str]:
    """Return links and resources of a page, style or script."""
    kind = reply.headers["content-type"].partition(";")[0]
    patterns = {
        "text/html": r"<(?:a|link|script|form|img)\b[^>]*\b(?:href|src|action)=\"([^\"#]+)",
        "text/css": r"(?:url\(|@import )[\"']?([^\"')]+)",
        "text/javascript": r"(?:^import |import\(|from |new URL\()\"(\.[^\"]*\.js)\"",
    }
    return re.findall(patterns[kind], reply.text, re.MULTILINE) if kind in patterns else []


@needs_nginx
async def test_the_session_is_of_this_service_alone(proxied: Site) -> None:
    """The session cookie is limited to the prefix, and signing out removes the cookie."""
    data = f"{PREFIX}/admin/queues/data"
    signed_in = await proxied.client.post(f"{data}/sign-in", json={"key": KEY})
    assert "; Path=/iidq;" in signed_in.headers["set-cookie"]
    assert (await proxied.client.get(f"{data}/snapshot")).status_code == 200
    token = {"X-CSRF-Token": signed_in.json()["csrfToken"]}
    signed_out = await proxied.client.post(f"{data}/sign-out", json={}, headers=token)
    assert "; Path=/iidq;" in signed_out.headers["set-cookie"]
    assert (await proxied.client.get(f"{data}/snapshot")).status_code == 401


@needs_nginx
async def test_nothing_is_kept_with_anothers_prefix(proxied: Site, sql: psycopg.Connection[Any]) -> None:
    """Each client gets its own prefix in repeated submissions, pages and documents, and no 304 for another prefix."""
    headers = {"Idempotency-Key": "once"}
    through = await proxied.client.post(f"{PREFIX}{JOBS}/verify", json=VALID, headers=headers)
    other = {"X-Forwarded-Prefix": "/other"}
    again = await proxied.direct.post(f"{JOBS}/verify", json=VALID, headers=headers | other)
    assert again.json() == {**through.json(), "pollUrl": f"/other{JOBS}/{through.json()['jobId']}"}
    for path in ("/", "/admin/queues", "/api/docs", "/api/docs.json"):
        page = await proxied.client.get(f"{PREFIX}{path}")
        known = {"If-None-Match": page.headers["etag"]}
        assert (await proxied.client.get(f"{PREFIX}{path}", headers=known)).status_code == 304
        elsewhere = await proxied.direct.get(path, headers=known | other)
        assert elsewhere.status_code == 200
        assert (PREFIX in elsewhere.text, "/other" in elsewhere.text) == (False, True)
    # A job's reply has no URL of the service.
    job = f"{JOBS}/{insert(sql, COMPLETED)}"
    tag = (await proxied.client.get(PREFIX + job)).headers["etag"]
    assert (await proxied.direct.get(job, headers={"If-None-Match": tag, **other})).status_code == 304


async def test_rules_for_paths_know_the_prefix(
    serve_api: ServeApi, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, rate limits, the check for foreign pages, log and metrics ignore a kept prefix."""
    logged: list[tuple[str, str]] = []
    monkeypatch.setattr(logs, "request_served", lambda _id, _method, path, route, *_: logged.append((path, route)))
    settings: dict[str, Any] = {"database_url": database_url, "root_path": PREFIX, **TRUSTED}
    async with serve_api(api_key=KEY, api_key_scope="all", **settings) as api:
        for path, status in {
            "/livez": 200,
            "/readyz": 200,
            "/": 200,
            "": 200,
            "/admin/queues": 200,
            JOBS: 401,
            "/metrics": 401,
            "/api/docs.json": 401,
            "/nowhere": 401,
        }.items():
            assert (await api.get(PREFIX + path)).status_code == status, path
            if path:
                assert (await api.get(path)).status_code == status, path
        key_page = await api.get(f"{PREFIX}/api/docs", headers={"Accept": "text/html"})
        assert key_page.status_code == 401
        assert len(links(key_page)) > 4
        assert all(link.startswith(f"{PREFIX}/") for link in links(key_page))
    logged.clear()
    async with serve_api(rate_limit_submit_per_minute=1, rate_limit_read_per_minute=1, **settings) as api:
        replies = [await api.post(f"{PREFIX}{JOBS}/verify", json=VALID) for _ in range(2)]
        assert [reply.status_code for reply in replies] == [200, 429]
        assert "submissions" in replies[1].json()["message"]
        assert [(await api.get(f"{PREFIX}/livez")).status_code for _ in range(3)] == [200] * 3
        await eventually(lambda: len(logged) == 5)
        assert logged == [(f"{JOBS}/verify", f"{JOBS}/verify")] * 2 + [("/livez", "/livez")] * 3
    async with serve_api(**settings) as api:
        page = {"Sec-Fetch-Site": "cross-site", "Origin": "https://other.example"}
        assert (await api.post(f"{PREFIX}{JOBS}/pause", headers=page)).status_code == 403
        assert (await api.post(f"{PREFIX}{JOBS}/verify", json=VALID, headers=page)).status_code == 200


ASKED: Final = ("/", "/admin/queues", f"/jobs/{'0' * 36}", "/api/docs", "/api/docs.json", "/admin/queues/data/session")


async def replies(api: httpx.AsyncClient, **headers: str) -> list[Any]:
    """Return all parts of replies with a possible URL."""
    found: list[Any] = []
    for path in ASKED:
        reply = await api.get(path, headers=headers)
        found.append((reply.status_code, reply.content, reply.headers.get("etag", "")))
    for prefer in ("", "respond-async"):
        sent = {"Idempotency-Key": "one", "Prefer": prefer, **headers}
        reply = await api.post(f"{JOBS}/verify", json=VALID, headers=sent)
        found.append((reply.status_code, reply.content, reply.headers["location"]))
    signed_in = await api.post("/admin/queues/data/sign-in", json={"key": KEY}, headers=headers)
    api.cookies.clear()
    return [*found, signed_in.headers["set-cookie"].partition("; ")[2]]


HOSTILE: Final = (
    *("//evil.example", "https://evil.example", "/\\evil.example", "/iidq, //evil.example", "/../x", "/a?b#c"),
    *('/"><script>alert(1)</script>', "/;Domain=evil.example", "/{{version}}"),
)


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_hostile_prefix_is_never_reflected(serve_api: ServeApi, database_url: str, trusted: bool) -> None:
    """A hostile prefix changes no reply; from an untrusted peer even a good prefix changes no reply."""
    settings: dict[str, Any] = TRUSTED if trusted else {"trusted_proxies": ["192.0.2.1"]}
    hostile = HOSTILE if trusted else (PREFIX, HOSTILE[0])
    async with serve_api(database_url=database_url, api_key=KEY, **settings) as api:
        usual = await replies(api)
        for text in hostile:
            assert await replies(api, **{"X-Forwarded-Prefix": text}) == usual, text
        if trusted:
            assert await replies(api, **{"X-Forwarded-Prefix": PREFIX}) != usual


async def test_a_long_prefix_costs_no_memory(serve_api: ServeApi, database_url: str) -> None:
    """A new prefix with each request gets a correct description."""
    async with serve_api(database_url=database_url, **TRUSTED) as api:
        for number in range(8):
            reply = await api.get("/api/docs.json", headers={"X-Forwarded-Prefix": f"/{number}"})
            assert json.loads(reply.content)["servers"] == [{"url": f"/{number}"}]
