"""The signed request that reports the end of a job to a receiver: body, headers, signature. Pure.

Signatures follow Standard Webhooks 1.0.0 (https://www.standardwebhooks.com), symmetric scheme ``v1``. A test verifies
signatures with the package standardwebhooks, which signs with a single key only, and accepts secrets of any length.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

_PREFIX = "whsec_"
_SEPARATORS = re.compile(r"[\s,]+")
# The standard's bounds for a secret.
_LEAST_KEY_BYTES, _MOST_KEY_BYTES = 24, 64
_EXPECTED = "whsec_ and the base64 of 24 to 64 random bytes; several for rotation, separated by spaces"


def event_body(job: Mapping[str, Any]) -> bytes:
    """Return the event as JSON: type, time of the job's end, and ``job`` as a GET shows it.

    The job's ``callback`` is left out, because the state of the delivery differs at each attempt.
    """
    data = {name: value for name, value in job.items() if name != "callback"}
    event = {"type": f"verification.{job['status']}", "timestamp": job["completedAt"], "data": data}
    return json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def event_headers(keys: Sequence[bytes], event_id: UUID, timestamp: int, body: bytes) -> tuple[tuple[str, str], ...]:
    """Return the headers of ``body``; ``timestamp`` is the time of the attempt, in seconds since 1970."""
    return (
        ("Content-Type", "application/json"),
        ("webhook-id", str(event_id)),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", signature(keys, str(event_id), timestamp, body)),
    )


def signature(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """Return the header ``webhook-signature``: an HMAC-SHA256 per key over ``id.timestamp.body``, blank-separated.

    A receiver accepts any right signature, so that old and new key overlap during a rotation.
    """
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii") for key in keys)


def signing_keys(text: str) -> tuple[bytes, ...]:
    """Return the keys in ``text``, the one in use first: ``whsec_`` and base64 each, separated by blanks or commas.

    Raise :class:`ValueError` with the expected form, without any part of the secret.
    """
    keys = tuple(_key(secret) for secret in _SEPARATORS.split(text) if secret)
    if not keys:
        raise ValueError(_EXPECTED)
    return keys


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
