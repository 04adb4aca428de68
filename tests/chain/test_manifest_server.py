"""The manifest server and IPFS gateway, over real HTTP."""

import hashlib

import httpx
import pytest

from iidq.embedded.manifests import MAX_BLOCK_BYTES, serve_manifests

BODY = b'{"version": "1.0"}'


async def test_a_published_manifest_is_fetched_by_its_url() -> None:
    """A published manifest is served byte for byte until replaced under the same name; other names get 404."""
    async with serve_manifests() as server, httpx.AsyncClient() as client:
        url = server.publish("a b/sample.json", BODY)
        reply = await client.get(url)
        assert (reply.status_code, reply.content, reply.headers["content-type"]) == (200, BODY, "application/json")
        server.publish("a b/sample.json", b"not json")
        assert (await client.get(url)).content == b"not json"
        assert (await client.get(f"{server.base_url}/manifests/other.json")).status_code == 404


@pytest.mark.parametrize("by", ["query", "header"])
async def test_the_gateway_gives_the_block_that_the_cid_names(by: str) -> None:
    """The gateway serves the plain body, and with ``format=raw`` or the Accept header the block of the CID."""
    async with serve_manifests() as server, httpx.AsyncClient() as client:
        uri = server.publish_ipfs(BODY)
        url = f"{server.base_url}/ipfs/{uri.removeprefix('ipfs://')}"
        assert (await client.get(url)).content == BODY
        raw = await (
            client.get(url, params={"format": "raw"})
            if by == "query"
            else client.get(url, headers={"Accept": "application/vnd.ipld.raw"})
        )
        assert raw.headers["content-type"] == "application/vnd.ipld.raw"
        assert raw.content == b"\x0a\x18\x08\x02\x12\x12" + BODY + b"\x18\x12"
        assert uri.startswith("ipfs://Qm")


async def test_a_raw_leaf_is_its_own_block() -> None:
    """A CIDv1 of the bytes themselves gives the same bytes in both forms."""
    async with serve_manifests() as server, httpx.AsyncClient() as client:
        uri = server.publish_ipfs(BODY, raw_leaf=True)
        url = f"{server.base_url}/ipfs/{uri.removeprefix('ipfs://')}"
        assert (await client.get(url)).content == (await client.get(url, params={"format": "raw"})).content == BODY
        assert uri.startswith("ipfs://bafkrei")


async def test_what_was_not_published_is_not_found() -> None:
    """An unpublished CID gets 404, and a method other than reading gets 405."""
    async with serve_manifests() as server, httpx.AsyncClient() as client:
        url = f"{server.base_url}/ipfs/Qm{hashlib.sha256(b'').hexdigest()[:44]}"
        assert (await client.get(url)).status_code == 404
        assert (await client.post(url)).status_code == 405


async def test_a_body_of_more_than_one_block_is_refused() -> None:
    """A body that fits one block is served; a byte more raises ValueError with the limit."""
    async with serve_manifests() as server:
        server.publish_ipfs(bytes(MAX_BLOCK_BYTES))
        with pytest.raises(ValueError, match=str(MAX_BLOCK_BYTES)):
            server.publish_ipfs(bytes(MAX_BLOCK_BYTES + 1))


async def test_the_port_is_free_again_afterwards() -> None:
    """Leaving the block ends the server: nothing accepts connections on its port any more."""
    async with serve_manifests() as server:
        url = server.publish("m", BODY)
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_manifest_is_taken_and_served() -> None:
    """POST /ipfs with a manifest gets 201; the gateway then serves the manifest byte for byte under its CID."""
    async with serve_manifests() as server, httpx.AsyncClient(base_url=server.base_url) as client:
        taken = await client.post("/ipfs", content=BODY, headers={"Content-Type": "application/json"})
        assert (taken.status_code, f"ipfs://{taken.text.strip()}") == (201, server.publish_ipfs(BODY))
        assert (await client.get(taken.headers["location"])).content == BODY


@pytest.mark.parametrize(
    ("headers", "size", "status"),
    [
        ({"Content-Type": "text/plain"}, 10, 415),
        ({}, 10, 415),
        ({"Content-Type": "application/json"}, MAX_BLOCK_BYTES, 201),
        ({"Content-Type": "application/json"}, MAX_BLOCK_BYTES + 1, 413),
    ],
)
async def test_what_is_taken_is_bounded(headers: dict[str, str], size: int, status: int) -> None:
    """POST /ipfs takes at most a block, and no type that browsers send across origins without a preflight request."""
    async with serve_manifests() as server, httpx.AsyncClient(base_url=server.base_url) as client:
        assert (await client.post("/ipfs", content=b"x" * size, headers=headers)).status_code == status
        assert (await client.options("/ipfs")).status_code == 405
