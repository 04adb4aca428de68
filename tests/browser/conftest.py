"""Start a real Chromium and a real ``iidq up`` once per test process; each page has a fresh profile."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from iidq.embedded.demo_registry import register
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_CHAIN_ID, DEVELOPMENT_KEYS
from iidq.provenance.manifest import make_manifest
from tests.browser.gated_manifests import GatedManifests, serve_gated_manifests
from tests.chromium import CHROMIUM
from tests.cli.conftest import printed
from tests.cli.sandbox import Running, Sandbox

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_HERE = Path(__file__).parent
_WAIT_MS = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all browser tests on the event loop of the browser and the service. Skip them without a browser."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium"))


@dataclass(frozen=True)
class Service:
    """A running ``iidq up``: API, worker, chain, registry."""

    sandbox: Sandbox
    """The temporary home of ``iidq up``."""
    running: Running
    """The process of ``iidq up``."""
    url: str
    """The base URL of the API."""
    database_url: str
    """The connection string of the Postgres of ``iidq up``."""
    rpc_url: str
    """The RPC URL of the development chain."""
    registry: str
    """The address of the registry contract."""
    song: Path
    """The path of the sample file."""
    song_manifest: str
    """The URI of the manifest of the sample file."""
    manifests: GatedManifests
    """The server of the published manifests."""

    async def publish(self, content_hash: str, name: str, *, registered_as: str | None = None) -> str:
        """Sign and publish a manifest, register the hash with its URI or ``registered_as``; return the URI."""
        manifest = make_manifest(content_hash, DEVELOPMENT_KEYS[1], f"https://example.org/{name}", DEVELOPMENT_CHAIN_ID)
        uri = self.manifests.publish(name, manifest)
        await register(self.rpc_url, self.registry, DEVELOPMENT_KEYS[1], content_hash, registered_as or uri)
        return uri


@pytest.fixture(scope="session")
def running() -> Iterator[tuple[Sandbox, Running]]:
    """Start one ``iidq up`` per test process."""
    with Sandbox() as place:
        up = place.start(
            "up",
            "--port",
            "0",
            PYTHONUNBUFFERED="1",
            POLL_INTERVAL_SECONDS="0.5",
            RATE_LIMIT_SUBMIT_PER_MINUTE="0",
            RATE_LIMIT_READ_PER_MINUTE="0",
            RESULT_CACHE_SECONDS="0",
        )
        up.wait_until_says("Ctrl-C stops everything")
        yield place, up


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(running: tuple[Sandbox, Running]) -> AsyncIterator[Service]:
    """Return the running service with a manifest server for jobs in progress."""
    sandbox, up = running
    async with serve_gated_manifests() as manifests:
        yield Service(
            sandbox=sandbox,
            running=up,
            url=printed(up, "API"),
            database_url=printed(up, "DATABASE_URL"),
            rpc_url=printed(up, "RPC_URL"),
            registry=printed(up, "registry"),
            song=Path(printed(up, "sample file")),
            song_manifest=printed(up, "manifest"),
            manifests=manifests,
        )


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Start Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        await browser.close()


OpenPage = Callable[..., Awaitable[Page]]
"""``await open_page(url, **context)`` opens a page in a new profile; ``refusals=True`` permits error replies."""


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(chromium: Browser) -> AsyncIterator[OpenPage]:
    """Open pages. Fail at the end if a page wrote an error or warning to the console, or raised an exception."""
    complaints: list[str] = []
    contexts = []

    async def open_(url: str, *, refusals: bool = False, **options: Any) -> Page:
        context = await chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(_WAIT_MS)
        page = await context.new_page()

        def hear(kind: str, text: str) -> None:
            # Chromium itself logs each error reply.
            if kind in ("error", "warning") and not (refusals and text.startswith("Failed to load resource")):
                complaints.append(f"{kind}: {text}")

        page.on("console", lambda message: hear(message.type, message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(url)
        return page

    yield open_
    for context in contexts:
        await context.close()
    assert complaints == []


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Page, str], Awaitable[None]]:
    """Save a screenshot of a page for the docs if ``IIDQ_SCREENSHOTS`` names a folder."""
    folder = os.environ.get("IIDQ_SCREENSHOTS")

    async def take(page: Page, name: str) -> None:
        if folder:
            await page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, animations="disabled")

    return take


AXE = (_HERE / "vendor" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def violations() -> Callable[[Page], Awaitable[list[str]]]:
    """Return the axe-core violations of a page against WCAG 2.2 A and AA and the best practices of axe-core."""

    async def find(page: Page) -> list[str]:
        await page.evaluate(AXE)
        found: list[dict[str, Any]] = await page.evaluate("axe.run().then(result => result.violations)")
        return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in found]

    return find
