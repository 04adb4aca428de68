"""Manifests by URI, as requested by the verification."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from iidq.errors import FetchRefused, GatewayFault, ManifestFault
from iidq.provenance.ipfs.cid import DAG_PB, RAW
from iidq.provenance.ipfs.unixfs import wrap_file
from iidq.provenance.manifest_source import ManifestSource, open_manifest_source
from iidq.settings import Settings
from tests.unit.guarded_http.scripted_server import Request, always, response, serving
from tests.unit.ipfs.ipfs_blocks import cid_v0, cid_v1

CONTENT = b'{"content_hash": "0x00"}'
BLOCK = wrap_file(CONTENT)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@asynccontextmanager
async def source(
    *gateways: str, allow_private: tuple[str, ...] = ("127.0.0.1",), max_bytes: int = 1000
) -> AsyncIterator[ManifestSource]:
    """Open a source from settings."""
    settings = Settings(
        _env_file=None,
        ipfs_gateways=gateways or ("https://gateway.invalid",),
        fetch_allow_private=allow_private,
        max_manifest_bytes=max_bytes,
    )
    async with open_manifest_source(settings) as opened:
        yield opened


async def test_a_web_manifest_and_its_source() -> None:
    """A web URL has no CID to verify; the source has the URL, redacted, and the digest."""
    async with serving(always(response(CONTENT))) as server, source() as manifests:
        fetched = await manifests.fetch(f"{server.url}/manifest.json?token=secret")
    assert (fetched.body, fetched.cid_verified) == (CONTENT, None)
    (used,) = fetched.sources
    assert (used.what, used.url, used.digest, used.outcome) == (
        "manifest",
        f"{server.url}/manifest.json?token=***",
        DIGEST,
        "used",
    )
    assert server.requests[0].target == "/manifest.json?token=secret"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "manifest.not_found"),
        (410, "manifest.not_found"),
        (400, "manifest.withheld"),
        (401, "manifest.withheld"),
        (403, "manifest.withheld"),
        (451, "manifest.withheld"),
        (206, "manifest.withheld"),
        (304, "manifest.withheld"),
    ],
)
async def test_a_web_server_that_says_no_is_believed(status: int, code: str) -> None:
    """A web server's definite refusal fails the job at once."""
    async with serving(always(response(status=status))) as server, source() as manifests:
        with pytest.raises(ManifestFault) as caught:
            await manifests.fetch(server.url)
    assert caught.value.code == code
    assert str(status) in caught.value.message


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_a_web_server_that_cannot_now_is_asked_again(status: int) -> None:
    """A web server's temporary status is a temporary fault with the server's Retry-After."""
    answer = always(response(b"", "Retry-After: 7", status=status))
    async with serving(answer) as server, source() as manifests:
        with pytest.raises(GatewayFault, match=str(status)) as caught:
            await manifests.fetch(server.url)
    assert caught.value.retry_after_seconds == 7


async def test_a_manifest_may_have_the_limits_size_but_not_more() -> None:
    """A manifest of the limit's size is read; a larger manifest fails the job, from the web and from IPFS."""
    body = bytes(1000)
    async with serving(always(response(body))) as server, source(server.url) as manifests:
        assert (await manifests.fetch(server.url)).body == body
        assert (await manifests.fetch(f"ipfs://{cid_v1(RAW, body)}")).body == body
    body = bytes(1001)
    async with serving(always(response(body))) as server, source(server.url) as manifests:
        for uri in (server.url, f"ipfs://{cid_v1(RAW, body)}", f"ipfs://{cid_v0(wrap_file(body))}"):
            with pytest.raises(ManifestFault) as caught:
                await manifests.fetch(uri)
            assert caught.value.code == "manifest.too_large"


async def test_a_forbidden_uri_is_refused_before_anything_is_asked() -> None:
    """Without FETCH_ALLOW_PRIVATE a private address is refused without a connection, and a private gateway is used."""
    async with serving(always(response(BLOCK))) as server, source(server.url, allow_private=()) as manifests:
        with pytest.raises(FetchRefused):
            await manifests.fetch(server.url)
        assert server.connections == 0
        assert (await manifests.fetch(f"ipfs://{cid_v0(BLOCK)}")).body == CONTENT


