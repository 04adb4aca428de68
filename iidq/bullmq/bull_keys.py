"""The keys of BullMQ's queue "verification", and a job as BullMQ 6 stores and reads it. Pure.

Names and fields are those of BullMQ 6 (``Queue.getJobs``, ``Queue.getJobCounts``, ``Job.fromJSON``): a hash per job,
and per state a list or sorted set of ids. Where the two queues differ is told in ``docs/bull-board.md``.
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
"""Grows with every job that BullMQ itself adds; not ours, so that a live queue of BullMQ's is known by it."""
OURS: Final = "iidq"
"""The field of ``META`` that says who keeps these keys."""

# BullMQ leaves twelve bits of a delayed job's score for the order of jobs that are due in the same millisecond.
_DELAYED_STEPS: Final = 0x1000


class BullState(StrEnum):
    """Where BullMQ has a job; the name is the key's end."""

    WAIT = "wait"
    ACTIVE = "active"
    DELAYED = "delayed"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def key(self) -> str:
        """The list or sorted set of the ids in this state."""
        return f"{QUEUE}:{self.value}"


LISTS: Final = (BullState.WAIT, BullState.ACTIVE)
SORTED_SETS: Final = (BullState.DELAYED, BullState.COMPLETED, BullState.FAILED)
ENDED: Final = {
    JobStatus.COMPLETED.value: BullState.COMPLETED,
    JobStatus.FAILED.value: BullState.FAILED,
}
"""A cancelled job is in none of BullMQ's states: there, it would have been removed."""


def job_key(job_id: str) -> str:
    """The hash of one job."""
    return f"{QUEUE}:{job_id}"


def milliseconds(moment: datetime) -> int:
    """A time as BullMQ writes it: milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


def delayed_score(due_ms: int) -> int:
    """A delayed job's score in its sorted set."""
    return due_ms * _DELAYED_STEPS


def bull_state(job: Job, *, queued_as: BullState) -> BullState | None:
    """Where the job stands in BullMQ's terms; None where it is in none of its states.

    ``queued_as`` says whether a queued one is in line or delayed, which a row as readers see it does not tell.
    """
    match job.status:
        case JobStatus.QUEUED:
            return queued_as
        case JobStatus.PROCESSING:
            return BullState.ACTIVE
    return ENDED.get(job.status.value)


def job_fields(job: Job, *, state: BullState | None, backoff_ms: int) -> dict[str, str]:
    """The job's hash. Rows can come from SQL with any ``rpcUrl`` and error text, so both are redacted here."""
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
        # Bull Board adds it to the timestamp to tell when the job will run.
        "delay": str(max(0, milliseconds(job.run_at) - milliseconds(job.created_at)))
        if state is BullState.DELAYED
        else "0",
        # In BullMQ whatever has one is in another set than ``wait``.
        "priority": "0",
        "progress": str(job.progress),
        # BullMQ counts an attempt when it has ended, and its start apart from that.
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
        fields["stacktrace"] = _json([_trace(told) for told in job.errors])
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


def _trace(told: Mapping[str, Any]) -> str:
    # As a stack trace looks: what happened, and under it where.
    return f"{redact_url(str(told.get('error', '')))}\n    at attempt {told.get('attempt')} ({told.get('at')})"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
