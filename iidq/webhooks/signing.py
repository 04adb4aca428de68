"""Signatures of Standard Webhooks (https://www.standardwebhooks.com, version 1.0.0, symmetric scheme ``v1``). Pure.

The package standardwebhooks verifies these in a test; it signs with one key alone and takes secrets of any length.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signature(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: one HMAC-SHA256 per key over ``id.timestamp.body``, separated by blanks.

    A receiver takes the request if one of them is right, so that old and new key overlap during a rotation.
    """
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii") for key in keys)
