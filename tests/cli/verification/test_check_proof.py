"""Run ``iidq check-proof`` as a user."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iidq.cli import app
from iidq.provenance.proof.proof_signature import ServiceKey

VECTOR = Path(__file__).parents[2] / "vectors" / "base-sepolia" / "proof.json"
PROOF = json.loads(VECTOR.read_bytes())
KEY = ServiceKey.from_hex("ab" * 32)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["check-proof", *arguments])
    return done.exit_code, done.output


def written(folder: Path, document: object) -> str:
    path = folder / "proof.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_the_public_proof_holds() -> None:
    """The public proof gives exit code 0, the list of checks and the list of unchecked statements."""
    code, output = run(str(VECTOR))
    assert code == 0
    checked, left_open = output.split("Not checked")
    assert "✓ signature.recovered: 0xA11B0dC0ef5E51b47368a9AF802d97201C0c6F52" in checked
    assert f"its SHA-256 must be {PROOF['content']['hash']}" in left_open
    assert "Nothing here contradicts the proof." in output


def test_a_signed_proof_names_its_signer(tmp_path: Path) -> None:
    """A proof with the service's signature shows the signer, and fails after any change."""
    signed = KEY.sign(PROOF)
    code, output = run(written(tmp_path, {"result": signed}))
    assert (code, f"{KEY.address} signed this very proof" in output) == (0, True)
    signed["generated_at"] = "2026-01-01T00:00:00.000Z"
    code, output = run(written(tmp_path, signed))
    assert (code, "do not rely on it" in output) == (1, True)


def test_findings_as_json(tmp_path: Path) -> None:
    """``--json`` prints the same findings for programs."""
    code, output = run(written(tmp_path, {**PROOF, "registry": "0x" + "11" * 20}), "--json")
    findings = json.loads(output)
    assert (code, findings["status"], findings["holds"], findings["signer"]) == (0, "OK", True, None)
    assert {check["outcome"] for check in findings["checks"]} == {"passed", "notChecked"}


def test_a_tampered_proof_fails(tmp_path: Path) -> None:
    """A proof for other content gives exit code 1."""
    proof = {**PROOF, "content": {"file": "a", "hash": "0x" + "ab" * 32}}
    assert run(written(tmp_path, proof))[0] == 1


def test_a_proof_of_a_failure_is_no_success(tmp_path: Path) -> None:
    """A proof with the verdict FAIL gives exit code 1, even without a contradiction."""
    proof = {
        **PROOF,
        "onchain": {"creator": "0x" + "0" * 40, "manifestURI": "", "timestamp": 0},
        "signature": {**PROOF["signature"], "valid": False},
        "verification": {
            "fileHashMatchesManifest": True,
            "creatorMatchesOnchain": False,
            "manifestURIMatchesOnchain": False,
            "status": "FAIL",
        },
    }
    code, output = run(written(tmp_path, proof))
    assert (code, "the verification failed" in output) == (1, True)


@pytest.mark.parametrize("document", [[], {}, {"result": None}, "proof"])
def test_what_is_no_proof_cannot_be_checked(document: object, tmp_path: Path) -> None:
    """Any other document gives exit code 2 and one line with the reason."""
    code, output = run(written(tmp_path, document))
    assert (code, output.count("\n")) == (2, 1)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A missing file or a folder gives exit code 2."""
    assert run(str(tmp_path / "nothing.json"))[0] == 2
    assert run(str(tmp_path))[0] == 2


def test_a_proofs_text_does_not_steer_the_terminal(tmp_path: Path) -> None:
    """Control characters in a foreign proof are not printed."""
    _, output = run(written(tmp_path, {**PROOF, "manifest": {**PROOF["manifest"], "uri": "ipfs://\x1b[2J\r"}}))
    assert not {"\x1b", "\r"} & set(output)
