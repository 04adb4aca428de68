"""Inserts of jobs: durable, idempotent, and one bad row fails alone."""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.database.pool import open_database
from iidq.errors import DatabaseUnavailable, RowRefused
from iidq.queue import store
from iidq.queue.enqueuer import open_enqueuer
from iidq.queue.job import JobStatus, JobType
from iidq.queue.read import readers
from iidq.settings import Settings, load_settings
from tests.job_rows import new_job, read, scalar, statuses


async def test_every_field_round_trips(connection: Any) -> None:
    """A reader gets the fields as submitted, Unicode and large chain ids included."""
    asked = new_job(
        JobType.PROOF,
        rpc_url="https://rpc.example/v1",
        chain_id=2**53 + 1,
        file_name="Überraschung 🎁.png",
        manifest_uri="https://example.org/ü",
    )
    await store.enqueue(connection, [asked], max_attempts=5)
    job = await readers.find(connection, asked.id)
    assert job is not None
    for name in ("id", "type", "subject"):
        assert getattr(job, name) == getattr(asked, name)
    assert (job.status, job.max_attempts, job.attempt, job.retry_count) == (JobStatus.QUEUED, 5, 0, 0)


async def test_fields_that_are_unset_stay_null_in_any_mixture(connection: Any) -> None:
    """A batch may mix jobs with and without optional fields."""
    mixed = [new_job(), new_job(chain_id=1), new_job(rpc_url="https://x.example"), new_job(file_name="a")]
    await store.enqueue(connection, mixed, max_attempts=3)
    found = [await readers.find(connection, asked.id) for asked in mixed]
    assert [(job.subject.chain_id, job.subject.rpc_url, job.subject.file_name) for job in found if job] == [
        (None, None, None),
        (1, None, None),
        (None, "https://x.example", None),
        (None, None, "a"),
    ]


async def test_a_repeated_insert_changes_nothing(connection: Any, sql: psycopg.Connection[Any]) -> None:
    """A repeated insert leaves the stored job as it is and counts it once."""
    first, second = new_job(), new_job()
    await store.enqueue(connection, [first], max_attempts=3)
    sql.execute('UPDATE "VerificationJob" SET priority = 7')
    await store.enqueue(connection, [first, second, second], max_attempts=9)
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob"') == 2
    row = read(sql, first.id)
    assert (row["priority"], row["maxAttempts"]) == (7, 3)
    assert scalar(sql, "SELECT sum(enqueued) FROM iidq_queue_count") == 2


async def test_a_repeated_insert_within_a_transaction_changes_nothing(
    connection: Any, sql: psycopg.Connection[Any]
) -> None:
    """A repeated insert within a transaction skips stored jobs at once: a refused row would end the transaction."""
    first, second = new_job(), new_job()
    await store.enqueue(connection, [first], max_attempts=3)
    async with connection.transaction():
        await store.enqueue(connection, [first, second], max_attempts=9)
    assert statuses(sql) == {"queued": 2}
    assert read(sql, first.id)["maxAttempts"] == 3
    assert scalar(sql, "SELECT sum(enqueued) FROM iidq_queue_count") == 2


async def test_one_bad_row_fails_alone(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """A row refused by an operator's constraint fails alone; the others of its batch are stored."""
    sql.execute("""ALTER TABLE "VerificationJob" ADD CHECK ("manifestUri" <> 'ipfs://odd')""")
    jobs = [new_job(), new_job(manifest_uri="ipfs://odd"), new_job(), new_job(manifest_uri="ipfs://odd")]
    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:
        await enqueuer.enqueue(new_job())
        answers = await asyncio.gather(*(enqueuer.enqueue(job) for job in jobs), return_exceptions=True)
    assert answers[0] == jobs[0].id
    assert answers[2] == jobs[2].id
    assert [isinstance(answer, RowRefused) for answer in answers] == [False, True, False, True]
    assert statuses(sql) == {"queued": 3}


async def test_many_callers_share_few_statements(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """A thousand callers at once get distinct ids, with one row each, in fewer than 500 transactions."""
    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:
        before = scalar(sql, "SELECT txid_current()")
        ids = await asyncio.gather(*(enqueuer.enqueue(new_job()) for _ in range(1000)))
        spent = scalar(sql, "SELECT txid_current()") - before
    assert len(set(ids)) == 1000
    assert statuses(sql) == {"queued": 1000}
    # Transactions of other test processes count here as well.
    assert spent < 500


async def test_an_answer_means_committed(settings: Settings, sql: psycopg.Connection[Any]) -> None:
    """An acknowledged job is visible to other connections."""
    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:

        async def enqueue_and_look() -> UUID:
            job_id = await enqueuer.enqueue(new_job())
            return UUID(str(read(sql, job_id)["id"]))

        assert len(await asyncio.gather(*(enqueue_and_look() for _ in range(20)))) == 20


async def test_enqueue_commits_durably(connection: Any) -> None:
    """An insert leaves the session's ``synchronous_commit`` on, so acknowledged jobs survive a crash."""
    await store.enqueue(connection, [new_job()], max_attempts=3)
    async with connection.transaction():
        await store.enqueue(connection, [new_job()], max_attempts=3)
        assert (await (await connection.execute("SHOW synchronous_commit")).fetchone())[0] == "on"


async def test_a_database_without_migrations_is_told(empty_database_url: str) -> None:
    """An enqueue on a database without migrations raises ``DatabaseUnavailable`` with the remedy, without SQL."""
    settings = load_settings(database_url=empty_database_url)
    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:
        with pytest.raises(DatabaseUnavailable, match="iidq migrate") as caught:
            await enqueuer.enqueue(new_job())
    assert caught.value.code == "database.not_migrated"
    assert "VerificationJob" not in str(caught.value)
