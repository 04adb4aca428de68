"""A job in the form of BullMQ."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from iidq.bullmq.keys import BullState, bull_state, job_fields
from iidq.queue.job import Job, JobStatus, JobType
from iidq.subject import Subject

CREATED = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
CREATED_MS = "1767323045678"
QUEUED = Job(
    id=UUID(int=7),
    type=JobType.VERIFY,
    status=JobStatus.QUEUED,
    progress=0,
    subject=Subject(
        "0x" + "ab" * 32,
        "ipfs://manifest",
        "0x" + "cd" * 20,
        rpc_url="https://somebody:secret@rpc.example/",
        file_name="photo.jpg",
    ),
    result=None,
    error=None,
    errors=[],
    retry_count=0,
    attempt=0,
    max_attempts=3,
    priority=0,
    run_at=CREATED,
    started_at=None,
    completed_at=None,
    created_at=CREATED,
    updated_at=CREATED,
)


def fields(job: Job, state: BullState | None) -> dict[str, Any]:
    """Return the fields of the job's hash, with JSON parsed."""
    found = job_fields(job, state=state, backoff_ms=5000)
    return {name: json.loads(text) if text[0] in "{[" else text for name, text in found.items()}


def test_a_waiting_job() -> None:
    """A waiting job has name, data, options and times as BullMQ writes for a new job, without secrets of URLs."""
    assert fields(QUEUED, BullState.WAIT) == {
        "name": "verify",
        "data": {
            "type": "verify",
            "contentHash": QUEUED.subject.content_hash,
            "manifestUri": "ipfs://manifest",
            "registryAddress": QUEUED.subject.registry_address,
            "rpcUrl": "https://***@rpc.example/",
            "fileName": "photo.jpg",
        },
        "opts": {
            "attempts": 3,
            "backoff": {"type": "exponential", "delay": 5000},
            "jobId": "00000000-0000-0000-0000-000000000007",
        },
        "timestamp": CREATED_MS,
        "delay": "0",
        "priority": "0",
        "progress": "0",
        "atm": "0",
        "ats": "0",
    }


def test_a_job_that_waits_for_its_retry() -> None:
    """A job in its backoff is delayed until due, with the reason and a line per failed attempt."""
    job = replace(
        QUEUED,
        run_at=CREATED + timedelta(seconds=90),
        started_at=CREATED + timedelta(seconds=1),
        attempt=2,
        retry_count=1,
        errors=[{"attempt": 2, "at": "2026-01-02T03:04:07+00:00", "error": "rpc.timeout: https://a:b@rpc.example"}],
    )
    found = fields(job, BullState.DELAYED)
    assert (found["delay"], found["atm"], found["ats"]) == ("90000", "1", "2")
    assert found["processedOn"] == str(int(CREATED_MS) + 1000)
    assert found["failedReason"] == "rpc.timeout: https://***@rpc.example"
    assert found["stacktrace"] == ["rpc.timeout: https://***@rpc.example\n    at attempt 2 (2026-01-02T03:04:07+00:00)"]
    assert "finishedOn" not in found


def test_ended_jobs() -> None:
    """The last attempt of an ended job counts as made; a verdict is the return value, an error the reason."""
    ended = replace(QUEUED, completed_at=CREATED + timedelta(seconds=5), attempt=1)
    completed = fields(
        replace(ended, status=JobStatus.COMPLETED, progress=100, result={"status": "OK"}), BullState.COMPLETED
    )
    assert (completed["returnvalue"], completed["progress"], completed["atm"]) == ({"status": "OK"}, "100", "1")
    assert completed["finishedOn"] == str(int(CREATED_MS) + 5000)
    assert "failedReason" not in completed
    failed = fields(replace(ended, status=JobStatus.FAILED, error="manifest.missing: gone"), BullState.FAILED)
    assert (failed["failedReason"], failed["atm"]) == ("manifest.missing: gone", "1")
    cancelled = fields(replace(ended, status=JobStatus.CANCELLED), None)
    assert (cancelled["failedReason"], cancelled["atm"]) == ("cancelled", "0")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (JobStatus.QUEUED, BullState.DELAYED),
        (JobStatus.PROCESSING, BullState.ACTIVE),
        (JobStatus.COMPLETED, BullState.COMPLETED),
        (JobStatus.FAILED, BullState.FAILED),
        (JobStatus.CANCELLED, None),
    ],
)
def test_every_status_has_its_place(status: JobStatus, state: BullState | None) -> None:
    """Every status has a state of BullMQ, except cancelled."""
    assert bull_state(replace(QUEUED, status=status), queued_as=BullState.DELAYED) is state