async def test_a_redirects_query_is_not_told() -> None:
    """The query of a redirect's location does not show: it may be a credential."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target == "/manifest.json":
            writer.write(response(b"", "Location: /file?X-Amz-Signature=secret", status=302))
        else:
            writer.write(response(CONTENT))

    async with serving(answer) as server, source() as manifests:
        fetched = await manifests.fetch(f"{server.url}/manifest.json")
    assert [(used.url, used.message) for used in fetched.sources] == [
        (f"{server.url}/file", "fetched after a redirect")
    ]


async def test_opened_networks_do_not_widen_a_gateways_redirects() -> None:
    """FETCH_ALLOW_PRIVATE opens networks to manifest URLs, and not to a gateway's redirects."""
    async with serving(always(response(BLOCK))) as inside:
        moved = always(response(b"", f"Location: http://127.0.0.2:{inside.port}/", status=302))
        async with serving(moved) as gateway, source(gateway.url, allow_private=("127.0.0.0/8",)) as manifests:
            with pytest.raises(FetchRefused):
                await manifests.fetch(f"ipfs://{cid_v0(BLOCK)}")
        assert inside.connections == 0


async def test_a_verified_manifest_is_fetched_once_whatever_its_spelling() -> None:
    """The same CID in another version needs no second fetch, and has the sources of the first."""
    async with serving(always(response(BLOCK))) as server, source(server.url) as manifests:
        first = await manifests.fetch(f"ipfs://{cid_v0(BLOCK)}")
        again = await manifests.fetch(f"ipfs://{cid_v1(DAG_PB, BLOCK)}")
    assert first == again
    assert first.sources[0].outcome == "used"
    assert len(server.requests) == 1


async def test_callers_at_the_same_time_share_a_fetch() -> None:
    """Simultaneous jobs with the same new CID cost the gateway a single request."""
    release = asyncio.Event()

    async def when_released(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(response(BLOCK))

    async with serving(when_released) as server, source(server.url) as manifests:
        fetches = [asyncio.create_task(manifests.fetch(f"ipfs://{cid_v0(BLOCK)}")) for _ in range(20)]
        await server.asked.wait()
        release.set()
        bodies = {fetched.body for fetched in await asyncio.gather(*fetches)}
    assert bodies == {CONTENT}
    assert len(server.requests) == 1


async def test_failures_are_not_kept() -> None:
    """A CID that a gateway did not have is asked for again."""

    async def second_time(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(response(status=404) if len(server.requests) == 1 else response(BLOCK))

    async with serving(second_time) as server, source(server.url) as manifests:
        with pytest.raises(ManifestFault):
            await manifests.fetch(f"ipfs://{cid_v0(BLOCK)}")
        assert (await manifests.fetch(f"ipfs://{cid_v0(BLOCK)}")).body == CONTENT


@pytest.mark.parametrize(
    ("fields", "requests"),
    [
        ((), 2),
        (("Cache-Control: max-age=60",), 1),
        (("Cache-Control: private, max-age=60",), 2),
        (("Cache-Control: no-store",), 2),
        (("Cache-Control: max-age=60", "Cache-Control: no-store"), 2),
    ],
)
async def test_web_manifests_are_kept_only_as_their_headers_allow(fields: tuple[str, ...], requests: int) -> None:
    """A web manifest is kept only if the headers allow so; otherwise each job fetches again."""
    async with serving(always(response(CONTENT, *fields))) as server, source() as manifests:
        for _ in range(2):
            assert (await manifests.fetch(f"{server.url}/m")).body == CONTENT
    assert len(server.requests) == requests


async def test_a_page_is_handed_on_as_it_is() -> None:
    """HTML with status 200 is returned as the body; the parser judges the manifest."""
    async with serving(always(response(b"<html>", "Content-Type: text/html"))) as server, source() as manifests:
        assert (await manifests.fetch(server.url)).body == b"<html>"
