"""Verifications with verdict OK: contents, signed manifests, and registry entries."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS
from iidq.provenance.ipfs.cid import dag_pb_cid
from iidq.provenance.ipfs.unixfs import wrap_file
from iidq.provenance.manifest import make_manifest

CHAIN_ID = 31_337
BLOCK_NUMBER = 1_000_000
BLOCK_TIME = 1_760_000_000
BLOCK_HASH = "0x" + "b1" * 32
REGISTRY = "0x5A" + "5a" * 19


@dataclass(frozen=True, slots=True)
class Sample:
    """A content: ``content_hash``, ``manifest`` (JSON text) and ``creator`` (address of the signer)."""

    content_hash: str
    manifest: str
    creator: str

    @property
    def block(self) -> bytes:
        """Return the manifest as a single UnixFS block."""
        return wrap_file(self.manifest.encode())

    @property
    def cid(self) -> str:
        """Return the block's CID."""
        return dag_pb_cid(self.block)

    @property
    def manifest_uri(self) -> str:
        """Return the manifest's URI in the registry."""
        return f"ipfs://{self.cid}"


def make_samples(count: int) -> list[Sample]:
    """Return ``count`` different contents, all by one creator."""
    from eth_account import Account

    key = DEVELOPMENT_KEYS[1]
    creator = Account.from_key(key).address
    samples = []
    for number in range(count):
        content_hash = "0x" + hashlib.sha256(f"sample {number}".encode()).hexdigest()
        manifest = make_manifest(content_hash, key, f"https://example.org/{number}", CHAIN_ID).decode()
        samples.append(Sample(content_hash, manifest, creator))
    return samples


def write_samples(samples: Iterable[Sample], path: Path) -> None:
    """Write a JSON object per line."""
    path.write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in samples))


def read_samples(path: Path) -> list[Sample]:
    """Read samples; the inverse of :func:`write_samples`."""
    return [Sample(**json.loads(line)) for line in path.read_text().splitlines()]


def abi_entry(sample: Sample) -> str:
    """Return the reply to ``entries(bytes32)`` in the present layout: (address, uint64, string), in hex."""
    uri = sample.manifest_uri.encode()
    padded = uri + bytes(-len(uri) % 32)
    words = [int(sample.creator, 16), BLOCK_TIME - 60, 0x60, len(uri)]
    return "0x" + b"".join(word.to_bytes(32, "big") for word in words).hex() + padded.hex()
