"""The digest that names a content: SHA-256 over its bytes, taken as they stream by."""

import hashlib


class ContentDigest:
    """SHA-256 of a stream. Feed large chunks: from about 2 KiB on, hashing releases the interpreter lock."""

    __slots__ = ("_sha256",)

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the stream's next bytes."""
        self._sha256.update(chunk)

    def content_hash(self) -> str:
        """Return ``0x`` and 64 lower-case hex digits for the bytes taken so far."""
        return "0x" + self._sha256.hexdigest()


def sha256_label(body: bytes) -> str:
    """Return ``sha256:<hex>``, as a report names the bytes of a source."""
    return "sha256:" + hashlib.sha256(body).hexdigest()
