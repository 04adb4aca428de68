"""The request that tells a receiver how a job ended: its body and its headers. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from iidq.webhooks.signing import signature


def event_body(job: Mapping[str, Any]) -> bytes:
    """The event as JSON: its type, the time of the job's end, and the job as a GET shows it, which is given.

    Without the job's ``callback``, which is about the delivery and would differ at each attempt.
    """
    data = {name: value for name, value in job.items() if name != "callback"}
    event = {"type": f"verification.{job['status']}", "timestamp": job["completedAt"], "data": data}
    return json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def event_headers(keys: Sequence[bytes], event_id: UUID, timestamp: int, body: bytes) -> tuple[tuple[str, str], ...]:
    """What goes with ``body``; ``timestamp`` is that of the attempt, in seconds since 1970."""
    return (
        ("Content-Type", "application/json"),
        ("webhook-id", str(event_id)),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", signature(keys, str(event_id), timestamp, body)),
    )
