"""Values that nobody can forge, swap or keep for longer than they are good. Pure; the time comes in as an argument.

A sealed value is HMAC-SHA-256 (RFC 2104) over its name, its end and its bytes, then the end, then the bytes. The name
is part of it, so that one job's value cannot be put in another's place; the end, so that no old one can be put back.
"""

import hmac
from hashlib import blake2b, sha256
from typing import Final

_TAG_BYTES: Final = 32
_END_BYTES: Final = 8


class Seal:
    """Seals and opens under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.namespace: Final = blake2b(key, digest_size=6, person=b"iidq namespace").hexdigest()
        """Tells the keys of one database from those of another in the same Redis; says nothing about the secret."""

    def digest(self, text: str) -> str:
        """A name for what must not be readable in Redis; the same for all who share the key."""
        return blake2b(text.encode(), digest_size=16, key=self._key).hexdigest()

    def close(self, name: str, value: bytes, *, now: float, lasts_seconds: float) -> bytes:
        """The sealed value, good until ``now`` (seconds since 1970) + ``lasts_seconds``."""
        rest = (_ms(now) + _ms(lasts_seconds)).to_bytes(_END_BYTES, "big", signed=True) + value
        return self._tag(name, rest) + rest

    def open(self, name: str, sealed: bytes, *, now: float, lasts_seconds: float) -> bytes | None:
        """The value, or None if it is not ours, not of this name, over, or said to last longer than it may."""
        tag, rest = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
        if len(rest) < _END_BYTES or not hmac.compare_digest(tag, self._tag(name, rest)):
            return None
        left_ms = int.from_bytes(rest[:_END_BYTES], "big", signed=True) - _ms(now)
        return rest[_END_BYTES:] if 0 < left_ms <= _ms(lasts_seconds) else None

    def _tag(self, name: str, rest: bytes) -> bytes:
        # The length keeps name and rest apart.
        text = name.encode()
        return hmac.digest(self._key, len(text).to_bytes(4, "big") + text + rest, sha256)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
