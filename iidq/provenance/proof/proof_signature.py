"""The service's signature on a proof: EIP-712 over the SHA-256 of its canonical JSON.

    domain  {name: "iidq", version: "1", chainId, verifyingContract: the registry}
    struct  Proof(bytes32 contentHash,string status,bytes32 canonicalJsonSha256)

The JSON is the whole proof with report, without the member ``serviceSignature``, in canonical form (RFC 8785). So the
signature can be checked after any way of storage. A test compares eth_account, which takes a second to import.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from iidq.errors import SignatureFault
from iidq.provenance.ethereum.address import address_of_bytes, keccak256
from iidq.provenance.ethereum.signature import parse_signature, recover_from_digest
from iidq.provenance.proof.canonical_json import canonical_json

MEMBER: Final = "serviceSignature"
_SCHEME: Final = "EIP-712"
_NAME: Final = "iidq"
_VERSION: Final = "1"
# A single spelling, so that every change of the member is noticed.
_SPELLING: Final = re.compile(r"0x[0-9a-f]{128}1[bc]")
_LARGEST_EXACT: Final = (1 << 53) - 1
# EIP-712, "Definition of encodeType".
_DOMAIN_TYPE: Final = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_PROOF_TYPE: Final = b"Proof(bytes32 contentHash,string status,bytes32 canonicalJsonSha256)"


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The service's signing key (``PRIVATE_KEY``)."""

    address: str
    """EIP-55 address of the key."""
    _secret: bytes

    @classmethod
    def from_hex(cls, text: str) -> "ServiceKey":
        """Read 64 hex digits, with or without ``0x``; settings have validated the key."""
        from coincurve import PrivateKey  # loaded when proofs are signed

        secret = bytes.fromhex(text.removeprefix("0x"))
        public = PrivateKey(secret).public_key.format(compressed=False)
        return cls(address_of_bytes(keccak256(public[1:])[12:]), secret)

    def __repr__(self) -> str:
        return f"ServiceKey({self.address})"

    def sign(self, proof: dict[str, Any]) -> dict[str, Any]:
        """Return the proof with the service's signature as its last member."""
        from coincurve import PrivateKey

        signed = PrivateKey(self._secret).sign_recoverable(signing_digest(proof), hasher=None)
        signature = "0x" + signed[:64].hex() + f"{27 + signed[64]:02x}"
        return {**proof, MEMBER: _member(proof, self.address, signature)}


def check_service_signature(proof: dict[str, Any]) -> str:
    """Return the EIP-55 address of the proof's signer.

    Raises :class:`SignatureFault` for a malformed signature, another signer than named, members other than
    :meth:`ServiceKey.sign` writes, or integers beyond 2^53.
    """
    member = proof.get(MEMBER)
    signature = member.get("signature") if isinstance(member, dict) else None
    if not isinstance(member, dict) or not isinstance(signature, str) or not _SPELLING.fullmatch(signature):
        raise SignatureFault(f"{MEMBER} carries no signature; expected 0x, 128 lower-case hex digits and 1b or 1c")
    try:
        expected_but_signer = _member(proof, member.get("signer"), signature)
        signer = recover_from_digest(signing_digest(proof), parse_signature(signature))
    except (KeyError, TypeError, ValueError):
        raise SignatureFault("the proof cannot be hashed, so nothing can have signed it") from None
    if _has_inexact_integer(proof):
        raise SignatureFault("the proof holds an integer beyond 2^53, which the signature does not fix")
    named = member.get("signer")
    if signer != named:
        raise SignatureFault(f"the proof is not as {named} signed it: it was changed, or never signed")
    differing = [name for name in {**expected_but_signer, **member} if _differ(member, expected_but_signer, name)]
    if differing:
        raise SignatureFault(f"members of {MEMBER} do not belong to this signature: {', '.join(differing)}")
    return signer


def _differ(found: dict[str, Any], expected: dict[str, Any], name: str) -> bool:
    # As text, because 1, 1.0 and true are equal in Python; sorted, because jsonb changes the order of members.
    written = [json.dumps(members.get(name), sort_keys=True) for members in (found, expected)]
    return name not in found or name not in expected or written[0] != written[1]


def _has_inexact_integer(value: Any) -> bool:
    """Return whether an integer shares its canonical form with another integer (RFC 7493, section 2.2)."""
    match value:
        case int():
            return abs(value) > _LARGEST_EXACT
        case dict():
            return any(map(_has_inexact_integer, value.values()))
        case list():
            return any(map(_has_inexact_integer, value))
        case _:
            return False


def _member(proof: dict[str, Any], signer: Any, signature: str) -> dict[str, Any]:
    return {
        "scheme": _SCHEME,
        "signer": signer,
        "domain": {
            "name": _NAME,
            "version": _VERSION,
            "chainId": proof["network"]["chainId"],
            "verifyingContract": proof["registry"],
        },
        "canonicalJsonSha256": "0x" + _json_sha256(proof).hex(),
        "signature": signature,
    }


def signing_digest(proof: dict[str, Any]) -> bytes:
    """Return the EIP-712 digest of the proof; raise ValueError if a signed member is missing."""
    try:
        chain_id, registry = int(proof["network"]["chainId"]), bytes.fromhex(proof["registry"][2:])
        content_hash = bytes.fromhex(proof["content"]["hash"][2:])
        status = proof["verification"]["status"].encode()
        chain_word = chain_id.to_bytes(32)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise ValueError("this is no proof: chain, registry, content hash or status is missing") from None
    if len(content_hash) != 32 or len(registry) != 20:
        raise ValueError("this is no proof: its content hash or registry has another length")
    domain = keccak256(
        keccak256(_DOMAIN_TYPE)
        + keccak256(_NAME.encode())
        + keccak256(_VERSION.encode())
        + chain_word
        + registry.rjust(32, b"\x00")
    )
    struct = keccak256(keccak256(_PROOF_TYPE) + content_hash + keccak256(status) + _json_sha256(proof))
    return keccak256(b"\x19\x01" + domain + struct)


def _json_sha256(proof: dict[str, Any]) -> bytes:
    unsigned = {name: value for name, value in proof.items() if name != MEMBER}
    return hashlib.sha256(canonical_json(unsigned)).digest()
