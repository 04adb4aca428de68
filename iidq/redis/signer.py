"""Sign values against other clients of Redis, which could forge, swap or prolong values. Pure.

A signed value is HMAC-SHA-256 (RFC 2104) over name, end and bytes, then the end, then the bytes. The name prevents a
move to another name; the end prevents the return of an expired value.
"""

import hmac
from hashlib import blake2b, sha256
from typing import Final

_TAG_BYTES: Final = 32
_END_BYTES: Final = 8


class Signer:
    """Signs and verifies values under a key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.namespace: Final = blake2b(key, digest_size=6, person=b"iidq namespace").hexdigest()
        """Part of every name in Redis: separates databases that share a Redis, and reveals nothing of the key."""

    def digest(self, text: str) -> str:
        """Return a name for secret text, equal in all processes with the key."""
        return blake2b(text.encode(), digest_size=16, key=self._key).hexdigest()

    def sign(self, name: str, value: bytes, *, now: float, lasts_seconds: float) -> bytes:
        """Return the signed value, valid until ``now`` (seconds since 1970) + ``lasts_seconds``."""
        rest = (_ms(now) + _ms(lasts_seconds)).to_bytes(_END_BYTES, "big", signed=True) + value
        return self._tag(name, rest) + rest

    def verify(self, name: str, signed: bytes, *, now: float, lasts_seconds: float) -> bytes | None:
        """Return the value; None if the signature or name differs, the end has passed, or the end is too far ahead."""
        tag, rest = signed[:_TAG_BYTES], signed[_TAG_BYTES:]
        if len(rest) < _END_BYTES or not hmac.compare_digest(tag, self._tag(name, rest)):
            return None
        left_ms = int.from_bytes(rest[:_END_BYTES], "big", signed=True) - _ms(now)
        return rest[_END_BYTES:] if 0 < left_ms <= _ms(lasts_seconds) else None

    def _tag(self, name: str, rest: bytes) -> bytes:
        # The length separates name and rest.
        text = name.encode()
        return hmac.digest(self._key, len(text).to_bytes(4, "big") + text + rest, sha256)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
