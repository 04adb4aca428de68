"""The service's signature on a proof."""

import json
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import SignatureFault
from iidq.provenance.digest import sha256_label
from iidq.provenance.proof.canonical_json import canonical_json
from iidq.provenance.proof.proof_signature import MEMBER, ServiceKey, check_service_signature, signing_digest

PROOF = json.loads((Path(__file__).parents[2] / "vectors" / "base-sepolia" / "proof.json").read_bytes())
KEY = ServiceKey.from_hex("0x" + "ab" * 32)
TYPES = {
    "EIP712Domain": [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ],
    "Proof": [
        {"name": "contentHash", "type": "bytes32"},
        {"name": "status", "type": "string"},
        {"name": "canonicalJsonSha256", "type": "bytes32"},
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the signed proof with a single member changed."""
    signed: dict[str, Any] = json.loads(json.dumps(KEY.sign(PROOF)))
    parent = signed
    *way, name = path.split(".")
    for step in way:
        parent = parent[step]
    parent[name] = value
    return signed


@given(st.integers(0, 2**256 - 1), st.binary(min_size=20, max_size=20), st.text(max_size=20))
def test_any_wallet_library_signs_the_same(chain_id: int, registry: bytes, file: str) -> None:
    """eth_account, given the member's domain and the documented types, makes the same signature."""
    proof = {
        **PROOF,
        "network": {"chainId": chain_id},
        "registry": "0x" + registry.hex(),
        "content": {**PROOF["content"], "file": file},
    }
    member = KEY.sign(proof)[MEMBER]
    typed = {
        "types": TYPES,
        "primaryType": "Proof",
        "domain": member["domain"],
        "message": {
            "contentHash": bytes.fromhex(proof["content"]["hash"][2:]),
            "status": "OK",
            "canonicalJsonSha256": bytes.fromhex(member["canonicalJsonSha256"][2:]),
        },
    }
    signed = Account.from_key("0x" + "ab" * 32).sign_message(encode_typed_data(full_message=typed))
    assert "0x" + signed.signature.hex().removeprefix("0x") == member["signature"]
    assert member["signer"] == KEY.address == Account.from_key("0x" + "ab" * 32).address


def test_the_digest_is_that_of_the_canonical_json() -> None:
    """The signed digest is the SHA-256 of the whole proof's canonical JSON."""
    member = KEY.sign(PROOF)[MEMBER]
    assert "sha256:" + member["canonicalJsonSha256"][2:] == sha256_label(canonical_json(PROOF))


def test_storing_does_not_break_the_signature() -> None:
    """A proof with members in another order, as returned by jsonb, keeps its signature."""
    stored = json.loads(json.dumps(KEY.sign(PROOF), sort_keys=True))
    assert check_service_signature(dict(reversed(stored.items()))) == KEY.address


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generated_at", "2026-01-01T00:00:00.000Z"),
        ("network.chainId", 1),
        ("registry", "0x" + "11" * 20),
        ("content.file", "other"),
        ("onchain.timestamp", 1),
        ("verification.status", "WARN"),
        ("added", None),
        ("serviceSignature.scheme", "EIP-191"),
        ("serviceSignature.signer", "0x" + "11" * 20),
        ("serviceSignature.signer", None),
        ("serviceSignature.domain", {}),
        ("serviceSignature.domain.name", "other"),
        ("serviceSignature.domain.version", 1),
        ("serviceSignature.domain.chainId", 84532.0),
        ("serviceSignature.domain.verifyingContract", "0x" + "11" * 20),
        ("serviceSignature.domain.salt", "0x"),
        ("serviceSignature.canonicalJsonSha256", "0x" + "11" * 32),
        ("serviceSignature.added", "by Alice"),
    ],
)
def test_any_change_is_noticed(path: str, value: Any) -> None:
    """A signed proof with any member changed or added is refused, also with a changed member of the signature."""
    with pytest.raises(SignatureFault):
        check_service_signature(changed(path, value))


def test_another_spelling_of_the_signature_is_refused() -> None:
    """The signature has a single spelling, so a changed spelling is refused."""
    signature = KEY.sign(PROOF)[MEMBER]["signature"]
    spellings = [signature.upper().replace("X", "x"), signature[:-2] + f"{int(signature[-2:], 16) - 27:02x}"]
    for spelling in spellings:
        with pytest.raises(SignatureFault):
            check_service_signature(changed("serviceSignature.signature", spelling))


@pytest.mark.parametrize("integer", [1 << 53, (1 << 53) + 1, -(1 << 53), 1 << 64])
@pytest.mark.parametrize("path", ["onchain.timestamp", "added"])
def test_integers_that_the_signature_does_not_fix_are_refused(path: str, integer: int) -> None:
    """An integer beyond 2^53 is refused: another integer can have the same canonical form and signature."""
    proof = changed(path, integer)
    del proof[MEMBER]
    with pytest.raises(SignatureFault, match=r"beyond 2\^53"):
        check_service_signature(KEY.sign(proof))


@pytest.mark.parametrize("member", [None, [], {}, {"signature": 5}, {"signature": "0x12"}])
def test_a_signature_that_is_none_is_a_fault(member: Any) -> None:
    """A malformed signature is a SignatureFault."""
    with pytest.raises(SignatureFault):
        check_service_signature({**PROOF, MEMBER: member})


@given(
    st.none()
    | st.integers()
    | st.dictionaries(st.sampled_from(["signature", "signer", "domain"]), st.text() | st.integers())
)
def test_any_member_is_refused_or_its_own(member: Any) -> None:
    """Any JSON in the signature's place is a SignatureFault."""
    with pytest.raises(SignatureFault):
        check_service_signature({**PROOF, MEMBER: member})


@pytest.mark.parametrize(
    "proof",
    [
        {},
        {**PROOF, "network": 1},
        {**PROOF, "registry": "0x12"},
        {**PROOF, "registry": 7},
        {**PROOF, "content": {"hash": "0x12"}},
        {**PROOF, "network": {"chainId": -1}},
        {**PROOF, "network": {"chainId": 2**256}},
    ],
)
def test_what_is_no_proof_has_no_digest(proof: dict[str, Any]) -> None:
    """A proof without the signed members has no digest."""
    with pytest.raises(ValueError, match="no proof"):
        signing_digest(proof)


def test_the_key_does_not_show() -> None:
    """Neither the secret nor a part of the secret is in the key's text."""
    assert "abab" not in repr(KEY)
    assert KEY.address in repr(KEY)
