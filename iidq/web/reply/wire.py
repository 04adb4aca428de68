"""JSON of the replies: camelCase, times in ISO 8601 with milliseconds and ``Z``, null for unset values. Pure."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from starlette.responses import Response

from iidq.observability.redaction import redact_endpoint, redact_url
from iidq.portable_values import iso_milliseconds
from iidq.queue.job import Job, JobType
from iidq.queue.read.queue_health import QueueHealth
from iidq.web.reply import shapes

JOBS_PATH = "/api/verification-jobs"

RawHeader = tuple[bytes, bytes]
"""Name in lower case, and value."""

_QUEUED_MESSAGES = {
    JobType.VERIFY: "Verification job queued successfully",
    JobType.PROOF: "Proof generation job queued successfully",
}


class JsonReply(Response):
    """A reply in compact JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the JSON in UTF-8, unescaped, with a newline at the end for terminals."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class ReadyJson(Response):
    """A 200 with JSON as :class:`JsonReply` renders it, ready as bytes; skips Starlette's work on headers.

    ``headers`` come after Content-Length and Content-Type.
    """

    def __init__(self, body: bytes, headers: Sequence[RawHeader] = ()) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            *headers,
        ]


def poll_url(job_id: object, prefix: str) -> str:
    """Return the URL of a job's state; ``prefix`` is the request's path prefix."""
    return f"{prefix}{JOBS_PATH}/{job_id}"


def accepted_shape(job_id: UUID, job_type: JobType, prefix: str) -> shapes.Accepted:
    """Return the reply to a submission with a durable row."""
    return {
        "mode": "async",
        "jobId": str(job_id),
        "status": "queued",
        "message": _QUEUED_MESSAGES[job_type],
        "pollUrl": poll_url(job_id, prefix),
    }


def accepted_reply(job_id: UUID, job_type: JobType, prefix: str) -> ReadyJson:
    """Return the 200 to a submission: :func:`accepted_shape` as JSON, with ``Location``."""
    body = _ACCEPTED[job_type].replace(_NIL_TEXT, str(job_id).encode())
    if prefix:
        body = body.replace(b'"/', b'"%b/' % prefix.encode())
    return ReadyJson(body, [(b"location", poll_url(job_id, prefix).encode()), (b"vary", b"Prefer")])


_NIL = UUID(int=0)
_NIL_TEXT = str(_NIL).encode()
_ACCEPTED = {job_type: bytes(JsonReply(accepted_shape(_NIL, job_type, "")).body) for job_type in JobType}


def processed_shape(result: dict[str, Any]) -> shapes.SyncResult:
    """Return the reply to a submission that was processed at once, without the queue."""
    return {"mode": "sync", "result": result}


def batch_shape(job_ids: Sequence[UUID], prefix: str) -> shapes.AcceptedBatch:
    """Return the reply to a batch with durable rows; ids and URLs in the order of the jobs."""
    return {
        "mode": "async",
        "status": "queued",
        "message": f"{len(job_ids)} {'job' if len(job_ids) == 1 else 'jobs'} queued successfully",
        "jobIds": [str(job_id) for job_id in job_ids],
        "pollUrls": [poll_url(job_id, prefix) for job_id in job_ids],
    }


def job_shape(job: Job) -> shapes.Job:
    """Return one job. Rows from SQL may hold any ``rpcUrl`` and error text, so both are redacted here again."""
    job_id, subject = str(job.id), job.subject
    return {
        "id": job_id,
        "jobId": job_id,
        "type": job.type,
        "contentHash": subject.content_hash,
        "manifestUri": subject.manifest_uri,
        "registryAddress": subject.registry_address,
        "rpcUrl": redact_endpoint(subject.rpc_url) if subject.rpc_url else subject.rpc_url,
        "status": job.status,
        "result": job.result,
        "error": redact_url(job.error) if job.error else job.error,
        "retryCount": job.retry_count,
        "progress": job.progress,
        "startedAt": iso_milliseconds(job.started_at) if job.started_at else None,
        "completedAt": iso_milliseconds(job.completed_at) if job.completed_at else None,
        "createdAt": iso_milliseconds(job.created_at),
        "updatedAt": iso_milliseconds(job.updated_at),
        "chainId": subject.chain_id,
        "fileName": subject.file_name,
        "attempt": job.attempt,
        "maxAttempts": job.max_attempts,
        "runAt": iso_milliseconds(job.run_at),
        "errors": [_attempt_fault(fault) for fault in job.errors],
        "callback": cast("shapes.Callback | None", job.callback),
    }


def stats_shape(counts: QueueHealth | None) -> shapes.Stats:
    """Return the queue's counts; None (no database) gives ``available`` false and zeros."""
    return {
        "available": counts is not None,
        "waiting": counts.waiting if counts else 0,
        "active": counts.active if counts else 0,
        "completed": counts.completed if counts else 0,
        "failed": counts.failed if counts else 0,
        "delayed": counts.delayed if counts else 0,
        "cancelled": counts.cancelled if counts else 0,
        "workers": counts.workers if counts else 0,
        "oldestWaitingSeconds": counts.oldest_waiting_seconds if counts else None,
        "state": counts.state if counts else None,
        "pauseReason": counts.pause_reason if counts else None,
    }


def redis_shape(state: str, since: datetime | None) -> shapes.RedisSigns:
    """Return the state of the Redis connection, and the time of its last change."""
    return {"state": cast("Literal['up', 'open', 'off']", state), "since": iso_milliseconds(since) if since else None}


def _attempt_fault(fault: Mapping[str, Any]) -> shapes.AttemptFault:
    attempt, at, error = fault.get("attempt"), None, fault.get("error")
    # The database writes microseconds and an offset; plain SQL may have written anything.
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        at = iso_milliseconds(datetime.fromisoformat(fault.get("at", "")))
    return {
        "attempt": attempt if isinstance(attempt, int) and attempt >= 0 else 0,
        "at": at,
        "error": redact_url(error) if isinstance(error, str) else "",
    }
