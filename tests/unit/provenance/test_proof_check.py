"""Proofs checked without a network."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.provenance.proof.proof_check import check_proof
from iidq.provenance.proof.proof_claims import NotAProof, read_proof
from iidq.provenance.proof.proof_signature import MEMBER, ServiceKey

PROOF = json.loads((Path(__file__).parents[2] / "vectors" / "base-sepolia" / "proof.json").read_bytes())
KEY = ServiceKey.from_hex("ab" * 32)
STRANGER = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
REPORT: dict[str, Any] = {
    "checks": [
        {"code": code, "outcome": outcome, "message": "…"}
        for code, outcome in {
            "content.hashMatchesManifest": "passed",
            "manifest.cidVerified": "passed",
            "manifest.creatorDid": "passed",
            "signature.recovered": "passed",
            "signature.eip1271": "notChecked",
            "registry.registered": "passed",
            "registry.notRevoked": "passed",
            "registry.creator": "passed",
            "registry.manifestUri": "passed",
            "registry.transaction": "notChecked",
        }.items()
    ],
    "conclusion": {"code": "genuine", "message": "…"},
    "sources": [],
    "block": {"chainId": 84532, "number": 1, "hash": "0x", "tag": "latest"},
    "verifiedAt": "2025-10-06T18:28:48.975Z",
    "reused": False,
}


def changed(**changes: Any) -> dict[str, Any]:
    """Return the proof with members changed; ``a__b`` is the path a.b, ``...`` removes."""
    proof: dict[str, Any] = copy.deepcopy(PROOF)
    for path, value in changes.items():
        parent = proof
        *way, name = path.split("__")
        for step in way:
            parent = parent[step]
        if value is ...:
            del parent[name]
        else:
            parent[name] = value
    return proof


def failed_check(code: str) -> dict[str, str]:
    """Return a failed check of a report."""
    return {"code": code, "outcome": "failed", "message": "…"}


def with_check(code: str, outcome: str) -> dict[str, Any]:
    """Return the report with another outcome of a single check."""
    checks = [{**check, "outcome": outcome} if check["code"] == code else check for check in REPORT["checks"]]
    return {**REPORT, "checks": checks}


def outcomes(proof: dict[str, Any]) -> dict[str, str]:
    return {check.code: check.outcome for check in check_proof(proof).checks}


def test_the_public_proof_holds_as_far_as_it_reaches() -> None:
    """The published proof holds: signature and verdict are checked, and the rest is listed as not checked."""
    findings = check_proof(PROOF)
    assert (findings.status, findings.holds, findings.signer) == ("OK", True, None)
    assert outcomes(PROOF) == {
        "signature.recovered": "passed",
        "manifest.creatorDid": "passed",
        "proof.verdict": "passed",
        "proof.report": "notChecked",
        "proof.serviceSignature": "notChecked",
        "proof.otherMembers": "notChecked",
        "content.hash": "notChecked",
        "content.hashMatchesManifest": "notChecked",
        "manifest.cidVerified": "notChecked",
        "registry.creator": "notChecked",
        "registry.transaction": "notChecked",
    }


@pytest.mark.parametrize(
    ("proof", "failed"),
    [
        (changed(content__hash="0x" + "ab" * 32), "signature.recovered"),
        (changed(manifest__signature="0x" + "11" * 63), "signature.recovered"),
        (changed(manifest__signature="0x" + "ff" * 65), "signature.recovered"),
        (changed(signature__recovered=STRANGER), "signature.recovered"),
        (changed(onchain__creator=STRANGER), "proof.verdict"),
        (changed(onchain__creator="0x" + "0" * 40), "proof.verdict"),
        (changed(onchain__manifestURI="ipfs://other"), "proof.verdict"),
        (changed(manifest__uri="ipfs://other"), "proof.verdict"),
        (changed(signature__valid=False), "proof.verdict"),
        (changed(verification__status="WARN"), "proof.verdict"),
        (changed(verification__fileHashMatchesManifest=False), "proof.verdict"),
        (changed(report={**REPORT, "block": {"chainId": 1}}), "proof.report"),
        (changed(report={**REPORT, "checks": REPORT["checks"][:-2]}), "proof.report"),
        (changed(report={**REPORT, "checks": [{"code": "registry.creator", "outcome": "failed"}]}), "proof.report"),
        (changed(report=[]), "proof.report"),
        (changed(report={**REPORT, "conclusion": {"code": "revoked"}}), "proof.report"),
        (changed(report={**REPORT, "conclusion": None}), "proof.report"),
        (changed(report=with_check("signature.eip1271", "failed")), "proof.report"),
        (changed(report=with_check("signature.recovered", "failed")), "proof.report"),
        (changed(report=with_check("manifest.cidVerified", "failed")), "proof.report"),
        (changed(report=with_check("registry.transaction", "failed")), "proof.report"),
        (changed(report=with_check("registry.transaction", "passed")), "proof.report"),
        (changed(report=with_check("registry.creator", "perhaps")), "proof.report"),
        (changed(report={**REPORT, "checks": [failed_check("registry.creator"), *REPORT["checks"]]}), "proof.report"),
        (changed(report={**REPORT, "checks": [*REPORT["checks"], failed_check("registry.creator")]}), "proof.report"),
        (changed(report={**REPORT, "checks": [*REPORT["checks"], REPORT["checks"][0]]}), "proof.report"),
        (changed(report={**REPORT, "reused": True}), "proof.report"),
        (changed(report={**REPORT, "verifiedAt": "2026-01-01T00:00:00.000Z"}), "proof.report"),
        (changed(report=REPORT, tx={"txHash": "0x" + "12" * 32}), "proof.report"),
        (changed(serviceSignature=5), "proof.serviceSignature"),
        (changed(serviceSignature={"signature": "0x" + "11" * 65}), "proof.serviceSignature"),
    ],
)
def test_a_contradiction_is_found(proof: dict[str, Any], failed: str) -> None:
    """A changed proof, or one that never followed from its evidence, does not hold, and the failed check names the
    place.
    """
    assert outcomes(proof)[failed] == "failed"
    assert not check_proof(proof).holds


def test_a_report_that_agrees_passes() -> None:
    """A report in agreement with the proof's verdict is checked and passes."""
    assert outcomes(changed(report=REPORT))["proof.report"] == "passed"


