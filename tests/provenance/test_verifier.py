"""The verifier on real parts: a chain, a registry and a gateway."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from iidq.embedded.contracts import Layout
from iidq.embedded.demo_registry import deploy_registry, register, revoke
from iidq.embedded.manifests import ManifestServer, serve_manifests
from iidq.errors import FetchRefused, RegistryFault
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.manifest import make_manifest
from iidq.provenance.proof.proof_check import check_proof
from iidq.provenance.proof.proof_signature import ServiceKey
from iidq.provenance.verifier import Verifier, open_verifier
from iidq.settings import Settings
from iidq.subject import Subject

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


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read everything and stay silent until the client leaves."""
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


def new_hash() -> str:
    return "0x" + secrets.token_hex(32)


@layouts
async def test_a_registered_content_is_ok(
    verifier: Verifier, chain_url: str, manifests: ManifestServer, layout: Layout
) -> None:
    """Right after its registration a content verifies as OK, with the block's own time, on every available chain."""
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
    """A proof names the transaction of the content's registration, also with other registrations before and after."""
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
    """A content with a revoked entry is WARN, and its proof still names the registration."""
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
    """An unregistered hash is a FAIL verdict, not an error."""
    registry = await deploy_registry(chain_url, CREATOR, "new")
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    result = await verifier.run("verify", Subject(content_hash, uri, registry))
    assert (result["status"], result["onchain"]["creator"]) == ("FAIL", "0x" + "0" * 40)


async def test_an_address_without_code_is_a_fault(verifier: Verifier, manifests: ManifestServer) -> None:
    """A registry address without code fails the job at once."""
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    with pytest.raises(RegistryFault) as caught:
        await verifier.run("verify", Subject(content_hash, uri, "0x" + "77" * 20))
    assert caught.value.code == "registry.no_code"


async def test_a_verdict_is_reused_for_a_while(verifier: Verifier, chain_url: str, manifests: ManifestServer) -> None:
    """A repeated verify gets the earlier verdict with its block and time, marked as reused; a proof always runs."""
    registry = await deploy_registry(chain_url, CREATOR)
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    await register(chain_url, registry, CREATOR, content_hash, uri)
    subject, progress = Subject(content_hash, uri, registry), list[int]()
    first = await verifier.run("verify", subject)
    await revoke(chain_url, registry, CREATOR, content_hash)
    same = Subject(content_hash.upper().replace("X", "x"), uri, registry.lower(), file_name="other")
    second = await verifier.run("verify", same, progress.append)
    assert (first["report"].pop("reused"), second["report"].pop("reused")) == (False, True)
    assert second == first
    assert progress == [90]
    proof = await verifier.run("proof", subject)
    assert (proof["verification"]["status"], proof["report"]["reused"]) == ("WARN", False)
    assert (await verifier.run("verify", Subject(content_hash, uri + "/", registry)))["report"]["reused"] is False


async def test_simultaneous_verifications_share_one_run(
    verifier: Verifier, chain_url: str, manifests: ManifestServer
) -> None:
    """Of simultaneous equal verifications, a single one runs and the others share its verdict."""
    registry = await deploy_registry(chain_url, CREATOR)
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    await register(chain_url, registry, CREATOR, content_hash, uri)
    subject = Subject(content_hash, uri, registry)
    results = await asyncio.gather(*(verifier.run("verify", subject) for _ in range(10)))
    assert [result["report"]["reused"] for result in results].count(False) == 1
    assert {result["status"] for result in results} == {"OK"}
    assert len({result["report"]["verifiedAt"] for result in results}) == 1


async def test_without_a_cache_every_verdict_is_found_anew(chain_url: str, manifests: ManifestServer) -> None:
    """With RESULT_CACHE_SECONDS=0 a change on the chain shows in the next verdict."""
    registry = await deploy_registry(chain_url, CREATOR)
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    await register(chain_url, registry, CREATOR, content_hash, uri)
    settings = Settings.model_validate(
        {"rpc_url": chain_url, "ipfs_gateways": (manifests.base_url,), "result_cache_seconds": 0}
    )
    async with open_verifier(settings) as uncached:
        subject = Subject(content_hash, uri, registry)
        assert (await uncached.run("verify", subject))["status"] == "OK"
        await revoke(chain_url, registry, CREATOR, content_hash)
        assert (await uncached.run("verify", subject))["status"] == "WARN"


