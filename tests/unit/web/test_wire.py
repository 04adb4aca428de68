"""The JSON shapes for clients of the replaced system."""

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

from iidq.queue.job import Job, JobStatus, JobType
from iidq.subject import Subject
from iidq.web.reply.wire import JsonReply, accepted_shape, job_shape, stats_shape
from tests.queue_health import queue_health

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
SUBJECT = Subject("0x" + "ab" * 32, "ipfs://x", "0x" + "cd" * 20)
MOMENT = datetime(2024, 1, 1, 1, 0, 5, 123456, tzinfo=timezone(timedelta(hours=1)))
CONTRACT_KEYS = [
    *("id", "jobId", "type", "contentHash", "manifestUri", "registryAddress", "rpcUrl", "status", "result", "error"),
    *("retryCount", "progress", "startedAt", "completedAt", "createdAt", "updatedAt"),
]


def a_job(**changes: object) -> Job:
    fields: dict[str, object] = {
        "id": ID,
        "type": JobType.VERIFY,
        "status": JobStatus.QUEUED,
        "progress": 0,
        "subject": SUBJECT,
        "result": None,
        "error": None,
        "errors": [],
        "retry_count": 0,
        "attempt": 0,
        "max_attempts": None,
        "priority": 0,
        "run_at": MOMENT,
        "started_at": None,
        "completed_at": None,
        "created_at": MOMENT,
        "updated_at": MOMENT,
    }
    return Job(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_job_has_the_contracts_keys_first_and_null_for_what_is_unset() -> None:
    """Every key of a job is always there; `id` and `jobId` are the same string."""
    shape = job_shape(a_job())
    assert list(shape)[: len(CONTRACT_KEYS)] == CONTRACT_KEYS
    assert shape["id"] == shape["jobId"] == str(ID)
    unset = ("result", "error", "rpcUrl", "startedAt", "completedAt", "chainId", "fileName")
    assert all(value is None for key, value in shape.items() if key in unset)


def test_times_are_utc_with_milliseconds() -> None:
    """Times in replies are in UTC with milliseconds and `Z`, also for whole seconds."""
    shape = job_shape(a_job(completed_at=datetime(2024, 1, 1, tzinfo=UTC)))
    assert (shape["createdAt"], shape["completedAt"]) == ("2024-01-01T00:00:05.123Z", "2024-01-01T00:00:00.000Z")


def test_credentials_in_a_row_do_not_leave() -> None:
    """Credentials of a URL in a row are redacted in the reply."""
    shape = job_shape(
        a_job(subject=SUBJECT._replace(rpc_url="http://me:secret@rpc/"), error="rpc.unavailable: http://me:secret@rpc/")
    )
    assert "secret" not in json.dumps(shape)


def test_an_accepted_job_tells_where_to_poll() -> None:
    """An accepted job of either type has the poll URL, and the message of the replaced system."""
    assert accepted_shape(ID, JobType.PROOF, "") == {
        "mode": "async",
        "jobId": str(ID),
        "status": "queued",
        "message": "Proof generation job queued successfully",
        "pollUrl": f"/api/verification-jobs/{ID}",
    }


def test_stats_without_a_database_are_zeros() -> None:
    """Stats have the same keys with and without a database."""
    away, there = (
        stats_shape(None),
        stats_shape(
            queue_health(
                waiting=1,
                delayed=2,
                active=3,
                completed=4,
                failed=5,
                cancelled=6,
                workers=7,
                oldest_waiting_seconds=8.5,
                state="paused",
                pause_reason="why",
                listening_workers=7,
            )
        ),
    )
    assert away.keys() == there.keys()
    assert (away["available"], away["waiting"], away["oldestWaitingSeconds"]) == (False, 0, None)
    assert (there["available"], there["waiting"], there["active"], there["failed"]) == (True, 1, 3, 5)
    assert (away["state"], there["state"], there["pauseReason"]) == (None, "paused", "why")


def test_json_is_compact_and_plain() -> None:
    """JSON is unescaped UTF-8 without blanks, with the media type of JSON."""
    reply = JsonReply({"name": "größe"})
    assert reply.body == '{"name":"größe"}\n'.encode()
    assert reply.headers["content-type"] == "application/json"
