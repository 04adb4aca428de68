"""``iidq check-proof``: check a proof's evidence offline, and list the checks that need a network."""

import json
from pathlib import Path
from typing import Final

import typer

from iidq.cli.terminal import printable
from iidq.cli.verification.verdict_words import SIGNS
from iidq.provenance.proof.proof_check import ProofFindings, check_proof
from iidq.provenance.proof.proof_claims import NotAProof, read_proof

MAX_PROOF_BYTES: Final = 16 << 20
_HOLDS, _FAILS, _UNREADABLE = 0, 1, 2


def check_proof_file(path: Path, *, as_json: bool) -> int:
    """Print the findings; return 0 if nothing contradicts an OK or WARN, 1 for a contradiction or FAIL, else 2."""
    try:
        findings = check_proof(read_proof(_body(path)))
    except NotAProof as fault:
        typer.echo(f"iidq: {path}: {fault.message}", err=True)
        return _UNREADABLE
    typer.echo(_as_json(findings) if as_json else _as_text(findings))
    return _HOLDS if findings.holds and findings.status != "FAIL" else _FAILS


def _body(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(MAX_PROOF_BYTES + 1)
    except OSError as error:
        raise NotAProof(f"it cannot be read ({error.strerror})") from None
    if len(body) > MAX_PROOF_BYTES:
        raise NotAProof(f"it has more than {MAX_PROOF_BYTES >> 20} MiB; expected a proof")
    return body


def _as_text(findings: ProofFindings) -> str:
    def listed(*, checked: bool) -> list[str]:
        chosen = [check for check in findings.checks if (check.outcome != "notChecked") is checked]
        return [f"  {SIGNS[check.outcome]} {check.code}: {check.message}" for check in chosen]

    lines = [f"The proof says {findings.status}.", "", "Checked here:", *listed(checked=True)]
    lines += ["", "Not checked, because a proof alone cannot show it:", *listed(checked=False)]
    return "\n".join(map(printable, [*lines, "", _conclusion(findings)]))


def _conclusion(findings: ProofFindings) -> str:
    if not findings.holds:
        return "The proof contradicts itself or its signature: do not rely on it."
    if findings.status == "FAIL":
        return "Nothing contradicts the proof, and it says that the verification failed."
    return "Nothing here contradicts the proof."


def _as_json(findings: ProofFindings) -> str:
    return json.dumps(
        {
            "status": findings.status,
            "holds": findings.holds,
            "signer": findings.signer,
            "checks": [check.as_json() for check in findings.checks],
        },
        indent=2,
    )
