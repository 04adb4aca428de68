"""Contents registered by contract wallets, on real chains."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from iidq.embedded.contracts.build import EVM_VERSION, SOLC_VERSION
from iidq.embedded.demo_registry import deploy_registry, register
from iidq.embedded.manifests import ManifestServer, serve_manifests
from iidq.errors import SignatureFault
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.verifier import Verifier, open_verifier
from iidq.settings import Settings
from iidq.subject import Subject
from tests.provenance.contract_wallet import ARTIFACT, FOLDER, deploy_wallet, register_by_wallet

OWNER, STRANGER = DEVELOPMENT_KEYS[3], DEVELOPMENT_KEYS[4]
ACCEPTS_ANYTHING = 6
RSA_SIGNATURE = "0x" + "a5" * 256


@pytest.fixture
async def manifests() -> AsyncIterator[ManifestServer]:
    async with serve_manifests() as server:
        yield server


@pytest.fixture
async def verifier(chain_url: str, manifests: ManifestServer) -> AsyncIterator[Verifier]:
    settings = Settings.model_validate({"rpc_url": chain_url, "ipfs_gateways": (manifests.base_url,)})
    async with open_verifier(settings) as opened:
        yield opened


def signature_by(key: str, content_hash: str) -> str:
    signed = Account.from_key(key).sign_message(encode_defunct(hexstr=content_hash))
    return "0x" + str(signed.signature.hex()).removeprefix("0x")


async def registered(
    chain_url: str, manifests: ManifestServer, signature: str | None, *, mood: int = 0, key: str = OWNER
) -> tuple[Subject, str]:
    """Register a content by a wallet; the manifest is signed by ``key`` unless a signature is given."""
    registry = await deploy_registry(chain_url, OWNER)
    wallet = await deploy_wallet(chain_url, OWNER, mood)
    content_hash = "0x" + secrets.token_hex(32)
    manifest = {
        "content_hash": content_hash,
        "creator_did": f"did:pkh:eip155:31337:{wallet}",
        "signature": signature or signature_by(key, content_hash),
    }
    uri = manifests.publish_ipfs(json.dumps(manifest).encode())
    await register_by_wallet(chain_url, wallet, OWNER, registry, content_hash, uri)
    return Subject(content_hash, uri, registry), wallet


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    return {check["code"]: check["outcome"] for check in result["report"]["checks"]}


async def test_a_wallets_owner_signs_for_it(verifier: Verifier, chain_url: str, manifests: ManifestServer) -> None:
    """A signature accepted by the creator's contract is OK; no key is named as the signer, and the report has the
    reason.
    """
    subject, wallet = await registered(chain_url, manifests, None)
    result = await verifier.run("verify", subject)
    assert (result["status"], result["recovered"], result["onchain"]["creator"]) == ("OK", None, wallet)
    found = outcomes(result)
    assert (found["signature.eip1271"], found["signature.recovered"]) == ("passed", "notChecked")
    assert (found["registry.creator"], found["manifest.creatorDid"]) == ("passed", "passed")
    assert [source["what"] for source in result["report"]["sources"]] == ["manifest", "registry", "wallet"]


async def test_a_strangers_signature_is_not_the_wallets(
    verifier: Verifier, chain_url: str, manifests: ManifestServer
) -> None:
    """A signature refused by the contract is FAIL, with the recovered signer."""
    subject, _ = await registered(chain_url, manifests, None, key=STRANGER)
    result = await verifier.run("verify", subject)
    assert (result["status"], result["recovered"]) == ("FAIL", Account.from_key(STRANGER).address)
    assert outcomes(result)["signature.eip1271"] == "failed"


async def test_a_wallet_may_have_signatures_of_its_own_kind(
    verifier: Verifier, chain_url: str, manifests: ManifestServer
) -> None:
    """The wallet judges a signature other than ECDSA, also in a proof, and the proof names the transaction."""
    subject, _ = await registered(chain_url, manifests, RSA_SIGNATURE, mood=ACCEPTS_ANYTHING)
    proof = await verifier.run("proof", subject)
    assert proof["signature"] == {"recovered": None, "valid": True}
    assert proof["verification"]["status"] == "OK"
    assert "tx" in proof


@pytest.mark.parametrize(
    "mood",
    [1, 2, 3, 4, 5],
    ids=["reverts", "returns nothing", "returns four bytes", "returns ones", "burns its gas"],
)
async def test_only_the_magic_value_is_a_yes(
    verifier: Verifier, chain_url: str, manifests: ManifestServer, mood: int
) -> None:
    """A contract that refuses, or answers anything but EIP-1271's magic value, has not accepted the signature."""
    subject, _ = await registered(chain_url, manifests, None, mood=mood)
    result = await verifier.run("verify", subject)
    assert (result["status"], outcomes(result)["signature.eip1271"]) == ("FAIL", "failed")
    assert result["recovered"] == Account.from_key(OWNER).address


async def test_what_no_key_fits_and_no_wallet_accepts_fails(
    verifier: Verifier, chain_url: str, manifests: ManifestServer
) -> None:
    """A signature without a signer, refused by the contract wallet, is a FAIL verdict without a signer."""
    subject, _ = await registered(chain_url, manifests, RSA_SIGNATURE)
    result = await verifier.run("verify", subject)
    assert (result["status"], result["recovered"]) == ("FAIL", None)
    assert outcomes(result)["manifest.creatorDid"] == "notChecked"


@pytest.mark.parametrize("is_registered", [True, False])
async def test_a_bad_signature_without_a_wallet_is_a_fault(
    verifier: Verifier, chain_url: str, manifests: ManifestServer, is_registered: bool
) -> None:
    """With a plain account as creator, or without a creator, a malformed signature fails the job at once."""
    registry = await deploy_registry(chain_url, OWNER)
    content_hash = "0x" + secrets.token_hex(32)
    manifest = json.dumps({"content_hash": content_hash, "signature": "0x" + "11" * 63}).encode()
    uri = manifests.publish_ipfs(manifest)
    if is_registered:
        await register(chain_url, registry, OWNER, content_hash, uri)
    with pytest.raises(SignatureFault) as caught:
        await verifier.run("verify", Subject(content_hash, uri, registry))
    assert (caught.value.code, caught.value.temporary) == ("signature.malformed", False)


def test_compiling_the_wallet_again_gives_the_committed_bytecode() -> None:
    """Compiling with the pinned compiler gives the committed bytecode; skipped without solcjs."""
    solcjs = os.environ.get("SOLCJS") or shutil.which("solcjs")
    if not solcjs:
        pytest.skip("no solcjs: set SOLCJS, or put it on PATH (npm package solc)")
    settings = {
        "evmVersion": EVM_VERSION,
        "optimizer": {"enabled": True, "runs": 200},
        "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
        "outputSelection": {"*": {"*": ["evm.bytecode.object"]}},
    }
    name = "ContractWallet.sol"
    sources = {name: {"content": (FOLDER / name).read_text()}}
    done = subprocess.run(
        [solcjs, "--standard-json"],
        input=json.dumps({"language": "Solidity", "sources": sources, "settings": settings}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    output = json.loads(done.stdout[done.stdout.index("{") :])
    assert ARTIFACT["compiler"] == f"solc {SOLC_VERSION}"
    assert "0x" + output["contracts"][name]["ContractWallet"]["evm"]["bytecode"]["object"] == ARTIFACT["bytecode"]
