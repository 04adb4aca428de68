"""A proof checked without any network: as far as its own evidence reaches, and no further. Pure.

The evidence that stands in the proof is judged again; what the proof claims has to be what comes out. Whether that
evidence is true (what the content hashes to, what the manifest's bytes are, what the chain holds) is for whoever
has the content, the manifest or an endpoint.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from iidq.errors import PermanentFault, SignatureFault
from iidq.notation import ADDRESS, HASH, HEX_BYTES
from iidq.provenance.ethereum.address import ZERO_ADDRESS, checksum_address
from iidq.provenance.ethereum.registry import ZERO_HASH, Entry
from iidq.provenance.ethereum.signature import recover_signer
from iidq.provenance.manifest import Manifest
from iidq.provenance.proof.proof_signature import MEMBER, check_service_signature
from iidq.provenance.verdict import Check, CheckOutcome, ContractWallet, Evidence, Verdict, judge
from iidq.strict_json import StrictJsonFault, parse_strictly

_TEXT: Final = re.compile(r"(?s).*")
_IPFS: Final = "ipfs://"
# Checks of a report that follow from the proof's other members by the verdict's own rules.
_JUDGED_AGAIN: Final = (
    "content.hashMatchesManifest",
    "manifest.creatorDid",
    "registry.registered",
    "registry.notRevoked",
    "registry.creator",
    "registry.manifestUri",
)
# Members that are compared with another member or form part of the evidence; a list's items share one path.
_COMPARED: Final = frozenset(
    {
        "network.chainId",
        "registry",
        "content.hash",
        "manifest.uri",
        "manifest.creator_did",
        "manifest.signature",
        "onchain.creator",
        "onchain.manifestURI",
        "onchain.timestamp",
        "signature.recovered",
        "signature.valid",
        "tx.txHash",
        "verification.fileHashMatchesManifest",
        "verification.creatorMatchesOnchain",
        "verification.manifestURIMatchesOnchain",
        "verification.status",
        "report.checks[].code",
        "report.checks[].outcome",
        "report.block.chainId",
        "report.conclusion.code",
        "report.verifiedAt",
        "report.reused",
    }
)
# Paths that a finding names before it only counts them.
_NAMED_PATHS: Final = 40


class NotAProof(PermanentFault):
    """The file holds no proof, or one that cannot be read."""

    code = "proof.malformed"


@dataclass(frozen=True, slots=True)
class ProofFindings:
    """What came out: the proof's own verdict, whether nothing contradicts it, and each thing looked at or not.

    ``signer`` is the service that signed the proof, None if it is not validly signed.
    """

    status: str
    holds: bool
    signer: str | None
    checks: tuple[Check, ...]


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


def check_proof(proof: dict[str, Any]) -> ProofFindings:
    """Judge the proof's evidence again and compare; raise :class:`NotAProof` if a member is missing or no such."""
    claims = _Claims.of(proof)
    signature = _signature_check(claims)
    verdict = judge(claims.evidence())
    signer, service = _service_check(proof)
    checks = (
        signature,
        *(check for check in verdict.checks if check.code == "manifest.creatorDid"),
        _verdict_check(claims, verdict),
        _report_check(proof, claims, verdict),
        service,
        _others_check(proof),
        *_out_of_reach(claims),
    )
    contradicted = any(check.outcome == "failed" for check in checks if check.code.startswith(("proof.", "signature.")))
    return ProofFindings(claims.status, not contradicted, signer, checks)


@dataclass(frozen=True, slots=True)
class _Claims:
    chain_id: int
    registry: str
    content_hash: str
    manifest_uri: str
    creator_did: str | None
    manifest_signature: str
    creator: str
    onchain_uri: str
    timestamp: int
    recovered: str | None
    hash_ok: bool
    creator_ok: bool
    valid: bool
    uri_ok: bool
    status: str
    tx_hash: str | None

    @classmethod
    def of(cls, proof: dict[str, Any]) -> "_Claims":
        """Take the members apart; raise :class:`NotAProof` with the path of the first that is not as it should be."""
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
        """What the verdict should rest on; what cannot be known here is taken as claimed."""
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


def _signature_check(claims: _Claims) -> Check:
    code = "signature.recovered"
    if claims.recovered is None:
        return Check(code, "notChecked", "the signature is a contract wallet's, which only the chain can ask")
    if not claims.hash_ok:
        return Check(code, "notChecked", "the manifest speaks of another content, whose hash is not in the proof")
    try:
        signer = recover_signer(claims.content_hash, claims.manifest_signature)
    except SignatureFault as fault:
        return Check(code, "failed", fault.message)
    if signer != claims.recovered:
        return Check(code, "failed", f"the signature is by {signer}, not by {claims.recovered}")
    return Check(code, "passed", f"{signer} signed this content hash")


def _verdict_check(claims: _Claims, verdict: Verdict) -> Check:
    code = "proof.verdict"
    wrong = [
        name
        for name, claimed, found in (
            ("verification.creatorMatchesOnchain", claims.creator_ok, verdict.creator_ok),
            ("signature.valid", claims.valid, verdict.creator_ok),
            ("verification.manifestURIMatchesOnchain", claims.uri_ok, verdict.manifest_ok),
            ("verification.status", claims.status, verdict.status),
        )
        if claimed != found
    ]
    if wrong:
        return Check(code, "failed", f"does not follow from the proof's own evidence: {', '.join(wrong)}")
    return Check(code, "passed", f"{claims.status} follows from the proof's own evidence")


