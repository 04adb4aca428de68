"""Test both pages in a real browser, behind a real nginx with the service under a path prefix."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from iidq.embedded.endpoint import serve_locally
from iidq.setting_values.checks import ChainAccount
from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.server.http_protocol import bounded_http
from tests.browser.conftest import OpenPage, Service
from tests.job_rows import COMPLETED, insert
from tests.nginx import free_port, needs_nginx, running_nginx
from tests.web.guard.test_path_prefix import KEY, PREFIX, snippets

pytestmark = needs_nginx

expect.set_options(timeout=20_000)


@pytest_asyncio.fixture(loop_scope="session")
async def site(service: Service, chromium: Browser, tmp_path: Path) -> AsyncIterator[str]:
    """Return the URL of an nginx in front of an API of the service's queue. Only ``/iidq/`` is served there."""
    settings = Settings(
        _env_file=None,
        database_url=service.database_url,
        rpc_url=service.rpc_url,
        default_registry=ChainAccount(31337, service.registry),
        api_key=KEY,
        trusted_proxies=["127.0.0.1"],
        rate_limit_read_per_minute=0,
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app), serve_locally(app, http=bounded_http(settings)) as url:
        port = free_port()
        snippet = snippets()[0].replace("http://127.0.0.1:3001", url)
        server = f"server {{ listen 127.0.0.1:{port}; root {tmp_path}/none; {snippet} }}"
        async with running_nginx(tmp_path, server, port):
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                for context in chromium.contexts:
                    await context.close()


def asked(page: Page) -> Callable[[], set[str]]:
    """Return a function for the URLs outside the prefix requested by the page since this call."""
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    return lambda: {url for url in urls if not url.startswith(("data:", "blob:")) and f"{PREFIX}/" not in url}


async def test_a_file_is_verified_under_a_prefix(site: str, service: Service, open_page: OpenPage) -> None:
    """Hashing, sending, live events, the job page and the way back all stay under the prefix."""
    page = await open_page(f"{site}{PREFIX}/?manifestURI={quote(service.song_manifest, safe='')}")
    outside = asked(page)
    await page.set_input_files("#file", service.song)
    await page.click("#send")
    await expect(page.locator("#job-title")).to_contain_text("Genuine: registered by ")
    job_page = page.url
    assert job_page.startswith(f"{site}{PREFIX}/jobs/")
    # The link works for other visitors.
    await page.reload()
    await expect(page.locator("#job-title")).to_contain_text("Genuine: registered by ")
    await expect(page.locator("#job[data-transport=live]")).to_be_visible()
    await page.click("text=Verify another file")
    await expect(page.locator("#ask-title")).to_be_visible()
    assert page.url == f"{site}{PREFIX}/"
    await page.click("text=HTTP API")
    await expect(page.locator("h1")).to_contain_text("iidq")
    assert outside() == set()


async def test_the_queue_is_operated_under_a_prefix(site: str, service: Service, open_page: OpenPage) -> None:
    """Signing in, the overview, lists, a job, its public page and the cookie all stay under the prefix."""
    with psycopg.connect(service.database_url, autocommit=True) as sql:
        insert(sql, COMPLETED)
    page = await open_page(f"{site}{PREFIX}/admin/queues")
    outside = asked(page)
    await page.fill("#key", KEY)
    await page.click("#sign-in button")
    await expect(page.locator("[data-count=completed]")).not_to_have_text("–")
    [cookie] = await page.context.cookies(f"{site}{PREFIX}/")
    assert cookie.get("path") == PREFIX
    assert await page.context.cookies(f"{site}/") == []
    await page.click("a.tile >> text=Completed")
    await expect(page.locator("#jobs-title")).to_be_visible()
    assert page.url == f"{site}{PREFIX}/admin/queues/jobs?state=completed"
    await page.locator("#rows a").first.click()
    await expect(page.locator("#job-title")).to_be_visible()
    assert page.url.startswith(f"{site}{PREFIX}/admin/queues/jobs/")
    await page.click("text=Public page")
    await expect(page.locator("#job-title")).to_be_visible()
    assert page.url.startswith(f"{site}{PREFIX}/jobs/")
    assert outside() == set()
