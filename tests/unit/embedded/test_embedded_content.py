"""The sample file, its manifest, and the gateway's blocks."""

import hashlib
import io
import json
import wave
from datetime import UTC, datetime
from typing import Any

import libipld
from eth_account import Account
from eth_account.hdaccount import seed_from_mnemonic
from eth_account.hdaccount.deterministic import HDPath
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from iidq.embedded.content import sample_audio
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS, DEVELOPMENT_MNEMONIC
from iidq.provenance.ipfs.cid import dag_pb_cid, raw_cid
from iidq.provenance.ipfs.unixfs import wrap_file
from iidq.provenance.manifest import make_manifest

# A manifest published on Base Sepolia in October 2025, with CID and signer.
PUBLIC_MANIFEST: dict[str, Any] = {
    "version": "1.0",
    "algorithm": "sha256",
    "content_hash": "0x0abe8d173cc31e8c4095fdd2576bef72f596f8c804c2623022c7cab5c6b12c8e",
    "content_uri": "ipfs://QmSV61ixR4mJRefCuAVeSkhi2gATiWUydYKgyQKLm1g5ka",
    "creator_did": "did:pkh:eip155:84532:0xA11B0dC0ef5E51b47368a9AF802d97201C0c6F52",
    "created_at": "2025-10-06T18:13:40.699Z",
    "signature": "0xc15a4be926c8fc1f8d1664f83ff39306065653c2962a41796a7391582df112a1"
    "4cbf482790f760371dd2754e3919fb7ae076e1ba528c85d159e86388c1d1d9b51b",
    "attestations": [],
}
PUBLIC_CID = "QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o"


def test_the_sample_is_a_playable_file_and_always_the_same() -> None:
    """The sample is a WAV of eight seconds with a digest fixed by the seed."""
    body = sample_audio()
    with wave.open(io.BytesIO(body)) as audio:
        assert audio.getnframes() / audio.getframerate() == 8
    assert hashlib.sha256(body).hexdigest() == "efdf11fd006daa84426a1a62cbab3c82fb07698b0e72072cd29d3bf8cd783354"
    assert sample_audio(1) != body


def test_a_manifest_has_the_public_ones_shape_and_signature() -> None:
    """A manifest has the fields of the public one in order and form, and its signature recovers to the creator."""
    key = DEVELOPMENT_KEYS[0]
    content_hash = "0x" + "ab" * 32
    body = make_manifest(content_hash, key, "ipfs://x", 31337, created_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))
    manifest = json.loads(body)
    assert list(manifest) == list(PUBLIC_MANIFEST)
    assert manifest["created_at"] == "2025-01-02T03:04:05.000Z"
    assert manifest["creator_did"] == f"did:pkh:eip155:31337:{Account.from_key(key).address}"
    for item, signer in (
        (manifest, Account.from_key(key).address),
        (PUBLIC_MANIFEST, "0xA11B0dC0ef5E51b47368a9AF802d97201C0c6F52"),
    ):
        message = encode_defunct(hexstr=item["content_hash"])
        assert Account.recover_message(message, signature=item["signature"]) == signer


def test_the_public_manifest_gets_its_public_cid() -> None:
    """A single UnixFS block of the public manifest's 510 bytes has the published CID."""
    body = json.dumps(PUBLIC_MANIFEST, indent=2).encode()
    assert len(body) == 510
    assert dag_pb_cid(wrap_file(body)) == PUBLIC_CID


@given(st.binary(max_size=300))
def test_another_implementation_reads_the_cids(body: bytes) -> None:
    """Libipld finds the block's own digest in version 0, and in version 1 the body's under the codec raw."""
    block = wrap_file(body)
    for text, version, codec, named in ((dag_pb_cid(block), 0, 0x70, block), (raw_cid(body), 1, 0x55, body)):
        cid = libipld.decode_cid(text)
        assert (cid["version"], cid["codec"], cid["hash"]["code"]) == (version, codec, 0x12)
        assert cid["hash"]["digest"] == hashlib.sha256(named).digest()


def test_the_development_keys_are_the_mnemonics() -> None:
    """The development keys are the accounts funded by anvil and hardhat, so the same keys work on all development
    chains.
    """
    seed = seed_from_mnemonic(DEVELOPMENT_MNEMONIC, "")
    derived = ["0x" + HDPath(f"m/44'/60'/0'/0/{index}").derive(seed).hex() for index in range(len(DEVELOPMENT_KEYS))]
    assert derived == list(DEVELOPMENT_KEYS)
