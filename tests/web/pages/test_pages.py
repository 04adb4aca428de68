"""Test the served pages: policy, caching and closed paths. ``tests/browser`` tests the behaviour."""

import re

import httpx
import pytest

from iidq.errors import SettingsFault
from iidq.queue.identifiers import new_job_id
from iidq.setting_values.checks import ChainAccount
from iidq.settings import load_settings
from iidq.web.pages import PAGE_POLICY
from tests.web.serving import JOBS, ServeApi


def assets(page: httpx.Response) -> list[str]:
    return re.findall(r"/assets/[^\"]+", page.text)


async def test_pages_are_under_a_strict_policy(lonely_api: httpx.AsyncClient) -> None:
    """Pages load only local scripts and styles, nothing inline and no frames, even without Postgres."""
    for path in ("/", f"/jobs/{new_job_id()}"):
        page = await lonely_api.get(path)
        assert page.status_code == 200
        assert page.headers["content-security-policy"] == PAGE_POLICY
        assert "unsafe" not in PAGE_POLICY
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<style|style=|<script(?![^>]*src=)| on[a-z]+=", page.text)
        assert not re.search(r"(?:src|href)=\"(?!/)[^#]", page.text)


async def test_only_the_worker_compiles(lonely_api: httpx.AsyncClient) -> None:
    """Only the hashing worker may compile WebAssembly."""
    page = await lonely_api.get("/")
    main = next(path for path in assets(page) if path.endswith("/verify.js"))
    worker = main.replace("verify.js", "hash-worker.js")
    for path, compiles in ((worker, True), (main, False)):
        reply = await lonely_api.get(path)
        assert reply.headers["content-type"].startswith("text/javascript")
        assert ("wasm-unsafe-eval" in reply.headers["content-security-policy"]) is compiles


async def test_caching(lonely_api: httpx.AsyncClient) -> None:
    """A page is revalidated with 304; an asset is cached forever under the address of its content."""
    page = await lonely_api.get("/")
    assert page.headers["cache-control"] == "no-cache"
    again = await lonely_api.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in set(assets(page)):
        asset = await lonely_api.get(path)
        assert asset.status_code == 200, path
        assert "immutable" in asset.headers["cache-control"]
    # A process of another version serves its own asset, without long caching.
    other = await lonely_api.get(re.sub(r"/assets/\w+/", "/assets/0123456789abcdef/", path))
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "verify/verify.html",
        "..%2fshared/style.css",
        "%2e%2e/settings.py",
        "vendor",
        "vendor/README.md",
        "",
    ],
)
async def test_nothing_else_of_the_folder_is_served(lonely_api: httpx.AsyncClient, name: str) -> None:
    """Only files loaded by pages are served, and no path leads out of the folder."""
    reply = await lonely_api.get(f"/assets/x/{name}")
    assert reply.status_code == 404


async def test_what_is_no_job_id_is_404(lonely_api: httpx.AsyncClient) -> None:
    """The page of a malformed job id gives 404."""
    assert (await lonely_api.get("/jobs/~nonsense")).status_code == 404
    assert (await lonely_api.get("/jobs/")).status_code == 404


async def test_pages_are_open_where_all_else_needs_the_key(serve_api: ServeApi) -> None:
    """With ``API_KEY_SCOPE=all`` the page with the key form is still open."""
    async with serve_api(api_key="sesame", api_key_scope="all") as api:
        page = await api.get("/")
        assert 'data-key="required"' in page.text
        assert [(await api.get(path)).status_code for path in (f"/jobs/{new_job_id()}", *assets(page))].count(200) > 4
        for path in (JOBS, "/nowhere", "/assets", "/jobs"):
            assert (await api.get(path)).status_code == 401


async def test_default_registry_is_filled_in(serve_api: ServeApi) -> None:
    """The form contains the service's registry and chain."""
    async with serve_api(default_registry=ChainAccount(8453, "0x" + "Ab" * 20)) as api:
        text = (await api.get("/")).text
    assert f'value="0x{"Ab" * 20}"' in text
    assert 'value="8453"' in text


@pytest.mark.parametrize(
    ("text", "account"),
    [
        ("0x" + "Ab" * 20, ChainAccount(None, "0x" + "Ab" * 20)),
        ("eip155:8453:0x" + "Ab" * 20, ChainAccount(8453, "0x" + "Ab" * 20)),
    ],
)
def test_default_registry_is_read(monkeypatch: pytest.MonkeyPatch, text: str, account: ChainAccount) -> None:
    """The default registry is an address, or an account with its chain in CAIP-10 form."""
    monkeypatch.setenv("DEFAULT_REGISTRY", text)
    assert load_settings().default_registry == account


@pytest.mark.parametrize("text", ["zero", "0x12", "[1, 2]", "eip155:0:0x" + "ab" * 20, "1"])
def test_bad_default_registry_stops_the_start(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A bad default registry stops the start with an error that names the variable."""
    monkeypatch.setenv("DEFAULT_REGISTRY", text)
    with pytest.raises(SettingsFault, match="DEFAULT_REGISTRY"):
        load_settings()
