"""The verifier on real parts: a chain, a registry and a gateway that are really there."""

import secrets
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from iidq.embedded.accounts import DEVELOPMENT_KEYS
from iidq.embedded.content import make_manifest
from iidq.embedded.contracts import Layout
from iidq.embedded.manifests import ManifestServer, serve_manifests
from iidq.embedded.registry import deploy_registry, register, revoke
from iidq.errors import FetchRefused, RegistryFault
from iidq.provenance.verifier import Verifier, open_verifier
from iidq.provenance.verify import Subject
from iidq.settings import Settings

CREATOR, STRANGER = DEVELOPMENT_KEYS[1], DEVELOPMENT_KEYS[2]
CHAIN_ID = 31337

layouts = pytest.mark.parametrize("layout", get_args(Layout))


@pytest.fixture
async def manifests() -> AsyncIterator[ManifestServer]:
    async with serve_manifests() as server:
        yield server


@pytest.fixture
async def verifier(chain_url: str, manifests: ManifestServer) -> AsyncIterator[Verifier]:
    settings = Settings.model_validate({"rpc_url": chain_url, "ipfs_gateways": (manifests.base_url,)})
    async with open_verifier(settings) as opened:
        yield opened


def new_hash() -> str:
    return "0x" + secrets.token_hex(32)


@layouts
async def test_a_registered_content_is_ok(
    verifier: Verifier, chain_url: str, manifests: ManifestServer, layout: Layout
) -> None:
    """Right after its registration a content verifies as OK, with the block's own time, on every chain at hand."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    receipt = await register(chain_url, registry, CREATOR, content_hash, uri)
    result = await verifier.run("verify", Subject(content_hash, uri, registry))
    assert (result["status"], result["onchain"]["timestamp"]) == ("OK", receipt.timestamp)
    assert not [check for check in result["report"]["checks"] if check["outcome"] == "failed"]


@layouts
async def test_a_proof_carries_its_transaction(
    verifier: Verifier, chain_url: str, manifests: ManifestServer, layout: Layout
) -> None:
    """A proof names the transaction that registered the content, also with others before and after it."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    await register(chain_url, registry, STRANGER, new_hash(), "ipfs://before")
    receipt = await register(chain_url, registry, CREATOR, content_hash, uri)
    await register(chain_url, registry, STRANGER, new_hash(), "ipfs://after")
    proof = await verifier.run("proof", Subject(content_hash, uri, registry, file_name="a.wav"))
    assert proof["tx"]["txHash"] == receipt.tx_hash
    assert (proof["registry"], proof["network"]["chainId"]) == (registry, CHAIN_ID)
    assert proof["verification"]["status"] == "OK"


@layouts
async def test_a_revoked_entry_warns(
    verifier: Verifier, chain_url: str, manifests: ManifestServer, layout: Layout
) -> None:
    """A content whose entry was revoked is WARN, and its proof still names the registration."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    receipt = await register(chain_url, registry, CREATOR, content_hash, uri)
    await revoke(chain_url, registry, CREATOR, content_hash)
    proof = await verifier.run("proof", Subject(content_hash, uri, registry))
    outcomes = {check["code"]: check["outcome"] for check in proof["report"]["checks"]}
    assert (proof["verification"]["status"], outcomes["registry.notRevoked"]) == ("WARN", "failed")
    assert proof["tx"]["txHash"] == receipt.tx_hash


async def test_an_unregistered_content_fails(verifier: Verifier, chain_url: str, manifests: ManifestServer) -> None:
    """A hash that nobody registered is a FAIL verdict, not an error."""
    registry = await deploy_registry(chain_url, CREATOR, "new")
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    result = await verifier.run("verify", Subject(content_hash, uri, registry))
    assert (result["status"], result["onchain"]["creator"]) == ("FAIL", "0x" + "0" * 40)


async def test_an_address_without_code_is_a_fault(verifier: Verifier, manifests: ManifestServer) -> None:
    """A registry address that holds no code fails the job at once."""
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    with pytest.raises(RegistryFault) as caught:
        await verifier.run("verify", Subject(content_hash, uri, "0x" + "77" * 20))
    assert caught.value.code == "registry.no_code"


async def test_a_strange_rpc_url_is_refused(verifier: Verifier, chain_url: str) -> None:
    """A job's rpcUrl is refused unless the operator named it, before anything is fetched."""
    assert verifier.check_rpc_url(chain_url) == chain_url
    subject = Subject(new_hash(), "ipfs://unused", "0x" + "77" * 20, rpc_url="http://127.0.0.1:1")
    with pytest.raises(FetchRefused):
        await verifier.run("verify", subject)


async def test_only_two_kinds_of_jobs_exist(verifier: Verifier) -> None:
    """Another kind of job is a programmer's error."""
    with pytest.raises(ValueError, match="no such kind"):
        await verifier.run("guess", Subject(new_hash(), "ipfs://unused", "0x" + "77" * 20))
