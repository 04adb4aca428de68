"""The inputs of a verification, carried unchanged from the request through the row to the verifier. Pure."""

from typing import NamedTuple


class Subject(NamedTuple):
    """The question of a job: did the signer of the manifest register the content?

    A tuple, because a claim makes a subject per job from the columns of the row.
    """

    content_hash: str
    """SHA-256 of the file: ``0x`` and 64 hex digits, lower case in stored rows."""
    manifest_uri: str
    """Where the manifest is: ``ipfs://CID``, ``ipfs://CID/path`` or an http(s) URL."""
    registry_address: str
    """Contract that holds the registration: ``0x`` and 40 hex digits, in the case that the client sent."""
    rpc_url: str | None = None
    """JSON-RPC endpoint that the client chose, without credentials; None for the chain's configured endpoints."""
    endpoint_id: str | None = None
    """Digest of that endpoint with its credentials, because two endpoints can look alike without; None without one."""
    chain_id: int | None = None
    """EIP-155 id of the chain to read; None for the default chain."""
    file_name: str | None = None
    """Name of the file as a proof shows it; None shows "unknown"."""
