"""The case of the evidence: the same in the report, on the command line and (``tests/browser``) on the page."""

import json
from dataclasses import replace
from importlib.resources import files
from itertools import product
from typing import Any, get_args

import pytest

from iidq.cli.verification.verdict_words import headline, reason, registered_manifest
from iidq.provenance.conclusion import HEADLINES, Conclusion, conclusion_of
from iidq.provenance.ethereum.address import ZERO_ADDRESS
from iidq.provenance.ethereum.registry import UNREGISTERED, Entry
from iidq.provenance.manifest import Manifest
from iidq.provenance.verdict import Evidence, judge

HASH, OTHER_HASH = "0x" + "ab" * 32, "0x" + "cd" * 32
CREATOR = "0xA11B0dC0ef5E51b47368a9AF802d97201C0c6F52"
STRANGER = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
URI, OTHER_URI = "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o", "https://example.org/other.json"
STATES = ("unregistered", "registered", "revoked")

# The table, by hand: registry state, manifest describes the content, creator signed, URI is the registered URI.
CASES: dict[tuple[str, bool, bool, bool], tuple[str, Conclusion]] = {
    ("registered", True, True, True): ("OK", "genuine"),
    ("registered", True, True, False): ("WARN", "manifestUriDiffers"),
    ("registered", True, False, True): ("FAIL", "otherSigner"),
    ("registered", True, False, False): ("FAIL", "otherSigner"),
    ("registered", False, True, True): ("FAIL", "manifestDiffers"),
    ("registered", False, False, True): ("FAIL", "manifestDiffers"),
    ("registered", False, True, False): ("FAIL", "otherManifest"),
    ("registered", False, False, False): ("FAIL", "otherManifest"),
    ("revoked", True, True, False): ("WARN", "revoked"),
    ("revoked", True, False, False): ("FAIL", "revoked"),
    ("revoked", False, True, False): ("FAIL", "revoked"),
    ("revoked", False, False, False): ("FAIL", "revoked"),
    ("unregistered", True, False, False): ("FAIL", "notRegistered"),
    ("unregistered", False, False, False): ("FAIL", "unknownFile"),
}
ENTRIES = {
    "registered": Entry(CREATOR, HASH, URI, 5),
    "revoked": Entry(CREATOR, HASH, "", 5),
    "unregistered": UNREGISTERED,
}


def evidence(state: str, hash_ok: bool, creator_ok: bool, uri_ok: bool) -> Evidence:
    """Return evidence with exactly the given outcomes."""
    return Evidence(
        content_hash=HASH,
        manifest_uri=URI if uri_ok else OTHER_URI,
        manifest=Manifest(HASH if hash_ok else OTHER_HASH, "0x", None),
        cid_verified=None,
        recovered=CREATOR if creator_ok else STRANGER,
        entry=ENTRIES[state],
        chain_id=1,
    )


