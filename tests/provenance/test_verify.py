"""The verification from end to end, on a chain in memory."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from iidq.errors import GatewayFault, IidqError, ManifestFault, RegistryFault, RpcFault, SignatureFault
from iidq.provenance import verify as steps
from iidq.provenance.ethereum.address import checksum_address
from iidq.provenance.ethereum.chain import Chain
from iidq.provenance.report import FetchedManifest, SourceTried
from iidq.subject import Subject
from tests.provenance.report_schema import valid
from tests.provenance.rpc_world import (
    CHAIN_ID,
    CONTENT_HASH,
    CREATOR,
    MANIFEST_URI,
    REGISTRY,
    Server,
    World,
    endpoint,
    new_layout,
    old_layout,
)

VECTOR = Path(__file__).parents[1] / "vectors" / "base-sepolia"
MANIFEST = VECTOR.joinpath("manifest.json").read_bytes()
PROOF = json.loads(VECTOR.joinpath("proof.json").read_bytes())
TX = "0x" + "77" * 32
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SUBJECT = Subject(CONTENT_HASH, MANIFEST_URI, REGISTRY, file_name="film.mp4")
SOURCE = SourceTried("manifest", "https://gateway.example", "sha256:" + "00" * 32, "used", "fetched")


async def verify(*arguments: Any) -> dict[str, Any]:
    return valid(await steps.verify(*arguments))


async def prove(*arguments: Any) -> dict[str, Any]:
    return valid(await steps.prove(*arguments))


@dataclass
class Manifests:
    """The far end of a manifest URI: returns ``body``, or raises ``fault``."""

    body: bytes = MANIFEST
    fault: IidqError | None = None
    asked: list[str] = field(default_factory=list)

    async def fetch(self, manifest_uri: str) -> FetchedManifest:
        self.asked.append(manifest_uri)
        if self.fault is not None:
            raise self.fault
        return FetchedManifest(self.body, True, (SOURCE,))


def registered_world() -> World:
    world = World(times=[1_759_774_780 + 2 * number for number in range(10)])
    world.register(3, TX)
    return world


def chain_of(world: World) -> Chain:
    return Chain([endpoint(Server(world.answer))], chain_id=CHAIN_ID)


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(MANIFEST), **changes}).encode()


@pytest.mark.parametrize("layout", ["old", "new"])
async def test_the_public_vector_is_ok(layout: str) -> None:
    """The public manifest, registered as on its chain, is OK in either layout, with every member of the result."""
    world = registered_world()
    if layout == "old":
        world.entry = old_layout(CREATOR, CONTENT_HASH, MANIFEST_URI.encode(), 1_759_774_786)
    progress: list[int] = []
    result = await verify(SUBJECT, Manifests(), chain_of(world), progress.append)
    report = result.pop("report")
    assert result == {
        "status": "OK",
        "fileHash": CONTENT_HASH,
        "recovered": CREATOR,
        "onchain": {
            "creator": CREATOR,
            "contentHash": CONTENT_HASH,
            "manifestURI": MANIFEST_URI,
            "timestamp": 1_759_774_786,
        },
        "checks": {"manifestHashOk": True, "creatorOk": True, "manifestOk": True},
    }
    assert progress == [10, 30, 50, 70, 90]
    assert [check["code"] for check in report["checks"] if check["outcome"] == "failed"] == []
    assert [source["what"] for source in report["sources"]] == ["manifest", "registry"]
    assert report["block"] == {"chainId": CHAIN_ID, "number": 9, "hash": world.block_hash(9), "tag": "latest"}
    assert ISO.fullmatch(report["verifiedAt"])
    assert "secret" not in json.dumps(report)


async def test_the_public_vectors_proof_is_the_fields_own() -> None:
    """The proof of the public manifest equals its published proof file, and adds the transaction."""
    progress: list[int] = []
    subject = SUBJECT._replace(file_name=PROOF["content"]["file"])
    proof = await prove(subject, Manifests(), chain_of(registered_world()), progress.append)
    assert progress == [10, 30, 50, 70, 85, 90]
    assert proof["tx"] == {"txHash": TX}
    assert proof["registry"] == checksum_address(REGISTRY)
    assert proof["network"] == {"chainId": PROOF["network"]["chainId"]}
    assert ISO.fullmatch(proof["generated_at"])
    for name in ("version", "content", "onchain", "signature", "verification"):
        assert proof[name] == PROOF[name]
    del PROOF["manifest"]["cid"]
    assert proof["manifest"] == PROOF["manifest"]
    assert set(proof) == {*PROOF, "tx", "report"}


async def test_another_uri_on_chain_warns() -> None:
    """The same manifest under another URI is WARN."""
    world = registered_world()
    world.entry = new_layout(CREATOR, b"ipfs://other", 1_759_774_786)
    result = await verify(SUBJECT, Manifests(), chain_of(world), lambda _: None)
    assert (result["status"], result["onchain"]["manifestURI"]) == ("WARN", "ipfs://other")


async def test_tampered_content_fails_with_its_signer() -> None:
    """A tampered file is FAIL; the recovered address is the signer of the manifest's hash."""
    world = registered_world()
    world.entry = new_layout("0x" + "0" * 40, b"", 0)
    subject = SUBJECT._replace(content_hash="0x" + "EE" * 32)
    result = await verify(subject, Manifests(), chain_of(world), lambda _: None)
    assert (result["status"], result["fileHash"], result["recovered"]) == ("FAIL", "0x" + "ee" * 32, CREATOR)
    assert result["onchain"] == {
        "creator": "0x" + "0" * 40,
        "contentHash": "0x" + "0" * 64,
        "manifestURI": "",
        "timestamp": 0,
    }
    assert result["checks"] == {"manifestHashOk": False, "creatorOk": False, "manifestOk": False}


