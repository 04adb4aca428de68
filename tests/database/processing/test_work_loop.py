"""The loop of a worker against real Postgres: runs of each job, and the row at the end."""

import asyncio
import time
from collections import Counter
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.database.connections import connect
from iidq.errors import GatewayFault, ManifestFault
from iidq.queue import control, store
from iidq.queue.job import ClaimedJob
from iidq.queue.notify import channels
from iidq.queue.processing.execution import Progress
from iidq.settings import Settings
from tests.database.attempts import sweep
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import QUEUED, Sql, insert, new_job, read, scalar, statuses, update

OK = {"status": "OK"}


class Executions:
    """A handler that counts the given jobs, and ends when ``go_on`` is set."""

    def __init__(self, *, waits: bool = False) -> None:
        self.begun: Counter[UUID] = Counter()
        self.interrupted: list[tuple[UUID, int]] = []
        self.running = 0
        self.most = 0
        self.go_on = asyncio.Event()
        if not waits:
            self.go_on.set()

    async def __call__(self, job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        self.begun[job.id] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.interrupted.append((job.id, job.attempt))
            raise
        finally:
            self.running -= 1
        return {"status": "OK", "attempt": job.attempt}


async def test_every_job_runs_once(database_url: str, sql: psycopg.Connection[Any], connection: Any) -> None:
    """Waiting jobs, jobs inserted by SQL and jobs from the store each run once and complete."""
    insert(sql, copies=30)
    handler = Executions()
    async with working(database_url, handler):
        await eventually(lambda: statuses(sql) == {"completed": 30})
        insert(sql, copies=30)
        await eventually(lambda: statuses(sql) == {"completed": 60})
        await store.enqueue(connection, [new_job() for _ in range(30)], max_attempts=3)
        await channels.announce(connection)
        await eventually(lambda: statuses(sql) == {"completed": 90})
    assert len(handler.begun) == 90
    assert set(handler.begun.values()) == {1}
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE attempt = 1 AND "retryCount" = 0') == 90


async def test_concurrency_is_reached_and_kept(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """With more jobs than slots, all slots are filled, no slot twice, and only running jobs are claimed."""
    insert(sql, copies=20)
    handler = Executions(waits=True)
    async with working(database_url, handler, worker_concurrency=6):
        await eventually(lambda: handler.running == 6)
        assert statuses(sql) == {"processing": 6, "queued": 14}
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": 20})
    assert handler.most == 6


async def test_the_jobs_of_a_backlog_are_claimed_when_they_can_run(
    database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """A claim takes at most as many jobs as there are free slots, also for short jobs; no job is released."""
    insert(sql, copies=60)
    async with working(database_url, Executions(), worker_concurrency=2):
        await eventually(lambda: statuses(sql) == {"completed": 60})
    assert scalar(sql, 'SELECT max(attempt) FROM "VerificationJob"') == 1


async def test_a_handlers_context_is_its_own(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A handler sees no context variable of another handler."""
    left_behind = ContextVar("left_behind", default=False)
    seen: set[bool] = set()

    async def leaves_something(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        seen.add(left_behind.get())
        left_behind.set(True)
        await asyncio.sleep(0.01)
        return OK

    insert(sql, copies=40)
    async with working(database_url, leaves_something, worker_concurrency=2):
        await eventually(lambda: statuses(sql) == {"completed": 40})
    assert seen == {False}


async def test_a_free_slot_is_filled_while_others_run(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A slow job occupies a single slot."""
    slow = insert(sql)
    may_end = asyncio.Event()

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        if job.id == slow:
            await may_end.wait()
        return OK

    async with working(database_url, handler, worker_concurrency=2):
        insert(sql, copies=10)
        await eventually(lambda: statuses(sql) == {"completed": 10, "processing": 1})
        may_end.set()
        await eventually(lambda: statuses(sql) == {"completed": 11})


async def test_a_permanent_fault_fails_at_once(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A permanent fault is not retried, and the row has the error."""

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        raise ManifestFault("404 from the manifest's host", code="manifest.missing")

    job_id = insert(sql)
    async with working(database_url, handler):
        await eventually(lambda: statuses(sql) == {"failed": 1})
    row = read(sql, job_id)
    assert row["error"] == "manifest.missing: 404 from the manifest's host"
    assert (row["attempt"], row["retryCount"], row["result"]) == (1, 0, None)


async def test_a_temporary_fault_is_retried_and_then_fails(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A temporary fault is retried up to three attempts; the job then fails with the last error and lists all."""
    attempts = []

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        attempts.append((job.attempt, job.retry_count))
        raise GatewayFault(f"503, time {job.attempt}")

    job_id = insert(sql)
    async with working(database_url, handler):
        await eventually(lambda: statuses(sql) == {"failed": 1})
    assert attempts == [(1, 0), (2, 1), (3, 2)]
    row = read(sql, job_id)
    assert (row["error"], row["retryCount"]) == ("fetch.unavailable: 503, time 3", 2)
    assert [entry["error"] for entry in row["errors"]] == [f"fetch.unavailable: 503, time {n}" for n in (1, 2, 3)]


async def test_a_temporary_fault_that_passes_leaves_no_error(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A success after a temporary fault has no error, and counts the retry."""

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        if job.attempt == 1:
            raise GatewayFault("429", retry_after_seconds=0.05)
        return OK

    job_id = insert(sql)
    async with working(database_url, handler, retry_backoff_ms=0):
        await eventually(lambda: statuses(sql) == {"completed": 1})
    row = read(sql, job_id)
    assert (row["error"], row["retryCount"], row["result"]) == (None, 1, OK)


async def test_the_far_sides_wish_delays_the_retry(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Retry-After is a lower bound for the next attempt."""

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        raise GatewayFault("429", retry_after_seconds=100)

    job_id = insert(sql)
    async with working(database_url, handler):
        await eventually(lambda: read(sql, job_id)["retryCount"] == 1)
    row = read(sql, job_id)
    assert (row["status"], row["ready"]) == ("queued", False)
    assert (row["runAt"] - row["updatedAt"]).total_seconds() >= 100


async def test_an_attempt_has_a_deadline(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A handler beyond the deadline is interrupted, and the attempt counts as a temporary failure."""
    handler = Executions(waits=True)
    job_id = insert(sql, maxAttempts=2)
    async with working(database_url, handler, job_timeout_seconds=0.1):
        await eventually(lambda: statuses(sql) == {"failed": 1})
    assert handler.interrupted == [(job_id, 1), (job_id, 2)]
    assert read(sql, job_id)["error"] == "attempt.timeout: no outcome within 0.1 s"


def _crash() -> dict[str, Any]:
    raise ZeroDivisionError("hunter2")


def _cancel_itself() -> dict[str, Any]:
    raise asyncio.CancelledError("hunter2")


@pytest.mark.parametrize(
    "misbehave",
    [
        _crash,
        _cancel_itself,
        lambda: {"status": float("nan")},
        lambda: {"status": {1, 2}},
    ],
    ids=["exception", "cancellation out of nowhere", "result with NaN", "result that is no JSON"],
)
async def test_a_bug_in_the_handler_ends_the_job(
    database_url: str, sql: psycopg.Connection[Any], misbehave: Any
) -> None:
    """An unexpected error is retried like a temporary error, ends the job, and shows clients nothing internal."""

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        result: dict[str, Any] = misbehave()
        return result

    job_id = insert(sql, maxAttempts=2)
    async with working(database_url, handler):
        await eventually(lambda: read(sql, job_id)["status"] == "failed")
    row = read(sql, job_id)
    assert row["error"] == "internal: an unexpected error; see the worker's log"
    assert (row["attempt"], row["retryCount"]) == (2, 1)
    assert "hunter2" not in str(row)


async def test_progress_is_seen_in_the_row(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """The row of a running job has the progress, never backwards; at the end, 100."""
    may_end = asyncio.Event()

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        for percent in (10, 30, 50, 30):
            progress(percent)
        await may_end.wait()
        return OK

    job_id = insert(sql)
    async with working(database_url, handler):
        await eventually(lambda: read(sql, job_id)["progress"])
        assert read(sql, job_id)["progress"] == 50
        may_end.set()
        await eventually(lambda: statuses(sql) == {"completed": 1})
    assert read(sql, job_id)["progress"] == 100


async def test_steps_out_of_range_harm_nobody(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Progress out of range breaks neither the row nor the progress of other jobs."""
    may_end = asyncio.Event()
    good, bad = insert(sql), insert(sql)

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        progress(1000 if job.id == bad else 30)
        await may_end.wait()
        return OK

    async with working(database_url, handler):
        await eventually(lambda: read(sql, good)["progress"] == 30)
        assert read(sql, bad)["progress"] <= 100
        may_end.set()
        await eventually(lambda: statuses(sql) == {"completed": 2})


async def test_the_poll_finds_what_nobody_announced(
    database_url: str, sql: psycopg.Connection[Any], connection: Any
) -> None:
    """With the LISTEN connection cut again and again, a worker still finds jobs without an announcement."""
    handler = Executions()

    def cut_and_look() -> bool:
        sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query ~ '^(LISTEN|SELECT pg_notify)' AND pid <> ALL (%s)",
            [[sql.info.backend_pid, connection.info.backend_pid]],
        )
        return statuses(sql) == {"completed": 5}

    async with working(database_url, handler, poll_interval_seconds=0.2):
        for _ in range(5):
            await store.enqueue(connection, [new_job()], max_attempts=3)
        await eventually(cut_and_look)
    assert set(handler.begun.values()) == {1}


async def test_a_wake_up_finds_its_way_back_after_a_cut(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A lost LISTEN connection is replaced, and jobs inserted meanwhile are found without a poll."""
    handler = Executions()
    async with working(database_url, handler) as work:
        await eventually(lambda: work.loop.listener.listening)
        sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await eventually(lambda: not work.loop.listener.listening)
        insert(sql)
        await eventually(lambda: statuses(sql) == {"completed": 1})
        await eventually(lambda: work.loop.listener.listening)
        insert(sql)
        await eventually(lambda: statuses(sql) == {"completed": 2})


async def test_due_times_wake_the_worker(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A future job runs when due, not at the next poll, and not before."""
    handler = Executions()
    async with working(database_url, handler):
        insert(sql, copies=3, runAt=Sql("now() + interval '0.4 seconds'"))
        await eventually(lambda: statuses(sql) == {"completed": 3})
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE "startedAt" < "runAt"') == 0


async def test_a_backlog_of_due_jobs_is_taken_at_one_go(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Due jobs beyond the batch of one sweep do not wait for the next poll."""
    insert(sql, QUEUED, copies=2500, ready=False)
    handler = Executions()
    async with working(database_url, handler, worker_concurrency=1000):
        await eventually(lambda: statuses(sql) == {"completed": 2500})


async def test_jobs_of_a_silent_worker_are_taken_over(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """When a lease runs out another worker, awake or asleep, runs the job as the next attempt."""
    handler = Executions()
    job_id = insert(
        sql,
        {**QUEUED, "status": "processing", "ready": False, "attempt": 1, "workerId": "dead"},
        leaseUntil=Sql("now() + interval '0.5 seconds'"),
    )
    async with working(database_url, handler):
        await eventually(lambda: statuses(sql) == {"completed": 1})
    row = read(sql, job_id)
    assert (row["attempt"], row["retryCount"]) == (2, 1)
    assert handler.begun == {job_id: 1}


async def test_a_lost_lease_interrupts_the_attempt(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A worker without the lease stops the attempt, and stores no outcome over the row of the new holder."""
    handler = Executions(waits=True)
    job_id = insert(sql)
    async with working(database_url, handler, job_lease_seconds=0.5):
        await eventually(lambda: handler.running == 1)
        update(sql, job_id, workerId="thief", attempt=2, leaseUntil=Sql("now() + interval '1 hour'"))
        await eventually(lambda: handler.interrupted == [(job_id, 1)])
        # The slot is free again.
        other = insert(sql)
        handler.go_on.set()
        await eventually(lambda: read(sql, other)["status"] == "completed")
    row = read(sql, job_id)
    assert (row["status"], row["workerId"], row["attempt"]) == ("processing", "thief", 2)


async def test_a_cancelled_job_is_interrupted(database_url: str, sql: psycopg.Connection[Any], connection: Any) -> None:
    """Cancelling a running job stops the handler and keeps the outcome out of the row."""
    handler = Executions(waits=True)
    job_id = insert(sql)
    # With a lease of an hour no renewal interrupts the handler, only the cancellation does.
    async with working(database_url, handler, job_lease_seconds=3600) as work:
        await eventually(lambda: handler.running == 1 and work.loop.listener.listening)
        assert await control.cancel(connection, job_id) is True
        await eventually(lambda: handler.interrupted == [(job_id, 1)])
    row = read(sql, job_id)
    assert (row["status"], row["result"], row["workerId"]) == ("cancelled", None, None)


@pytest.mark.parametrize("blocked_by", ["sleep", "spin"])
async def test_a_blocked_event_loop_keeps_its_lease(
    database_url: str, settings: Settings, sql: psycopg.Connection[Any], blocked_by: str
) -> None:
    """A handler may block the event loop for longer than the lease without a second run of the job."""
    begun = []

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        begun.append(job.attempt)
        if blocked_by == "sleep":
            time.sleep(2.5)  # noqa: ASYNC251 — the very thing that is tested
        else:
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                pass
        return OK

    async def take_back_what_expires() -> None:
        async with await connect(settings) as rival:
            while statuses(sql) != {"completed": 1}:
                await sweep(rival, worker_id="rival", listening=False)
                await asyncio.sleep(0.02)

    job_id = insert(sql)
    async with working(database_url, handler, job_lease_seconds=1.2):
        # In another thread: the event loop of this thread is blocked.
        await asyncio.wait_for(asyncio.to_thread(asyncio.run, take_back_what_expires()), timeout=20)
    assert begun == [1]
    assert read(sql, job_id)["retryCount"] == 0


async def test_a_claim_that_a_crash_undid_does_not_confuse_the_worker(
    database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """When the same attempt is given out twice to one worker, the job ends once and no slot is lost."""
    handler = Executions(waits=True)
    job_id = insert(sql)
    async with working(database_url, handler, worker_concurrency=2, job_lease_seconds=0.5):
        await eventually(lambda: handler.running == 1)
        # As after an immediate shutdown before the flush of the claim's commit.
        update(sql, job_id, status="queued", ready=True, attempt=0, workerId=None, leaseUntil=None, startedAt=None)
        insert(sql)
        await eventually(lambda: read(sql, job_id)["status"] == "processing")
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": 2})
        handler.go_on.clear()
        insert(sql, copies=4)
        await eventually(lambda: handler.running == 2)
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": 6})
    assert handler.most <= 2


async def test_retention_runs_beside_the_work(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A worker removes old jobs."""
    insert(
        sql,
        {**QUEUED, "status": "cancelled", "ready": False},
        createdAt=Sql("now() - interval '9 days'"),
        completedAt=Sql("now() - interval '9 days'"),
    )
    async with working(database_url, Executions(), poll_interval_seconds=0.1):
        await eventually(lambda: statuses(sql) == {})