def results(state: str, hash_ok: bool, creator_ok: bool, uri_ok: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a verification's result and a proof with the given outcomes, as stored by a service of any version."""
    entry = ENTRIES[state]
    status = CASES[state, hash_ok, creator_ok, uri_ok][0]
    onchain = {"creator": entry.creator, "manifestURI": entry.manifest_uri, "timestamp": entry.timestamp}
    checks = {"manifestHashOk": hash_ok, "creatorOk": creator_ok, "manifestOk": uri_ok}
    verification = {
        "fileHashMatchesManifest": hash_ok,
        "creatorMatchesOnchain": creator_ok,
        "manifestURIMatchesOnchain": uri_ok,
        "status": status,
    }
    return {"status": status, "onchain": onchain, "checks": checks}, {"onchain": onchain, "verification": verification}


@pytest.mark.parametrize(("state", "hash_ok", "creator_ok", "uri_ok"), [*product(STATES, *[(True, False)] * 3)])
def test_every_evidence_makes_one_case(state: str, hash_ok: bool, creator_ok: bool, uri_ok: bool) -> None:
    """Verdict, stored result and stored proof have the same case, and the verdict has the status of the table."""
    case = (state, hash_ok, creator_ok, uri_ok)
    verdict = judge(evidence(*case))
    found = (state, verdict.manifest_hash_ok, verdict.creator_ok, verdict.manifest_ok)
    status, conclusion = CASES[found]
    assert (verdict.status, verdict.conclusion) == (status, conclusion)
    if case in CASES:
        assert found == case
        for result in results(*case):
            assert conclusion_of(result) == conclusion
            assert headline(result, status) == HEADLINES[conclusion]


@pytest.mark.parametrize("case", CASES)
def test_a_registered_file_is_never_called_unknown(case: tuple[str, bool, bool, bool]) -> None:
    """The headline says "not registered" for unregistered content alone, and "changed" only if the hash differs as
    well.
    """
    said = HEADLINES[CASES[case][1]]
    assert ("not registered" in said) == (case[0] == "unregistered")
    assert ("changed" in said) == (case[:2] == ("unregistered", False))


@pytest.mark.parametrize("case", CASES)
def test_the_registered_manifest_is_offered_where_it_may_tell_more(case: tuple[str, bool, bool, bool]) -> None:
    """The registered manifest is offered if the entry is registered, not revoked, and has another URI than the given
    one.
    """
    state, _, _, uri_ok = case
    for result in results(*case):
        expected = URI if state == "registered" and not uri_ok else None
        assert registered_manifest(result, URI if uri_ok else OTHER_URI) == expected


@pytest.mark.parametrize("uri", ["", "ftp://x", "ipfs://a b", "https://x\x1b[2J", "--help", "ipfs://" + "x" * 3000])
def test_a_registered_uri_that_no_command_takes_is_not_offered(uri: str) -> None:
    """A registered URI that no command accepts is not offered: any text can be registered."""
    result = {**results("registered", True, True, False)[0]}
    result["onchain"] = {**result["onchain"], "manifestURI": uri}
    assert registered_manifest(result, OTHER_URI) is None


def test_a_table_names_the_case_and_the_checks() -> None:
    """The line of a file names the case, then the codes of the failed checks."""
    result = results("registered", False, True, False)[0]
    result["report"] = {
        "checks": [
            {"code": "content.hashMatchesManifest", "outcome": "failed", "message": "x: y"},
            {"code": "registry.registered", "outcome": "passed", "message": "x"},
        ]
    }
    assert reason({"result": result}) == f"{HEADLINES['otherManifest']} (content.hashMatchesManifest)"


def test_the_schema_lists_every_case() -> None:
    """The codes of the cases in the schema are the same as in the code."""
    schema = json.loads(files("iidq.provenance").joinpath("report.schema.json").read_text(encoding="utf-8"))
    listed = schema["properties"]["conclusion"]["properties"]["code"]["anyOf"]
    assert [each["const"] for each in listed] == list(HEADLINES) == list(get_args(Conclusion))


def test_missing_members_make_no_case() -> None:
    """A result without the members for a case gets its headline from the status alone."""
    whole, _ = results("registered", True, True, True)
    assert conclusion_of(whole) == "genuine"
    for name in ("onchain", "checks"):
        assert conclusion_of({key: value for key, value in whole.items() if key != name}) is None
    assert conclusion_of({**whole, "checks": {"manifestHashOk": True, "creatorOk": True}}) is None
    assert conclusion_of({**whole, "onchain": {"creator": ZERO_ADDRESS}}) is None
    assert headline({}, "WARN") == "this is its creator's content, but not everything agrees"


def test_a_contract_wallet_that_refuses_is_another_signer() -> None:
    """A wrong signer without a recovered key makes the case of another signer."""
    refused = replace(evidence("registered", True, False, True), recovered=None)
    assert judge(refused).conclusion == "otherSigner"
