"""Records of where evidence came from, and the port through which manifests come."""

from dataclasses import dataclass
from typing import Literal, Protocol

SourceResult = Literal["used", "mismatched", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class SourceTried:
    """A requested source of evidence, used or not."""

    what: str
    """``manifest``, ``registry``, ``wallet`` or ``transaction``."""
    url: str
    """Redacted URL; host and port are kept."""
    digest: str | None
    """``sha256:<hex>`` of the received bytes; None if no bytes came, or the report has them elsewhere."""
    outcome: SourceResult
    """Use of the answer: ``used``, ``mismatched`` (other bytes than the CID), ``failed``, or ``refused`` by a rule."""
    message: str
    """The reason in words."""

    def as_json(self) -> dict[str, str | None]:
        """Return the entry of the report."""
        return {
            "what": self.what,
            "url": self.url,
            "digest": self.digest,
            "outcome": self.outcome,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """The bytes of a manifest and their origin."""

    body: bytes
    """The manifest, at most ``MAX_MANIFEST_BYTES``."""
    cid_verified: bool | None
    """True if the bytes match their CID; None for a web URL, which has no CID."""
    sources: tuple[SourceTried, ...]
    """Every source that was requested, in order."""


class SharedManifests(Protocol):
    """Manifests that several processes share; the reader verifies the bytes again.

    Both methods return soon and never raise.
    """

    async def get(self, cid: str) -> FetchedManifest | None:
        """Return the shared manifest of a CID, or None."""
        ...

    async def put(self, cid: str, manifest: FetchedManifest) -> None:
        """Share a verified manifest, if that is possible."""
        ...


class ManifestPort(Protocol):
    """The source of manifests; :class:`iidq.provenance.manifest_source.ManifestSource` is the real one."""

    async def fetch(self, manifest_uri: str) -> FetchedManifest:
        """Return the manifest; raise FetchRefused, ManifestFault or GatewayFault."""
        ...
