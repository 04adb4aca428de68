"""Check a proof without any network. Pure.

The evidence in the proof is judged again, and the verdict must equal the claims of the proof. The truth of the evidence
needs more: the content, the bytes of the manifest, or an endpoint of the chain.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from iidq.errors import SignatureFault
from iidq.provenance.ethereum.address import ZERO_ADDRESS
from iidq.provenance.ethereum.signature import recover_signer
from iidq.provenance.proof.proof_claims import Claims
from iidq.provenance.proof.proof_signature import MEMBER, check_service_signature
from iidq.provenance.verdict import Check, CheckOutcome, Verdict, judge

_IPFS: Final = "ipfs://"
# Checks of a report that follow from the other members of the proof by the rules of the verdict.
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


@dataclass(frozen=True, slots=True)
class ProofFindings:
    """The result of a check."""

    status: str
    """The proof's own verdict: OK, WARN or FAIL."""
    holds: bool
    """Whether no check contradicts the proof."""
    signer: str | None
    """Address of the service that signed the proof; None without a valid signature."""
    checks: tuple[Check, ...]
    """Every check, done or not."""


def check_proof(proof: dict[str, Any]) -> ProofFindings:
    """Judge the evidence of the proof again and compare; raise :class:`NotAProof` if a member is malformed."""
    claims = Claims.of(proof)
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


def _signature_check(claims: Claims) -> Check:
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


def _verdict_check(claims: Claims, verdict: Verdict) -> Check:
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


def _report_check(proof: dict[str, Any], claims: Claims, verdict: Verdict) -> Check:
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


def _expected_outcomes(claims: Claims, verdict: Verdict) -> dict[str, tuple[CheckOutcome, ...]]:
    """Return the possible outcomes of each check in an honest report of the proof."""
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
    """Yield the path of every leaf value: ``a.b``, ``a.c[].d``, ``a."x.y"``."""
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


def _out_of_reach(claims: Claims) -> tuple[Check, ...]:
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
