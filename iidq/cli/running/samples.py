"""Sample content for `iidq demo` and `iidq up`: a sound file, a signed manifest, a registration."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from iidq.embedded.content import sample_audio
from iidq.embedded.stack import Stack
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_CHAIN_ID
from iidq.provenance.manifest import make_manifest


@dataclass(frozen=True, slots=True)
class Sample:
    """A registered file on disk."""

    path: Path
    """Where the file is."""
    content_hash: str
    """Its SHA-256, ``0x`` and 64 hex digits."""
    manifest_uri: str
    """The registered manifest URI, ``ipfs://…``."""
    manifest: bytes
    """The signed manifest."""


async def publish_sample(stack: Stack, name: str, seed: int) -> Sample:
    """Make the file, sign and publish a manifest, register the hash on the development chain."""
    # Loads web3, which takes most of a second: after the first output.
    from iidq.embedded.demo_registry import register

    assert stack.registry is not None
    content = sample_audio(seed)
    path = stack.home / name
    path.write_bytes(content)
    content_hash = "0x" + hashlib.sha256(content).hexdigest()
    manifest = make_manifest(content_hash, stack.creator_key, f"https://example.org/{name}", DEVELOPMENT_CHAIN_ID)
    manifest_uri = stack.manifests.publish_ipfs(manifest)
    await register(stack.rpc_url, stack.registry, stack.creator_key, content_hash, manifest_uri)
    return Sample(path, content_hash, manifest_uri, manifest)
