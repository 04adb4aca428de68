"""SHA-256 of content that arrives in chunks, and the labels of digests."""

import hashlib


class ContentDigest:
    """SHA-256 of a stream. Chunks of 2 KiB and more release the interpreter lock while they are hashed."""

    __slots__ = ("_sha256",)

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Hash the next bytes of the stream."""
        self._sha256.update(chunk)

    def content_hash(self) -> str:
        """Return ``0x`` and 64 lower-case hex digits for the bytes so far."""
        return "0x" + self._sha256.hexdigest()


def sha256_label(body: bytes) -> str:
    """Return ``sha256:<hex>``, the form of digests in a report."""
    return "sha256:" + hashlib.sha256(body).hexdigest()
