"""What a result says about how it was found: the checks, and every source that was tried."""

from dataclasses import dataclass
from typing import Literal, Protocol

Outcome = Literal["used", "mismatched", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class SourceTried:
    """One source that was asked, whether or not its answer was used.

    ``what`` is ``manifest``, ``registry``, ``wallet`` or ``transaction``; ``url`` is redacted but keeps host and port;
    ``digest`` is ``sha256:<hex>`` of the bytes that came, None if none came or the report tells them elsewhere.
    """

    what: str
    url: str
    digest: str | None
    outcome: Outcome
    message: str

    def as_json(self) -> dict[str, str | None]:
        """The report's entry."""
        return {
            "what": self.what,
            "url": self.url,
            "digest": self.digest,
            "outcome": self.outcome,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest's bytes; ``cid_verified`` is None for a web URL, which has no CID to verify."""

    body: bytes
    cid_verified: bool | None
    sources: tuple[SourceTried, ...]


class SharedManifests(Protocol):
    """Verified manifests that several processes share; nothing that comes from there is believed unverified."""

    async def get(self, cid: str) -> FetchedManifest | None:
        """What is kept for this CID. Never raises, never takes long."""
        ...

    async def put(self, cid: str, manifest: FetchedManifest) -> None:
        """Keep it for others, if that is possible. Never raises, never takes long."""
        ...


class ManifestPort(Protocol):
    """Where a verification gets a manifest from."""

    async def fetch(self, manifest_uri: str) -> FetchedManifest:
        """Return the manifest; raise FetchRefused, ManifestFault or GatewayFault."""
        ...
