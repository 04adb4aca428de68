"""The JSON that leaves: camelCase, times in ISO 8601 with milliseconds and ``Z``, null for what is unset. Pure."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from starlette.responses import Response

from iidq.queue.job import Job, JobType, QueueCounts
from iidq.redaction import redact_url

JOBS_PATH = "/api/verification-jobs"

_QUEUED_MESSAGES = {
    JobType.VERIFY: "Verification job queued successfully",
    JobType.PROOF: "Proof generation job queued successfully",
}


class JsonReply(Response):
    """A reply in compact JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The JSON's bytes; text stands as it is, in UTF-8. A final newline keeps a terminal's prompt off the reply."""
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def poll_url(job_id: object) -> str:
    """Where a job's state can be read."""
    return f"{JOBS_PATH}/{job_id}"


def accepted_shape(job_id: UUID, job_type: JobType) -> dict[str, Any]:
    """The reply to a submission whose row is durable."""
    return {
        "mode": "async",
        "jobId": str(job_id),
        "status": "queued",
        "message": _QUEUED_MESSAGES[job_type],
        "pollUrl": poll_url(job_id),
    }


def job_shape(job: Job) -> dict[str, Any]:
    """One job. Rows can come from SQL with any ``rpcUrl`` and error text, so both are redacted here again."""
    job_id = str(job.id)
    return {
        "id": job_id,
        "jobId": job_id,
        "type": job.type,
        "contentHash": job.content_hash,
        "manifestUri": job.manifest_uri,
        "registryAddress": job.registry_address,
        "rpcUrl": redact_url(job.rpc_url) if job.rpc_url else job.rpc_url,
        "status": job.status,
        "result": job.result,
        "error": redact_url(job.error) if job.error else job.error,
        "retryCount": job.retry_count,
        "progress": job.progress,
        "startedAt": _time(job.started_at),
        "completedAt": _time(job.completed_at),
        "createdAt": _time(job.created_at),
        "updatedAt": _time(job.updated_at),
        "chainId": job.chain_id,
        "fileName": job.file_name,
        "attempt": job.attempt,
        "maxAttempts": job.max_attempts,
        "runAt": _time(job.run_at),
        "errors": job.errors,
    }


def stats_shape(counts: QueueCounts | None) -> dict[str, Any]:
    """The queue's counts; without a database (None) unavailable, and zeros."""
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


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
