"""The end of an attempt: stored once by the holder of the lease, or not at all."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from iidq.queue import control, store
from iidq.queue.job import ClaimedJob
from iidq.queue.outcome import Outcome
from tests.database.attempts import WORKER, claim, claim_one, fence, finish, renew, report, sweep
from tests.eventually import eventually
from tests.job_rows import Sql, insert, read, scalar, statuses, update

OK = {"status": "OK"}


async def test_success(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A completed job has a result, progress 100 and an end, and no worker."""
    insert(sql)
    job = await claim_one(connection)
    assert await finish(connection, Outcome.completed(job, OK)) == {fence(job)}
    row = read(sql, job.id)
    assert (row["status"], row["progress"], row["result"], row["error"]) == ("completed", 100, OK, None)
    assert (row["workerId"], row["leaseUntil"], row["retryCount"], row["ready"]) == (None, None, 0, False)
    assert row["completedAt"] == row["updatedAt"] >= row["startedAt"]


async def test_failure(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A failed job has its error at the end and in the list of attempts, and is not retried."""
    insert(sql)
    job = await claim_one(connection)
    await report(connection, (fence(job), 30))
    assert await finish(connection, Outcome.failed(job, "manifest.missing: 404")) == {fence(job)}
    row = read(sql, job.id)
    assert (row["status"], row["error"], row["retryCount"], row["progress"]) == (
        "failed",
        "manifest.missing: 404",
        0,
        30,
    )
    assert row["completedAt"] is not None
    assert [(entry["attempt"], entry["error"]) for entry in row["errors"]] == [(1, "manifest.missing: 404")]
    assert await claim(connection) == []


async def test_retry_waits_for_its_delay_and_is_charged(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A retried job waits for its delay and counts the retry; a later success has no error."""
    insert(sql)
    job = await claim_one(connection)
    await finish(connection, Outcome.retried(job, "fetch.timeout: slow", 60.0))
    row = read(sql, job.id)
    assert (row["status"], row["retryCount"], row["error"], row["progress"], row["ready"]) == (
        "queued",
        1,
        None,
        0,
        False,
    )
    assert row["completedAt"] is None
    assert row["runAt"] - row["updatedAt"] == timedelta(seconds=60)
    assert await claim(connection) == []
    assert (await sweep(connection)).next_event_seconds == pytest.approx(60, abs=30)

    update(sql, job.id, runAt=Sql("now()"))
    await sweep(connection)
    again = await claim_one(connection)
    assert (again.id, again.attempt, again.retry_count) == (job.id, 2, 1)
    await finish(connection, Outcome.completed(again, OK))
    row = read(sql, job.id)
    assert (row["status"], row["error"], row["retryCount"]) == ("completed", None, 1)
    assert [entry["error"] for entry in row["errors"]] == ["fetch.timeout: slow"]


async def test_retry_without_delay_is_in_line_at_once(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A retry without delay is ready without a sweep."""
    insert(sql)
    job = await claim_one(connection)
    await finish(connection, Outcome.retried(job, "fetch.timeout: slow", 0.0))
    assert (await claim_one(connection)).attempt == 2


async def test_release_is_not_charged_and_keeps_the_place(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A released job is first in line again and uncharged, with its attempt counted."""
    first = insert(sql)
    insert(sql)
    job = await claim_one(connection)
    before = read(sql, first)["runAt"]
    assert await finish(connection, Outcome.released(job)) == {fence(job)}
    row = read(sql, first)
    assert (row["status"], row["retryCount"], row["attempt"], row["errors"], row["runAt"]) == (
        "queued",
        0,
        1,
        [],
        before,
    )
    again = await claim_one(connection)
    assert (again.id, again.attempt, again.retry_count) == (first, 2, 0)


async def test_what_goes_back_waits_for_a_time_set_meanwhile(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A ``runAt`` set in SQL during an attempt postpones the job after a release, a lost claim or a lost lease."""
    later = {"runAt": Sql("now() + interval '1 hour'")}
    for step in ("released", "unknown", "expired"):
        job_id = insert(sql)
        job = await claim_one(connection)
        assert job.id == job_id
        update(sql, job_id, **later, **({"leaseUntil": Sql("now() - interval '1 s'")} if step == "expired" else {}))
        if step == "released":
            await finish(connection, Outcome.released(job))
        elif step == "unknown":
            await store.release_unknown(connection, worker_id=WORKER, known=[])
        else:
            await sweep(connection)
        row = read(sql, job_id)
        assert (row["status"], row["ready"]) == ("queued", False), step
    assert sql.execute("SELECT waiting, delayed, active FROM queue_health").fetchone() == (0, 3, 0)


async def test_errors_of_attempts_are_bounded(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A job keeps the errors of its last 20 attempts, so that no row grows without end."""
    insert(sql, maxAttempts=100)
    for number in range(25):
        job = await claim_one(connection)
        await finish(connection, Outcome.retried(job, f"e: {number}", 0.0))
    errors = read(sql, job.id)["errors"]
    assert [entry["error"] for entry in errors] == [f"e: {number}" for number in range(5, 25)]


async def test_all_kinds_in_one_statement(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A batch may hold every kind of end in any order, together with late outcomes."""
    insert(sql, copies=40)
    jobs = await claim(connection, 40)
    outcomes = [
        [
            Outcome.completed(job, OK),
            Outcome.failed(job, "a: b"),
            Outcome.retried(job, "c: d", 5),
            Outcome.released(job),
        ][number % 4]
        for number, job in enumerate(jobs)
    ]
    late = Outcome(jobs[0].id, 99, outcomes[0].status, result="{}")
    stored = await finish(connection, *reversed([*outcomes[1:], late]))
    assert stored == {fence(job) for job in jobs[1:]}
    assert statuses(sql) == {"completed": 9, "failed": 10, "queued": 20, "processing": 1}


@pytest.mark.parametrize("late_first", [True, False], ids=["late worker first", "late worker second"])
async def test_the_late_worker_loses(
    connection: Any, rival: Any, sql: psycopg.Connection[Any], late_first: bool
) -> None:
    """Of two attempts at a job only the outcome of the lease's holder is stored, in either order."""
    insert(sql)
    late = await claim_one(connection, "late")
    update(sql, late.id, leaseUntil=Sql("now() - interval '1 second'"))
    await sweep(rival)
    holder = await claim_one(rival, "holder")

    async def end_late() -> None:
        assert await finish(connection, Outcome.completed(late, {"by": "late"}), worker_id="late") == set()

    async def end_holder() -> None:
        assert await finish(rival, Outcome.completed(holder, {"by": "holder"}), worker_id="holder") == {fence(holder)}

    for end in (end_late, end_holder) if late_first else (end_holder, end_late):
        await end()
    row = read(sql, late.id)
    assert (row["result"], row["attempt"], row["retryCount"]) == ({"by": "holder"}, 2, 1)


async def test_ending_twice_is_ending_once(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """An outcome sent again after a lost answer changes nothing."""
    insert(sql)
    job = await claim_one(connection)
    await finish(connection, Outcome.failed(job, "a: b"))
    before = read(sql, job.id)
    assert await finish(connection, Outcome.failed(job, "a: b")) == set()
    assert read(sql, job.id) == before


@pytest.mark.parametrize("wrong", ["attempt", "worker", "cancelled", "deleted"])
async def test_outcomes_without_the_lease_are_dropped(
    connection: Any, sql: psycopg.Connection[Any], wrong: str
) -> None:
    """An outcome of another attempt, of another worker, of a cancelled or of a deleted job writes nothing."""
    insert(sql)
    job = await claim_one(connection)
    outcome, worker_id = Outcome.completed(job, OK), "a:1:0"
    if wrong == "attempt":
        outcome = Outcome(job.id, 2, outcome.status, result=outcome.result)
    elif wrong == "worker":
        worker_id = "b:1:0"
    elif wrong == "cancelled":
        assert await control.cancel(connection, job.id)
    else:
        sql.execute('DELETE FROM "VerificationJob"')
    before = sql.execute('SELECT * FROM "VerificationJob"').fetchall()
    assert await finish(connection, outcome, worker_id=worker_id) == set()
    assert sql.execute('SELECT * FROM "VerificationJob"').fetchall() == before


async def _write(connection: Any, what: str, job: ClaimedJob) -> Any:
    if what == "renewal":
        return await renew(connection, fence(job))
    return await report(connection, (fence(job), 10))


async def test_progress_waits_for_nobody(connection: Any, rival: Any, sql: psycopg.Connection[Any]) -> None:
    """A locked row does not delay the progress of other jobs."""
    insert(sql, copies=2)
    locked, free = await claim(connection, 2)
    await connection.set_autocommit(False)
    await connection.execute('UPDATE "VerificationJob" SET priority = 1 WHERE id = %s', [locked.id])
    async with asyncio.timeout(10):
        assert await report(rival, (fence(locked), 30), (fence(free), 50)) == {fence(free)}
    await connection.commit()
    assert await report(rival, (fence(locked), 30)) == {fence(locked)}


@pytest.mark.parametrize("first", ["renewal", "progress", "priority"])
async def test_writes_that_meet_on_a_row_both_count(
    connection: Any, rival: Any, sql: psycopg.Connection[Any], first: str
) -> None:
    """An outcome delayed by another write on its row still finds its lease."""
    insert(sql)
    job = await claim_one(connection)
    await connection.set_autocommit(False)
    if first == "priority":
        await connection.execute('UPDATE "VerificationJob" SET priority = 1')
    else:
        assert await _write(connection, first, job) == {fence(job)}
    waiting = asyncio.create_task(finish(rival, Outcome.completed(job, OK)))
    await eventually(lambda: scalar(sql, "SELECT count(*) FROM pg_locks WHERE NOT granted"))
    await connection.commit()
    async with asyncio.timeout(5):
        assert await waiting == {fence(job)}


async def test_batches_in_opposite_order_do_not_deadlock(
    connection: Any, rival: Any, sql: psycopg.Connection[Any]
) -> None:
    """Renewals and outcomes of the same jobs in opposite orders do not deadlock."""
    insert(sql, copies=200)
    jobs = await claim(connection, 200)
    for _ in range(5):
        await asyncio.gather(
            renew(connection, *(fence(job) for job in jobs)),
            report(rival, *((fence(job), 10) for job in reversed(jobs))),
        )
    stored, _ = await asyncio.gather(
        finish(connection, *(Outcome.completed(job, OK) for job in reversed(jobs))),
        renew(rival, *(fence(job) for job in jobs)),
    )
    assert len(stored) == 200


async def test_what_json_allows_is_stored(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """NUL, halves of surrogate pairs, long and large values are stored; characters unknown to Postgres are replaced."""
    insert(sql, copies=2)
    done, failed = await claim(connection, 2)
    result = {
        "nul\0": "a\0b",
        "half": "\ud83d",
        "deep": _nested(400),
        "number": 10**60,
        "long": "x" * 300_000,
        "é": "🎁",
    }
    await finish(connection, Outcome.completed(done, result), Outcome.failed(failed, "x: \0\udc00"))
    stored = read(sql, done.id)["result"]
    assert (stored["nul\ufffd"], stored["half"], stored["é"]) == ("a\ufffdb", "\ufffd", "🎁")
    assert (stored["number"], len(stored["long"])) == (10**60, 300_000)
    assert read(sql, failed.id)["error"] == "x: \ufffd\ufffd"


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value
