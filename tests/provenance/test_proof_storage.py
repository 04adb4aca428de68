"""A signed proof in Postgres and back."""

import json
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from iidq.provenance.proof.proof_check import check_proof
from iidq.provenance.proof.proof_signature import ServiceKey

PROOF = json.loads((Path(__file__).parents[1] / "vectors" / "base-sepolia" / "proof.json").read_bytes())
KEY = ServiceKey.from_hex("ab" * 32)


@pytest.mark.parametrize("timestamp", [0, 1_759_774_786, (1 << 53) - 1])
def test_a_signed_proof_survives_jsonb(database_url: str, timestamp: int) -> None:
    """A signed proof from Postgres still has a valid signature, although jsonb reorders members and respells numbers
    and text.
    """
    proof = {**PROOF, "onchain": {**PROOF["onchain"], "timestamp": timestamp}}
    proof["content"] = {**PROOF["content"], "file": 'é\u2028"\\/\u0001\U0001f600.mp4'}
    with psycopg.connect(database_url) as connection:
        stored = connection.execute("SELECT %s::jsonb", [Jsonb(KEY.sign(proof))]).fetchone()
    assert stored is not None
    assert list(stored[0]) != list(proof)
    findings = check_proof(stored[0])
    assert (findings.holds, findings.signer) == (True, KEY.address)