def _report_check(proof: dict[str, Any], claims: _Claims, verdict: Verdict) -> Check:
    code = "proof.report"
    report = proof.get("report")
    if report is None:
        return Check(code, "notChecked", "the proof carries no report")
    try:
        outcomes = [(str(check["code"]), check["outcome"]) for check in report["checks"]]
        chain_id = report["block"]["chainId"]
    except (KeyError, TypeError):
        return Check(code, "failed", "the report has no list of checks or no block; expected both")
    expected = _expected_outcomes(claims, verdict)
    found = dict(outcomes)
    wrong = [name for name, allowed in expected.items() if found.get(name) not in allowed]
    repeated = Counter(name for name, _ in outcomes)
    wrong += [f"{name} more than once" for name, count in repeated.items() if count > 1]
    if chain_id != claims.chain_id or isinstance(chain_id, bool):
        wrong.append("block.chainId")
    if report.get("verifiedAt") != proof.get("generated_at"):
        wrong.append("verifiedAt")
    conclusion = report.get("conclusion")
    # Reports of earlier versions have none.
    if "conclusion" in report and not (isinstance(conclusion, dict) and conclusion.get("code") == verdict.conclusion):
        wrong.append("conclusion")
    if report.get("reused") is not False:
        wrong.append("reused")
    if wrong:
        return Check(code, "failed", f"the report contradicts the proof: {', '.join(wrong)}")
    unknown = [name for name in found if name not in expected]
    addition = f"; not compared: {_listed(unknown)}" if unknown else ""
    return Check(code, "passed", f"the report agrees with the proof{addition}")


def _expected_outcomes(claims: _Claims, verdict: Verdict) -> dict[str, tuple[CheckOutcome, ...]]:
    """Return the outcomes that each check of an honest report can have beside this proof."""
    wallet: tuple[CheckOutcome, ...]
    if claims.recovered is None:
        wallet = ("passed",) if claims.valid else ("failed",)
    elif claims.valid or claims.creator == ZERO_ADDRESS:
        wallet = ("notChecked",)
    else:
        # The creator may be an account without code, which is not asked.
        wallet = ("failed", "notChecked")
    return {
        **{check.code: (check.outcome,) for check in verdict.checks if check.code in _JUDGED_AGAIN},
        "manifest.cidVerified": ("passed",) if claims.manifest_uri.lower().startswith(_IPFS) else ("notChecked",),
        "signature.recovered": ("notChecked",) if claims.recovered is None else ("passed",),
        "signature.eip1271": wallet,
        "registry.transaction": ("notChecked",) if claims.tx_hash is None else ("passed",),
    }


def _service_check(proof: dict[str, Any]) -> tuple[str | None, Check]:
    code = f"proof.{MEMBER}"
    if MEMBER not in proof:
        return None, Check(code, "notChecked", "the proof is not signed by the service that made it")
    try:
        signer = check_service_signature(proof)
    except SignatureFault as fault:
        return None, Check(code, "failed", fault.message)
    return signer, Check(code, "passed", f"{signer} signed this very proof; whether to trust that key is yours to say")


def _others_check(proof: dict[str, Any]) -> Check:
    paths = dict.fromkeys(path for path in _paths(proof) if path not in _COMPARED and not path.startswith(f"{MEMBER}."))
    return Check("proof.otherMembers", "notChecked", f"nothing in the proof confirms {_listed(list(paths))}")


def _paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every value that holds no other: ``a.b``, ``a.c[].d``, ``a."x.y"``."""
    match value:
        case dict() if value:
            for name, item in value.items():
                # Quoted, a name with a dot cannot pass for a path.
                shown = name if name.isidentifier() else json.dumps(name)
                yield from _paths(item, f"{path}.{shown}" if path else shown)
        case list() if value:
            for item in value:
                yield from _paths(item, f"{path}[]")
        case _:
            yield path


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_PATHS
    return ", ".join(names[:_NAMED_PATHS]) + (f" and {more} more" if more > 0 else "")


def _out_of_reach(claims: _Claims) -> tuple[Check, ...]:
    chain, registered = f"chain {claims.chain_id}", claims.creator != ZERO_ADDRESS
    told = f"it holds {claims.creator}'s entry" if registered else "it holds no entry for the hash"
    transaction = "the proof names no transaction" if claims.tx_hash is None else f"ask {chain} for {claims.tx_hash}"
    return (
        Check("content.hash", "notChecked", f"the content is not here: its SHA-256 must be {claims.content_hash}"),
        Check("content.hashMatchesManifest", "notChecked", "the manifest's bytes are not in the proof"),
        Check("manifest.cidVerified", "notChecked", f"the manifest is not here: fetch {claims.manifest_uri}"),
        Check("registry.creator", "notChecked", f"{told}, says the proof: ask registry {claims.registry} on {chain}"),
        Check("registry.transaction", "notChecked", transaction),
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