async def test_a_proof_without_transaction_or_did_leaves_both_out() -> None:
    """A proof omits a missing transaction or DID instead of null, and the report has the reason; the file may be
    unnamed.
    """
    world = registered_world()
    world.logs.clear()
    manifest = json.loads(MANIFEST)
    del manifest["creator_did"]
    proof = await prove(
        SUBJECT._replace(file_name=None), Manifests(json.dumps(manifest).encode()), chain_of(world), lambda _: None
    )
    assert "tx" not in proof
    assert set(proof["manifest"]) == {"uri", "signature"}
    assert proof["content"]["file"] == "unknown"
    assert proof["verification"]["status"] == "OK"
    reasons = {check["code"]: check for check in proof["report"]["checks"]}
    assert reasons["registry.transaction"]["outcome"] == "notChecked"
    assert "not found" in reasons["registry.transaction"]["message"]


async def test_a_registered_nul_can_be_stored() -> None:
    """A URI with a NUL on chain gives a verdict that Postgres can store, and differs from the URI without the NUL."""
    world = registered_world()
    world.entry = new_layout(CREATOR, MANIFEST_URI.encode() + b"\x00", 1_759_774_786)
    result = await verify(SUBJECT, Manifests(), chain_of(world), lambda _: None)
    assert result["status"] == "WARN"
    assert "\\u0000" not in json.dumps(result)


@pytest.mark.parametrize(
    ("manifests", "fault", "code"),
    [
        (Manifests(b"[]"), ManifestFault, "manifest.not_object"),
        (Manifests(changed(signature="0x" + "11" * 63)), SignatureFault, "signature.malformed"),
        (Manifests(changed(signature="0x" + "ff" * 65)), SignatureFault, "signature.high_s"),
        (Manifests(b'{"a":"' + b"x" * 500_000), ManifestFault, "manifest.not_json"),
        (Manifests(fault=GatewayFault("gone")), GatewayFault, "fetch.unavailable"),
    ],
)
async def test_a_manifests_fault_ends_the_job(manifests: Manifests, fault: type[IidqError], code: str) -> None:
    """A manifest that cannot be fetched, parsed or recovered from ends the job with the manifest's fault, and nothing
    runs on.
    """
    before = len(asyncio.all_tasks())
    chain = chain_of(registered_world())
    with pytest.raises(fault) as caught:
        await verify(SUBJECT, manifests, chain, lambda _: None)
    assert caught.value.code == code
    for each in chain.endpoints:
        await each.aclose()
    assert len(asyncio.all_tasks()) == before


async def test_a_wallets_signature_names_no_signer() -> None:
    """A signature without a signer is OK in verdict and proof if the creator's contract accepts the signature."""
    world = registered_world()
    world.wallet = {"result": "0x1626ba7e" + "00" * 28}
    manifests = Manifests(changed(signature="0x" + "ab" * 200))
    result = await verify(SUBJECT, manifests, chain_of(world), lambda _: None)
    assert (result["status"], result["recovered"]) == ("OK", None)
    proof = await prove(SUBJECT, manifests, chain_of(world), lambda _: None)
    assert proof["signature"] == {"recovered": None, "valid": True}
    whats = [source["what"] for source in proof["report"]["sources"]]
    assert whats == ["manifest", "registry", "wallet", "transaction"]


async def test_the_creators_own_key_needs_no_wallet() -> None:
    """A signature by the registered creator's key needs no wallet, even with code at the creator's address."""
    world = registered_world()
    world.wallet = {"result": "0xffffffff" + "00" * 28}
    result = await verify(SUBJECT, Manifests(), chain_of(world), lambda _: None)
    assert (result["status"], result["recovered"]) == ("OK", CREATOR)
    assert "eth_getCode" not in world.asked


async def test_a_bad_signature_waits_for_the_registry() -> None:
    """A signature without a signer is a fault only after the read of the registry: while the registry is away, the job
    waits.
    """
    world = registered_world()
    world.chain_id = 5
    with pytest.raises(RpcFault):
        await verify(SUBJECT, Manifests(changed(signature="0x11")), chain_of(world), lambda _: None)


async def test_a_huge_string_is_not_used() -> None:
    """A manifest with a string of ten megabytes is refused with a short message."""
    manifests = Manifests(changed(signature="0x" + "11" * 5_000_000))
    with pytest.raises(ManifestFault) as caught:
        await verify(SUBJECT, manifests, chain_of(registered_world()), lambda _: None)
    assert (caught.value.code, len(caught.value.message) < 300) == ("manifest.signature", True)


@pytest.mark.parametrize(
    ("world", "fault"),
    [(World(times=[1], code=b""), RegistryFault), (World(times=[1], chain_id=5), RpcFault)],
)
async def test_a_chains_fault_ends_the_job(world: World, fault: type[IidqError]) -> None:
    """A missing registry, or an endpoint on another chain, ends the job with a fault."""
    with pytest.raises(fault):
        await verify(SUBJECT, Manifests(), chain_of(world), lambda _: None)


@pytest.mark.parametrize("both_fail", [True, False])
async def test_the_manifests_fault_comes_first(both_fail: bool) -> None:
    """A fault of the manifest is reported, whatever the chain's state."""
    world = World(times=[1], code=b"") if both_fail else registered_world()
    with pytest.raises(ManifestFault):
        await verify(SUBJECT, Manifests(b"no"), chain_of(world), lambda _: None)
