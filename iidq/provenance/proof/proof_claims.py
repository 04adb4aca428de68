"""Read the claims of a proof: members of the expected form. Pure."""

import re
from dataclasses import dataclass
from typing import Any, Final

from iidq.errors import PermanentFault
from iidq.notation import ADDRESS, HASH, HEX_BYTES
from iidq.provenance.ethereum.address import checksum_address
from iidq.provenance.ethereum.registry import ZERO_HASH, Entry
from iidq.provenance.manifest import Manifest
from iidq.provenance.verdict import ContractWallet, Evidence
from iidq.strict_json import StrictJsonFault, parse_strictly

_TEXT: Final = re.compile(r"(?s).*")


class NotAProof(PermanentFault):
    """The file holds no proof, or a malformed proof."""

    code = "proof.malformed"


def read_proof(body: bytes) -> dict[str, Any]:
    """Return the proof in a JSON document, also in a job's or a reply's ``result``; raise :class:`NotAProof`."""
    try:
        document = parse_strictly(body)
    except StrictJsonFault as fault:
        raise NotAProof(f"the file {fault}") from None
    if isinstance(document, dict) and "verification" not in document and isinstance(document.get("result"), dict):
        document = document["result"]
    if not isinstance(document, dict):
        raise NotAProof("the file holds no JSON object; expected a proof")
    if "fileHash" in document and "checks" in document:
        raise NotAProof("this is the result of a verification, which carries no evidence; expected a proof")
    return document


@dataclass(frozen=True, slots=True)
class Claims:
    """The checked members of a proof; addresses are EIP-55."""

    chain_id: int
    """``network.chainId``."""
    registry: str
    """Address of the registry."""
    content_hash: str
    """``content.hash``, lower-case."""
    manifest_uri: str
    """``manifest.uri``."""
    creator_did: str | None
    """``manifest.creator_did``; None if absent."""
    manifest_signature: str
    """``manifest.signature``, hex."""
    creator: str
    """``onchain.creator``; the zero address for an unregistered content."""
    onchain_uri: str
    """``onchain.manifestURI``; empty after a revocation."""
    timestamp: int
    """``onchain.timestamp``, Unix seconds."""
    recovered: str | None
    """``signature.recovered``; None for a contract wallet's signature."""
    hash_ok: bool
    """``verification.fileHashMatchesManifest``."""
    creator_ok: bool
    """``verification.creatorMatchesOnchain``."""
    valid: bool
    """``signature.valid``."""
    uri_ok: bool
    """``verification.manifestURIMatchesOnchain``."""
    status: str
    """``verification.status``: OK, WARN or FAIL."""
    tx_hash: str | None
    """``tx.txHash``; None if the proof names no transaction."""

    @classmethod
    def of(cls, proof: dict[str, Any]) -> "Claims":
        """Read the members; raise :class:`NotAProof` with the path of the first malformed one."""
        recovered = _member(proof, "signature.recovered")
        return cls(
            chain_id=_number(proof, "network.chainId"),
            registry=_matching(proof, "registry", ADDRESS, "an address"),
            content_hash=_matching(proof, "content.hash", HASH, "0x and 64 hex digits").lower(),
            manifest_uri=_matching(proof, "manifest.uri", _TEXT, "text"),
            creator_did=_optional(proof, "manifest.creator_did", _TEXT, "text"),
            manifest_signature=_matching(proof, "manifest.signature", HEX_BYTES, "0x and hex digits"),
            creator=checksum_address(_matching(proof, "onchain.creator", ADDRESS, "an address")),
            onchain_uri=_matching(proof, "onchain.manifestURI", _TEXT, "text"),
            timestamp=_number(proof, "onchain.timestamp"),
            recovered=None
            if recovered is None
            else checksum_address(_matching(proof, "signature.recovered", ADDRESS, "an address or null")),
            hash_ok=_flag(proof, "verification.fileHashMatchesManifest"),
            creator_ok=_flag(proof, "verification.creatorMatchesOnchain"),
            valid=_flag(proof, "signature.valid"),
            uri_ok=_flag(proof, "verification.manifestURIMatchesOnchain"),
            status=_matching(proof, "verification.status", re.compile("OK|WARN|FAIL"), "OK, WARN or FAIL"),
            tx_hash=_optional(proof, "tx.txHash", HASH, "0x and 64 hex digits") if "tx" in proof else None,
        )

    def evidence(self) -> Evidence:
        """Return the evidence in the proof; facts outside the proof are taken as claimed."""
        other_hash = "0x" + "f" * 64 if self.content_hash == ZERO_HASH else ZERO_HASH
        return Evidence(
            content_hash=self.content_hash,
            manifest_uri=self.manifest_uri,
            manifest=Manifest(
                self.content_hash if self.hash_ok else other_hash, self.manifest_signature, self.creator_did
            ),
            cid_verified=None,
            recovered=self.recovered,
            entry=Entry(self.creator, self.content_hash, self.onchain_uri, self.timestamp),
            chain_id=self.chain_id,
            wallet=ContractWallet(self.valid) if self.recovered is None else None,
        )


def _member(proof: dict[str, Any], path: str) -> Any:
    value: Any = proof
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise NotAProof(f"the proof has no {path}")
        value = value[name]
    return value


def _matching(proof: dict[str, Any], path: str, pattern: re.Pattern[str], expected: str) -> str:
    value = _member(proof, path)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise NotAProof(f"the proof's {path} is not as it should be; expected {expected}")
    return value


def _optional(proof: dict[str, Any], path: str, pattern: re.Pattern[str], expected: str) -> str | None:
    parent, _, name = path.rpartition(".")
    if name not in _member(proof, parent):
        return None
    return _matching(proof, path, pattern, expected)


def _flag(proof: dict[str, Any], path: str) -> bool:
    value = _member(proof, path)
    if not isinstance(value, bool):
        raise NotAProof(f"the proof's {path} is not as it should be; expected true or false")
    return value


def _number(proof: dict[str, Any], path: str) -> int:
    value = _member(proof, path)
    if type(value) is not int or value < 0:
        raise NotAProof(f"the proof's {path} is not as it should be; expected a whole number")
    return value
