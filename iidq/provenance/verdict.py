"""Judge the evidence: the verdict and the list of checks behind it. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from iidq.provenance.conclusion import Conclusion, conclude
from iidq.provenance.ethereum.registration import Registration
from iidq.provenance.ethereum.registry import Entry
from iidq.provenance.manifest import Manifest

Status = Literal["OK", "WARN", "FAIL"]
CheckOutcome = Literal["passed", "failed", "notChecked"]

# did:pkh method specification, with a CAIP-10 account of the eip155 namespace.
_DID_PKH: Final = re.compile(r"did:pkh:eip155:([1-9][0-9]{0,31}):(0x[0-9a-fA-F]{40})")


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a report."""

    code: str
    """Stable name, such as ``registry.creator``."""
    outcome: CheckOutcome
    """``passed``, ``failed`` or ``notChecked``."""
    message: str
    """The finding in words, or the reason for ``notChecked``."""

    def as_json(self) -> dict[str, str]:
        """Return the entry of the report."""
        return {"code": self.code, "outcome": self.outcome, "message": self.message}


@dataclass(frozen=True, slots=True)
class ContractWallet:
    """The answer of the creator's contract (EIP-1271)."""

    accepts: bool
    """Whether the contract accepts the signature."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one verdict."""

    content_hash: str
    """The submitted content hash, lower-case."""
    manifest_uri: str
    """The submitted manifest URI."""
    manifest: Manifest
    """The manifest at that URI."""
    cid_verified: bool | None
    """Whether the manifest's bytes match their CID; None for a web URL."""
    recovered: str | None
    """Address of the key that signed; None for a contract wallet's signature, or if no key fits."""
    entry: Entry
    """The registry's entry for the content hash."""
    chain_id: int
    """The chain of the registry."""
    wallet: ContractWallet | None = None
    """The contract wallet's answer; None if no contract was called."""
    registration: Registration | None = None
    """The search for the registration's transaction; None if there was none."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """OK: all three checks hold. WARN: hash and creator hold. FAIL: anything else."""

    manifest_hash_ok: bool
    """Whether the manifest describes the submitted content."""
    creator_ok: bool
    """Whether the registered creator signed the manifest."""
    manifest_ok: bool
    """Whether the registered manifest URI is the submitted one."""
    conclusion: Conclusion
    """Which of the eight cases the evidence makes."""
    checks: tuple[Check, ...]
    """All checks of the report, in order."""

    @property
    def status(self) -> Status:
        """The verdict in one word."""
        if not (self.manifest_hash_ok and self.creator_ok):
            return "FAIL"
        return "OK" if self.manifest_ok else "WARN"


def judge(evidence: Evidence) -> Verdict:
    """Return the verdict; an unregistered hash fails on creator and manifest URI."""
    entry = evidence.entry
    signed_by_wallet = evidence.wallet is not None and evidence.wallet.accepts
    hash_ok = evidence.manifest.content_hash == evidence.content_hash
    creator_ok = entry.registered and (signed_by_wallet or evidence.recovered == entry.creator)
    uri_ok = entry.registered and evidence.manifest_uri == entry.manifest_uri
    return Verdict(
        manifest_hash_ok=hash_ok,
        creator_ok=creator_ok,
        manifest_ok=uri_ok,
        conclusion=conclude(
            registered=entry.registered, revoked=entry.revoked, hash_ok=hash_ok, creator_ok=creator_ok, uri_ok=uri_ok
        ),
        checks=_checks(evidence, signed_by_wallet),
    )


def _checks(evidence: Evidence, signed_by_wallet: bool) -> tuple[Check, ...]:
    entry, recovered = evidence.entry, evidence.recovered
    return (
        _check(
            "content.hashMatchesManifest",
            evidence.manifest.content_hash == evidence.content_hash,
            "the manifest speaks of this content",
            f"the manifest speaks of another content, {evidence.manifest.content_hash}",
        ),
        _cid_check(evidence.cid_verified),
        _did_check(evidence),
        _not_checked("signature.recovered", "the signature is for a contract wallet to judge; it names no key")
        if recovered is None
        else Check("signature.recovered", "passed", f"{recovered} signed the manifest's content hash"),
        _wallet_check(evidence.wallet),
        _check(
            "registry.registered",
            entry.registered,
            f"the hash was registered at {entry.timestamp} (Unix seconds)",
            "the registry holds no entry for this hash",
        ),
        _registered_check(
            "registry.notRevoked",
            entry,
            not entry.revoked,
            "the entry has not been revoked",
            "the creator has revoked the entry",
        ),
        _registered_check(
            "registry.creator",
            entry,
            signed_by_wallet or recovered == entry.creator,
            "the signer is the registered creator",
            f"the registered creator is {entry.creator}, who did not sign",
        ),
        _registered_check(
            "registry.manifestUri",
            entry,
            evidence.manifest_uri == entry.manifest_uri,
            "the registered manifest URI is the one given",
            "the registered manifest URI is empty, as after revoking"
            if entry.revoked
            else "the registered manifest URI is another one",
        ),
        _transaction_check(evidence.registration),
    )


def _check(code: str, passed: bool, if_passed: str, if_failed: str) -> Check:
    return Check(code, "passed", if_passed) if passed else Check(code, "failed", if_failed)


def _not_checked(code: str, reason: str) -> Check:
    return Check(code, "notChecked", reason)


def _registered_check(code: str, entry: Entry, passed: bool, if_passed: str, if_failed: str) -> Check:
    if not entry.registered:
        return _not_checked(code, "nothing is registered for this hash")
    return _check(code, passed, if_passed, if_failed)


def _cid_check(cid_verified: bool | None) -> Check:
    code = "manifest.cidVerified"
    if cid_verified is None:
        return _not_checked(code, "the manifest came from a web URL, which does not name its bytes")
    return _check(code, cid_verified, "the manifest's bytes are the CID's", "the manifest's bytes are not the CID's")


def _did_check(evidence: Evidence) -> Check:
    code, did = "manifest.creatorDid", evidence.manifest.creator_did
    if did is None:
        return _not_checked(code, "the manifest names no creator_did")
    match = _DID_PKH.fullmatch(did)
    if match is None:
        return _not_checked(code, "creator_did is no did:pkh of an Ethereum account")
    accepted = evidence.wallet is not None and evidence.wallet.accepts
    signer = evidence.entry.creator if accepted else evidence.recovered
    if signer is None:
        return _not_checked(code, "nobody is known to have signed")
    if match[2].lower() != signer.lower():
        return Check(code, "failed", f"creator_did names another account than {signer}, who signed")
    if int(match[1]) != evidence.chain_id:
        return Check(code, "failed", f"creator_did names the signer on chain {match[1]}, not {evidence.chain_id}")
    return Check(code, "passed", "creator_did names the signer")


def _wallet_check(wallet: ContractWallet | None) -> Check:
    code = "signature.eip1271"
    if wallet is None:
        return _not_checked(code, "no contract wallet was asked about the signature")
    return _check(
        code,
        wallet.accepts,
        "the creator is a contract wallet and accepts the signature",
        "the creator is a contract wallet and does not accept the signature",
    )


def _transaction_check(registration: Registration | None) -> Check:
    code = "registry.transaction"
    if registration is None:
        return _not_checked(code, "only proofs search for the registration's transaction")
    if registration.tx_hash is None:
        return _not_checked(code, registration.reason)
    return Check(code, "passed", registration.reason)