def test_the_services_signature_names_its_key() -> None:
    """A signed proof gives its signer; a changed proof gives none."""
    signed = KEY.sign(changed(report=REPORT))
    assert check_proof(signed).signer == KEY.address
    assert check_proof(signed).holds
    signed["content"]["file"] = "other.mp4"
    assert (check_proof(signed).signer, check_proof(signed).holds) == (None, False)


def test_a_strangers_signature_under_anothers_name_fails() -> None:
    """The signer is recovered from the signature: a stranger's signature under another address fails."""
    signed = ServiceKey.from_hex("cd" * 32).sign(PROOF)
    signed[MEMBER]["signer"] = KEY.address
    assert outcomes(signed)["proof.serviceSignature"] == "failed"


def every_path(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value other than an object or a list."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path
    else:
        for name, item in items:
            yield from every_path(item, (*path, name))


FULL = changed(report={**REPORT, "sources": [{"what": "manifest", "url": "https://a"}]})


@pytest.mark.parametrize("path", list(every_path(FULL)), ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", ["other", 7, None, False])
def test_a_changed_member_is_noticed_or_named(path: tuple[Any, ...], value: Any) -> None:
    """A proof with any member changed does not hold, or the findings name the member as not compared."""
    proof = copy.deepcopy(FULL)
    *way, name = path
    parent = proof
    for part in way:
        parent = parent[part]
    # A false value becomes true.
    value = True if parent[name] is value else value
    parent[name] = value
    shown = "".join("[]" if isinstance(part, int) else f".{part}" for part in path)[1:]
    try:
        findings = check_proof(proof)
    except NotAProof:
        return
    [others] = [check for check in findings.checks if check.code == "proof.otherMembers"]
    if shown in others.message.split(" confirms ")[1].split(", "):
        return
    # Evidence that only content, manifest or chain can confirm is named by separate checks.
    backed = {"registry": "registry.creator", "onchain.timestamp": "registry.creator"}
    assert not findings.holds or outcomes(proof)[backed[shown]] == "notChecked"


def test_a_check_of_a_later_version_is_named() -> None:
    """Checks of a later version in a report are listed as not compared."""
    report = {**REPORT, "checks": [*REPORT["checks"], failed_check("registry.later")]}
    [found] = [check for check in check_proof(changed(report=report)).checks if check.code == "proof.report"]
    assert (found.outcome, "not compared: registry.later" in found.message) == ("passed", True)


def test_a_contract_wallets_word_cannot_be_checked_here() -> None:
    """Without a recovered key the proof may hold, and the signature is listed as not checked."""
    proof = changed(signature__recovered=None, manifest__signature="0xabcd")
    assert outcomes(proof)["signature.recovered"] == "notChecked"
    assert check_proof(proof).holds


def test_a_failed_verdict_can_be_an_honest_proof() -> None:
    """A FAIL that follows from its evidence holds."""
    proof = changed(
        content__hash="0x" + "ab" * 32,
        onchain={"creator": "0x" + "0" * 40, "manifestURI": "", "timestamp": 0},
        signature__valid=False,
        verification={
            "fileHashMatchesManifest": False,
            "creatorMatchesOnchain": False,
            "manifestURIMatchesOnchain": False,
            "status": "FAIL",
        },
    )
    findings = check_proof(proof)
    assert (findings.status, findings.holds) == ("FAIL", True)


@pytest.mark.parametrize(
    "proof",
    [
        {},
        changed(network=...),
        changed(network__chainId="84532"),
        changed(network__chainId=True),
        changed(registry="0x12"),
        changed(content=[]),
        changed(content__hash=5),
        changed(manifest__uri=...),
        changed(manifest__creator_did=None),
        changed(onchain__timestamp=-1),
        changed(signature__recovered="me"),
        changed(signature__valid=1),
        changed(verification__status="FINE"),
        changed(tx={}) | {"tx": {"txHash": "0x12"}},
    ],
)
def test_what_is_no_proof_is_told(proof: dict[str, Any]) -> None:
    """A missing member, or a member of another type, is named."""
    with pytest.raises(NotAProof, match=r"the proof('s|\b).*|expected"):
        check_proof(proof)


@given(st.sampled_from(sorted(PROOF)), st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_any_json_is_checked_or_refused(name: str, value: Any) -> None:
    """Any JSON in a member's place gives findings or NotAProof."""
    try:
        check_proof({**PROOF, name: value, "report": value, MEMBER: value})
    except NotAProof:
        return


def test_a_jobs_result_is_taken_out() -> None:
    """A job or a synchronous reply is read as well as the proof itself."""
    assert read_proof(json.dumps({"id": "…", "status": "completed", "result": PROOF}).encode()) == PROOF
    assert read_proof(json.dumps(PROOF).encode()) == PROOF


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b"\xff",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b"[" * 100_000,
        json.dumps({"status": "OK", "fileHash": "0x", "checks": {}}).encode(),
    ],
)
def test_other_files_are_refused(body: bytes) -> None:
    """A file other than a JSON object, an ambiguous one, or a verification's result is refused."""
    with pytest.raises(NotAProof):
        read_proof(body)


@pytest.mark.parametrize(
    ("added", "shown"),
    [
        ({"verification.status": "OK by notary"}, '"verification.status"'),
        ({"report.checks[].code": "x"}, '"report.checks[].code"'),
        ({"serviceSignature.signer": "x"}, '"serviceSignature.signer"'),
        ({"extra": {}}, "extra"),
        ({"evil": []}, "evil"),
    ],
)
def test_an_added_member_is_named(added: dict[str, Any], shown: str) -> None:
    """An unconfirmed member is named, also an empty member, and a member named like a known path."""
    [others] = [check for check in check_proof(PROOF | added).checks if check.code == "proof.otherMembers"]
    assert shown in others.message.split(" confirms ")[1].split(", ")


def test_a_scheme_in_capitals_is_ipfs_too() -> None:
    """A report about ``IPFS://…`` agrees with its proof: schemes have no case."""
    uri = PROOF["manifest"]["uri"].replace("ipfs", "IPFS")
    proof = changed(manifest__uri=uri, onchain__manifestURI=uri, report=REPORT)
    assert outcomes(proof)["proof.report"] == "passed"
