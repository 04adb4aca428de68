"""Test ``/api/docs.json`` and ``/api/docs``, and live replies against the document's schemas."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import httpx
import psycopg
import pytest

from iidq.queue.identifiers import new_job_id
from iidq.web.openapi.examples import REAL
from tests.job_rows import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, insert
from tests.openapi_schemas import DocumentSchemas
from tests.web.serving import JOBS, ServeApi

GOOD = {
    "contentHash": "0x" + "ab" * 32,
    "registryAddress": "0x" + "cd" * 20,
    "manifestURI": "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o",
}


RESULT = json.dumps(REAL["verifyResult"])


class Described:
    """Check each reply of a live app against the app's document; an undescribed member is a fault."""

    def __init__(self, api: httpx.AsyncClient, document: dict[str, Any]) -> None:
        self._api = api
        self._document = document
        self._schemas = DocumentSchemas(document, closed=True)

    async def ask(self, method: str, path: str, template: str | None = None, **request: Any) -> httpx.Response:
        reply = await self._api.request(method, path, **request)
        responses = self._document["paths"][template or path][method.lower()]["responses"]
        described = responses[str(reply.status_code)]
        if "$ref" in described:
            described = self._document["components"]["responses"][described["$ref"].rpartition("/")[2]]
        media_type = reply.headers.get("content-type", "").partition(";")[0]
        content = described.get("content", {})
        assert media_type in content or not (content or reply.content)
        if media_type == "application/json":
            self._schemas.validate(reply.json(), content[media_type]["schema"])
        for name, header in described.get("headers", {}).items():
            told = self._document["components"]["headers"][name] if "$ref" in header else header
            if told.get("required"):
                assert name in reply.headers
        return reply


async def described(api: httpx.AsyncClient) -> Described:
    return Described(api, (await api.get("/api/docs.json")).json())


async def test_live_replies_are_those_of_the_document(api: httpx.AsyncClient, database_url: str) -> None:
    """Each operation, job state and usual error matches the document in status, headers and every member."""
    world = await described(api)
    with psycopg.connect(database_url, autocommit=True) as sql:
        faults = '[{"attempt": 1, "at": "2026-11-24T00:50:26.013518+00:00", "error": "rpc.unavailable: no answer"}]'
        ids = [
            insert(sql, row)
            for row in (QUEUED, PROCESSING, COMPLETED | {"result": RESULT}, {**FAILED, "errors": faults}, CANCELLED)
        ]
    one = f"{JOBS}/{{jobId}}"
    for job_id in (*ids, new_job_id(), "x"):
        await world.ask("GET", f"{JOBS}/{job_id}", one)
        for step in ("cancel", "retry"):
            await world.ask("POST", f"{JOBS}/{job_id}/{step}", f"{one}/{step}")
    for path in ("verify", "proof"):
        assert (await world.ask("POST", f"{JOBS}/{path}", json=GOOD)).status_code == 200
        later = await world.ask("POST", f"{JOBS}/{path}", json=GOOD, headers={"Prefer": "respond-async"})
        assert later.status_code == 202
        keyed = {"Idempotency-Key": path}
        await world.ask("POST", f"{JOBS}/{path}", json=GOOD, headers=keyed)
        again = await world.ask("POST", f"{JOBS}/{path}", json={**GOOD, "chainId": 5}, headers=keyed)
        assert again.status_code == 422
    assert (await world.ask("POST", f"{JOBS}/batch", json={"jobs": [{"type": "proof", **GOOD}]})).status_code == 200
    for path in (f"{JOBS}/verify", f"{JOBS}/proof", "/api/verify", "/api/proof", f"{JOBS}/batch"):
        assert (await world.ask("POST", path, json={})).status_code == 400
        assert (
            await world.ask("POST", path, content=b"{", headers={"Content-Type": "application/json"})
        ).status_code == 400
        assert (await world.ask("POST", path, content=b"x", headers={"Content-Type": "text/plain"})).status_code == 415
        long = {"Content-Type": "application/json"}
        assert (await world.ask("POST", path, content=b" " * (5 << 20), headers=long)).status_code == 413
    assert (await world.ask("GET", JOBS)).status_code == 200
    assert (await world.ask("GET", f"{JOBS}?limit=0", JOBS)).status_code == 400
    for path in (f"{JOBS}/stats", "/livez", "/readyz", "/api/health", "/metrics", "/api/docs.json", "/api/docs"):
        assert (await world.ask("GET", path)).status_code == 200
    for path in ("pause", "resume"):
        assert (await world.ask("POST", f"{JOBS}/{path}", json={"reason": "why"})).status_code == 200


