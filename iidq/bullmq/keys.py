"""The keys of BullMQ's queue "verification", and the hash of a job in the form of BullMQ 6. Pure.

Names and fields follow BullMQ 6 (``Queue.getJobs``, ``Queue.getJobCounts``, ``Job.fromJSON``): a hash per job, and a
list or sorted set of ids per state. ``docs/bull-board.md`` lists the differences of both queues.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from iidq.observability.redaction import redact_endpoint, redact_url
from iidq.queue.job import Job, JobStatus

QUEUE: Final = "bull:verification"
META: Final = f"{QUEUE}:meta"
COUNTER: Final = f"{QUEUE}:id"
"""Counts the jobs that BullMQ itself adds; iidq never writes this key, so it marks a live BullMQ queue."""
OURS: Final = "iidq"
"""The field of ``META`` that marks the keys as iidq's."""

# BullMQ leaves twelve bits of a delayed job's score for the order of jobs that are due in the same millisecond.
_DELAYED_STEPS: Final = 0x1000


class BullState(StrEnum):
    """A state of BullMQ; the value is the end of the state's key."""

    WAIT = "wait"
    ACTIVE = "active"
    DELAYED = "delayed"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def key(self) -> str:
        """Key of the list or sorted set with the ids in this state."""
        return f"{QUEUE}:{self.value}"


LISTS: Final = (BullState.WAIT, BullState.ACTIVE)
SORTED_SETS: Final = (BullState.DELAYED, BullState.COMPLETED, BullState.FAILED)
ENDED: Final = {
    JobStatus.COMPLETED.value: BullState.COMPLETED,
    JobStatus.FAILED.value: BullState.FAILED,
}
"""BullMQ's states of ended jobs; a cancelled job has none, as BullMQ removes it."""


def job_key(job_id: str) -> str:
    """Return the key of a job's hash."""
    return f"{QUEUE}:{job_id}"


def milliseconds(moment: datetime) -> int:
    """Return a time in milliseconds since 1970, as BullMQ writes times."""
    return round(moment.timestamp() * 1000)


def delayed_score(due_ms: int) -> int:
    """Return the score of a delayed job in the sorted set."""
    return due_ms * _DELAYED_STEPS


def bull_state(job: Job, *, queued_as: BullState) -> BullState | None:
    """Return the job's state in BullMQ; None for a cancelled job.

    ``queued_as`` is the state of a queued job, waiting or delayed: the record of a job does not have it.
    """
    match job.status:
        case JobStatus.QUEUED:
            return queued_as
        case JobStatus.PROCESSING:
            return BullState.ACTIVE
    return ENDED.get(job.status.value)


def job_fields(job: Job, *, state: BullState | None, backoff_ms: int) -> dict[str, str]:
    """Return the fields of the job's hash; URLs and error texts are redacted, since SQL can insert any text."""
    fields = {
        "name": job.type.value,
        "data": _json(_data(job)),
        "opts": _json(
            {
                "attempts": job.max_attempts,
                "backoff": {"type": "exponential", "delay": backoff_ms},
                "jobId": str(job.id),
            }
        ),
        "timestamp": str(milliseconds(job.created_at)),
        # Bull Board adds the delay to the timestamp and shows the sum as the time of the run.
        "delay": str(max(0, milliseconds(job.run_at) - milliseconds(job.created_at)))
        if state is BullState.DELAYED
        else "0",
        # BullMQ keeps jobs with a priority in another set than ``wait``.
        "priority": "0",
        "progress": str(job.progress),
        # BullMQ counts ended attempts (atm) and started ones (ats).
        "atm": str(job.retry_count + (job.status in (JobStatus.COMPLETED, JobStatus.FAILED))),
        "ats": str(job.attempt),
    }
    if job.started_at is not None:
        fields["processedOn"] = str(milliseconds(job.started_at))
    if job.completed_at is not None:
        fields["finishedOn"] = str(milliseconds(job.completed_at))
    if job.result is not None:
        fields["returnvalue"] = _json(job.result)
    if reason := _failed_reason(job):
        fields["failedReason"] = reason
    if job.errors:
        fields["stacktrace"] = _json([_trace(failure) for failure in job.errors])
    return fields


def _data(job: Job) -> dict[str, Any]:
    told = {
        "type": job.type.value,
        "contentHash": job.subject.content_hash,
        "manifestUri": job.subject.manifest_uri,
        "registryAddress": job.subject.registry_address,
        "rpcUrl": job.subject.rpc_url and redact_endpoint(job.subject.rpc_url),
        "chainId": job.subject.chain_id,
        "fileName": job.subject.file_name,
        "priority": job.priority or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _failed_reason(job: Job) -> str | None:
    if job.status is JobStatus.CANCELLED:
        return "cancelled"
    if job.status is JobStatus.COMPLETED:
        return None
    if job.error is not None:
        return redact_url(job.error)
    return redact_url(str(job.errors[-1].get("error", ""))) if job.errors else None


def _trace(failure: Mapping[str, Any]) -> str:
    # The form of a stack trace: the message, then the place.
    return f"{redact_url(str(failure.get('error', '')))}\n    at attempt {failure.get('attempt')} ({failure.get('at')})"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
