"""Signatures of Standard Webhooks (https://www.standardwebhooks.com, version 1.0.0, symmetric scheme ``v1``). Pure.

The package standardwebhooks verifies these in a test; it signs with one key alone and takes secrets of any length.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence

_PREFIX = "whsec_"
_SEPARATORS = re.compile(r"[\s,]+")
# The standard's bounds for a secret.
_LEAST_KEY_BYTES, _MOST_KEY_BYTES = 24, 64


def signing_keys(text: str) -> tuple[bytes, ...]:
    """The keys in ``text``, the one in use first: ``whsec_`` and base64 each, separated by blanks or commas.

    Raises :class:`ValueError` that says what was expected, without a word of the secret.
    """
    keys = tuple(_key(secret) for secret in _SEPARATORS.split(text) if secret)
    if not keys:
        raise ValueError(_EXPECTED)
    return keys


_EXPECTED = "whsec_ and the base64 of 24 to 64 random bytes; several for rotation, separated by spaces"


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        raise ValueError(_EXPECTED)
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_EXPECTED) from None
    if not _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        raise ValueError(_EXPECTED)
    return key


def signature(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: one HMAC-SHA256 per key over ``id.timestamp.body``, separated by blanks.

    A receiver takes the request if one of them is right, so that old and new key overlap during a rotation.
    """
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii") for key in keys)
