"""Test the replaced system's synchronous calls, on a real chain and manifest server, without a database."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from iidq.embedded.demo_registry import deploy_registry, register
from iidq.embedded.manifests import ManifestServer, serve_manifests
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.manifest import make_manifest
from tests.web.serving import ServeApi

CONTENT = b"what the creator registered"
CONTENT_HASH = "0x" + hashlib.sha256(CONTENT).hexdigest()
NO_CODE = "0x" + "11" * 20


@dataclass(frozen=True)
class World:
    """A client of the API, and one registered file."""

    api: httpx.AsyncClient
    """A client of the API."""
    manifests: ManifestServer
    """The manifest server."""
    fields: dict[str, str]
    """The fields of a submission for the registered file."""


@pytest.fixture
async def world(serve_api: ServeApi, development_chain: str) -> AsyncIterator[World]:
    key = DEVELOPMENT_KEYS[0]
    registry = await deploy_registry(development_chain, key)
    async with (
        serve_manifests() as manifests,
        serve_api(rpc_url=development_chain, fetch_allow_private=("127.0.0.1",)) as api,
    ):
        uri = manifests.publish("m.json", make_manifest(CONTENT_HASH, key, "ipfs://x", 31337))
        await register(development_chain, registry, key, CONTENT_HASH, uri)
        yield World(api, manifests, {"registryAddress": registry, "manifestURI": uri})


async def test_verify_gives_the_bare_result(world: World) -> None:
    """The reply is the bare verdict, by file and by hash; a changed file gives 200 with FAIL."""
    by_file = await world.api.post("/api/verify", data=world.fields, files={"file": ("x.txt", CONTENT)})
    by_hash = await world.api.post("/api/verify", json={**world.fields, "contentHash": CONTENT_HASH})
    changed = await world.api.post("/api/verify", data=world.fields, files={"file": ("x.txt", b"changed")})
    assert [reply.status_code for reply in (by_file, by_hash, changed)] == [200] * 3
    assert by_file.json()["status"] == by_hash.json()["status"] == "OK"
    assert by_file.json()["fileHash"] == CONTENT_HASH
    assert by_file.json()["checks"] == {"manifestHashOk": True, "creatorOk": True, "manifestOk": True}
    assert changed.json()["status"] == "FAIL"


async def test_proof_gives_the_bare_proof(world: World) -> None:
    """The reply is the portable proof, with the file's name."""
    reply = await world.api.post("/api/proof", data=world.fields, files={"file": ("x.txt", CONTENT)})
    assert reply.status_code == 200
    assert (reply.json()["version"], reply.json()["content"]) == ("1.0", {"file": "x.txt", "hash": CONTENT_HASH})
    assert reply.json()["verification"]["status"] == "OK"


async def test_a_permanent_fault_of_the_inputs_is_422(world: World) -> None:
    """A missing or malformed manifest, or an address without a registry, gives 422."""
    missing = world.fields["manifestURI"].replace("m.json", "none.json")
    malformed = world.manifests.publish("bad.json", b"[]")
    for change in ({"manifestURI": missing}, {"manifestURI": malformed}, {"registryAddress": NO_CODE}):
        reply = await world.api.post("/api/verify", json={**world.fields, "contentHash": CONTENT_HASH, **change})
        assert reply.status_code == 422, reply.text
        assert reply.json().keys() == {"error", "code", "correlationId"}


async def test_a_temporary_fault_is_503_with_retry_after(serve_api: ServeApi) -> None:
    """An unreachable upstream gives 503 with Retry-After."""
    fields = {"registryAddress": NO_CODE, "manifestURI": "http://127.0.0.1:9/m.json", "contentHash": CONTENT_HASH}
    async with serve_api(rpc_url="http://127.0.0.1:9/", fetch_allow_private=("127.0.0.1",)) as api:
        reply = await api.post("/api/verify", json=fields)
    assert reply.status_code == 503, reply.text
    assert int(reply.headers["retry-after"]) > 0
    assert reply.json().keys() >= {"error", "correlationId"}
