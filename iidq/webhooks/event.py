"""The signed request that reports the end of a job to a receiver: body, headers, signature. Pure.

Signatures follow Standard Webhooks 1.0.0 (https://www.standardwebhooks.com), symmetric scheme ``v1``. A test verifies
signatures with the package standardwebhooks, which signs with a single key only, and accepts secrets of any length.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID


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
