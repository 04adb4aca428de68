"""The verdict, from the evidence."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.provenance.ethereum.registration import Registration
from iidq.provenance.ethereum.registry import UNREGISTERED, Entry
from iidq.provenance.manifest import Manifest
from iidq.provenance.verdict import ContractWallet, Evidence, judge

HASH, OTHER_HASH = "0x" + "ab" * 32, "0x" + "cd" * 32
CREATOR = "0xA11B0dC0ef5E51b47368a9AF802d97201C0c6F52"
STRANGER = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
URI = "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o"
DID = f"did:pkh:eip155:84532:{CREATOR}"
GENUINE = Evidence(
    content_hash=HASH,
    manifest_uri=URI,
    manifest=Manifest(HASH, "0x", DID),
    cid_verified=True,
    recovered=CREATOR,
    entry=Entry(CREATOR, HASH, URI, 5),
    chain_id=84532,
)
CODES = [
    "content.hashMatchesManifest",
    "manifest.cidVerified",
    "manifest.creatorDid",
    "signature.recovered",
    "signature.eip1271",
    "registry.registered",
    "registry.notRevoked",
    "registry.creator",
    "registry.manifestUri",
    "registry.transaction",
]


def outcomes(evidence: Evidence) -> dict[str, str]:
    return {check.code: check.outcome for check in judge(evidence).checks}


def with_manifest(content_hash: str = HASH, creator_did: str | None = DID) -> Evidence:
    return replace(GENUINE, manifest=Manifest(content_hash, "0x", creator_did))


@given(st.booleans(), st.booleans(), st.booleans())
def test_the_formula(hash_ok: bool, creator_ok: bool, uri_ok: bool) -> None:
    """OK is all three checks, WARN is hash and creator, anything else is FAIL."""
    verdict = judge(
        replace(
            with_manifest(HASH if hash_ok else OTHER_HASH),
            recovered=CREATOR if creator_ok else STRANGER,
            manifest_uri=URI if uri_ok else URI + "/",
        )
    )
    assert (verdict.manifest_hash_ok, verdict.creator_ok, verdict.manifest_ok) == (hash_ok, creator_ok, uri_ok)
    assert verdict.status == ("FAIL" if not (hash_ok and creator_ok) else "OK" if uri_ok else "WARN")


def test_a_genuine_content_is_ok_on_every_check_made() -> None:
    """For genuine content every code is in the report, none failed, and skipped checks are listed as not checked."""
    assert outcomes(GENUINE) == dict.fromkeys(CODES, "passed") | {
        "signature.eip1271": "notChecked",
        "registry.transaction": "notChecked",
    }


def test_an_unregistered_hash_fails() -> None:
    """The zero entry is FAIL, even with an empty URI, and is distinct from a wrong creator."""
    evidence = replace(GENUINE, entry=UNREGISTERED, manifest_uri="")
    verdict = judge(evidence)
    assert (verdict.status, verdict.creator_ok, verdict.manifest_ok) == ("FAIL", False, False)
    found = outcomes(evidence)
    assert found["registry.registered"] == "failed"
    assert found["registry.creator"] == found["registry.notRevoked"] == "notChecked"


def test_a_wrong_creator_fails() -> None:
    """A stranger's signature is FAIL, with the entry registered and not revoked."""
    found = outcomes(replace(GENUINE, recovered=STRANGER))
    assert (found["registry.registered"], found["registry.creator"]) == ("passed", "failed")


def test_a_revoked_entry_warns_by_its_own_code() -> None:
    """A revoked entry is WARN by the formula, and its own check has failed."""
    evidence = replace(GENUINE, entry=Entry(CREATOR, HASH, "", 5))
    assert judge(evidence).status == "WARN"
    assert outcomes(evidence)["registry.notRevoked"] == "failed"


@pytest.mark.parametrize(("accepts", "status"), [(True, "OK"), (False, "FAIL")])
def test_a_contract_wallet_stands_in_for_the_key(accepts: bool, status: str) -> None:
    """A signature accepted by the contract wallet counts as the creator's."""
    evidence = replace(GENUINE, recovered=None, wallet=ContractWallet(accepts))
    assert judge(evidence).status == status
    found = outcomes(evidence)
    assert found["signature.eip1271"] == ("passed" if accepts else "failed")
    assert found["signature.recovered"] == "notChecked"


@pytest.mark.parametrize(
    ("did", "outcome"),
    [
        (DID, "passed"),
        (DID.lower(), "passed"),
        (f"did:pkh:eip155:84532:{STRANGER}", "failed"),
        (f"did:pkh:eip155:1:{CREATOR}", "failed"),
        ("did:key:z6Mk", "notChecked"),
        ("did:pkh:eip155:0:0x", "notChecked"),
        (None, "notChecked"),
    ],
)
def test_creator_did_is_compared_and_reported(did: str | None, outcome: str) -> None:
    """A did:pkh is compared with the signer and the chain, and does not change the verdict."""
    evidence = with_manifest(creator_did=did)
    assert outcomes(evidence)["manifest.creatorDid"] == outcome
    assert judge(evidence).status == "OK"


@pytest.mark.parametrize(
    ("registration", "outcome"),
    [(Registration("0x12", "found"), "passed"), (Registration(None, "not there"), "notChecked")],
)
def test_the_transaction_is_reported(registration: Registration, outcome: str) -> None:
    """A found transaction is a passed check; a missing transaction has a reason."""
    evidence = replace(GENUINE, registration=registration)
    assert outcomes(evidence)["registry.transaction"] == outcome
    assert registration.reason in [check.message for check in judge(evidence).checks]


def test_a_web_manifest_has_no_cid_to_check() -> None:
    """A manifest from a web URL is reported as not checked against a CID."""
    assert outcomes(replace(GENUINE, cid_verified=None))["manifest.cidVerified"] == "notChecked"