async def test_replies_without_a_database_are_described(lonely_api: httpx.AsyncClient) -> None:
    """Replies without a database match the document, 503 with its headers included."""
    world = await described(lonely_api)
    assert (await world.ask("GET", JOBS)).status_code == 503
    assert (await world.ask("GET", f"{JOBS}/{new_job_id()}", f"{JOBS}/{{jobId}}")).status_code == 503
    assert (await world.ask("GET", "/readyz")).status_code == 503
    for path in (f"{JOBS}/stats", "/api/health", "/livez"):
        assert (await world.ask("GET", path)).status_code == 200


async def test_refusals_at_the_door_are_described(serve_api: ServeApi) -> None:
    """The refusals 401, 414, 429 and 431 match the document."""
    async with serve_api(api_key="sesame", rate_limit_read_per_minute=2) as api:
        world = await described(api)
        assert (await world.ask("POST", f"{JOBS}/pause")).status_code == 401
        assert (await world.ask("GET", f"{JOBS}/stats")).status_code == 429
        assert (await world.ask("GET", f"{JOBS}?cursor={'x' * 9000}", JOBS)).status_code == 414
        many = {f"x-{number}": "x" for number in range(110)}
        assert (await world.ask("GET", JOBS, headers=many)).status_code == 431


class Links(HTMLParser):
    """Resources, links and scripts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.leads_to: set[str] = set()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" or "style" in given or tag == "style" or any(name.startswith("on") for name in given):
            self.active.append(tag)
        if tag == "link":
            self.loaded.append(given["href"] or "")
        if tag == "a":
            self.leads_to.add(given["href"] or "")
        if "id" in given:
            assert given["id"] not in self.anchors
            self.anchors.add(given["id"] or "")


async def test_the_page_needs_no_network_no_script_and_no_inline_style(lonely_api: httpx.AsyncClient) -> None:
    """The page is small, has one local style sheet and no script, and every link has its anchor."""
    page = await lonely_api.get("/api/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "style-src 'self'" in policy
    assert "unsafe" not in policy
    assert len(page.content) < 150_000
    links = Links()
    links.feed(page.text)
    assert links.active == []
    assert links.loaded == ["/api/docs/style.css"]
    assert {link[1:] for link in links.leads_to if link.startswith("#")} <= links.anchors
    assert {link for link in links.leads_to if not link.startswith("#")} == {"/api/docs.json"}
    style = await lonely_api.get(links.loaded[0])
    assert style.headers["content-type"].startswith("text/css")
    assert "prefers-color-scheme: dark" in style.text
    assert not re.search(r"url\(|@import", style.text)


async def test_the_page_shows_every_operation(lonely_api: httpx.AsyncClient) -> None:
    """The page shows every path, operation and schema of the document."""
    page = (await lonely_api.get("/api/docs")).text
    document = (await lonely_api.get("/api/docs.json")).json()
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in page
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page
    for name in document["components"]["schemas"]:
        assert f'id="schema-{name}"' in page


@pytest.mark.parametrize("path", ["/api/docs.json", "/api/docs", "/api/docs/style.css"])
async def test_unchanged_documentation_is_not_sent_again(lonely_api: httpx.AsyncClient, path: str) -> None:
    """A client with the present ETag gets 304."""
    first = await lonely_api.get(path)
    again = await lonely_api.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_static_parts_are_in_the_package() -> None:
    """The page's files are part of the package."""
    assert files("iidq.web.pages").joinpath("docs/docs.css").is_file()
    assert json.loads(files("iidq.web.openapi").joinpath("examples.json").read_text(encoding="utf-8"))