@layouts
async def test_a_service_with_a_key_signs_its_proofs(chain_url: str, manifests: ManifestServer, layout: Layout) -> None:
    """With PRIVATE_KEY set a proof carries the service's signature, valid offline; verdicts carry none."""
    registry = await deploy_registry(chain_url, CREATOR, layout)
    content_hash, key = new_hash(), "ab" * 32
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    await register(chain_url, registry, CREATOR, content_hash, uri)
    settings = Settings.model_validate(
        {"rpc_url": chain_url, "ipfs_gateways": (manifests.base_url,), "private_key": "0x" + key}
    )
    async with open_verifier(settings) as signing:
        proof = await signing.run("proof", Subject(content_hash, uri, registry, file_name="ä.wav"))
        assert "serviceSignature" not in await signing.run("verify", Subject(content_hash, uri, registry))
    findings = check_proof(proof)
    assert (findings.holds, findings.signer) == (True, ServiceKey.from_hex(key).address)
    assert [check.code for check in findings.checks if check.outcome == "passed"] == [
        "signature.recovered",
        "manifest.creatorDid",
        "proof.verdict",
        "proof.report",
        "proof.serviceSignature",
    ]


@pytest.mark.parametrize("what", ["tampered", "revoked", "unregistered", "stranger"])
async def test_every_proof_holds_offline(
    verifier: Verifier, chain_url: str, manifests: ManifestServer, what: str
) -> None:
    """Every proof follows from its own evidence, for each verdict."""
    registry = await deploy_registry(chain_url, CREATOR)
    content_hash = new_hash()
    signer = STRANGER if what == "stranger" else CREATOR
    uri = manifests.publish_ipfs(make_manifest(content_hash, signer, "ipfs://content", CHAIN_ID))
    if what != "unregistered":
        await register(chain_url, registry, CREATOR, content_hash, uri)
    if what == "revoked":
        await revoke(chain_url, registry, CREATOR, content_hash)
    asked = new_hash() if what == "tampered" else content_hash
    findings = check_proof(await verifier.run("proof", Subject(asked, uri, registry)))
    assert findings.holds, findings.checks
    assert findings.status == ("WARN" if what == "revoked" else "FAIL")


@pytest.mark.parametrize("how", ["dead", "hanging"])
async def test_the_second_of_two_stands_in(chain_url: str, manifests: ManifestServer, how: str) -> None:
    """With the first gateway and the first endpoint dead or hanging, the second ones give the verdict. The report names
    the first.
    """
    registry = await deploy_registry(chain_url, CREATOR)
    content_hash = new_hash()
    uri = manifests.publish_ipfs(make_manifest(content_hash, CREATOR, "ipfs://content", CHAIN_ID))
    await register(chain_url, registry, CREATOR, content_hash, uri)
    hanging = await asyncio.start_server(_swallow, "127.0.0.1", 0)
    ill_url = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
    if how == "dead":
        hanging.close()
    settings = Settings.model_validate(
        {
            "rpc_url": ill_url,
            "rpc_urls": {CHAIN_ID: (ill_url, chain_url)},
            "ipfs_gateways": (ill_url, manifests.base_url),
        }
    )
    async with open_verifier(settings) as hedged:
        result = await hedged.run("verify", Subject(content_hash, uri, registry))
    hanging.close()
    assert result["status"] == "OK"
    told = [(source["what"], source["outcome"]) for source in result["report"]["sources"]]
    assert told == [("manifest", "failed"), ("manifest", "used"), ("registry", "failed"), ("registry", "used")]


async def test_a_strange_rpc_url_is_refused(verifier: Verifier, chain_url: str) -> None:
    """A job's rpcUrl is refused unless the operator has named the URL, before any fetch."""
    assert verifier.check_rpc_url(chain_url) == chain_url
    subject = Subject(new_hash(), "ipfs://unused", "0x" + "77" * 20, rpc_url="http://127.0.0.1:1")
    with pytest.raises(FetchRefused):
        await verifier.run("verify", subject)


async def test_only_two_kinds_of_jobs_exist(verifier: Verifier) -> None:
    """A job of another type raises a programmer's error."""
    with pytest.raises(ValueError, match="no such kind"):
        await verifier.run("guess", Subject(new_hash(), "ipfs://unused", "0x" + "77" * 20))
