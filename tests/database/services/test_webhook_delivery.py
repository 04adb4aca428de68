"""The end of a job with a callback: an event, delivered until accepted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.queue import store, upkeep
from iidq.queue.job import IdempotencyKey
from iidq.queue.outcome import Outcome
from iidq.queue.processing.loop import open_work_loop
from iidq.queue.read import readers
from iidq.settings import load_settings
from iidq.web.reply.wire import job_shape
from iidq.webhooks import deliverer, delivery_store
from iidq.webhooks.deliverer import open_deliverer
from iidq.webhooks.delivery import Delivery, DeliveryResult, DeliveryState
from tests.database.attempts import claim_one, finish, sweep
from tests.eventually import eventually
from tests.job_rows import COMPLETED, PROCESSING, Sql, insert, new_job, scalar, update
from tests.webhooks import (
    LOOPBACK,
    SECRET,
    Receiver,
    always,
    cancel,
    delivery,
    insert_with_callback,
    make_due,
    never,
    receiving,
)

Pg = psycopg.Connection[Any]
URL = "https://receiver.example/hook"
SETTLED = DeliveryResult(DeliveryState.DELIVERED, 200)


@asynccontextmanager
async def delivering(database_url: str, **overrides: Any) -> AsyncIterator[Callable[[], None]]:
    """Run a deliverer; yield a function to wake it."""
    usual: dict[str, Any] = {"webhook_secret": SECRET, "fetch_allow_private": LOOPBACK, "poll_interval_seconds": 0.1}
    async with open_deliverer(load_settings(database_url=database_url, **(usual | overrides)), job_shape) as wake:
        yield wake


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver with a success for every event."""
    async with receiving() as receiver:
        yield receiver


def states(sql: Pg) -> dict[str, int]:
    return dict(sql.execute("SELECT state, count(*) FROM iidq_webhook_delivery GROUP BY state").fetchall())


async def claim(connection: Any, slots: int = 100, per_host: int = 100, **running: int) -> list[Delivery]:
    return await delivery_store.claim(connection, slots=slots, per_host=per_host, running=running, lease_seconds=60)


# Stored with the job


async def test_a_callback_is_stored_with_its_job(connection: Any, sql: Pg) -> None:
    """In a batch each job with a callback gets one waiting delivery, also after a repeated insert."""
    jobs = [new_job(), new_job(callback_url=URL), new_job(callback_url="http://other.example:8080/?a=b")]
    await store.enqueue(connection, jobs, max_attempts=3)
    await store.enqueue(connection, jobs, max_attempts=3)
    told = sql.execute(
        'SELECT "jobId", url, host, state, attempts FROM iidq_webhook_delivery ORDER BY url DESC'
    ).fetchall()
    assert told == [
        (jobs[1].id, URL, "receiver.example", "waiting", 0),
        (jobs[2].id, "http://other.example:8080/?a=b", "other.example:8080", "waiting", 0),
    ]
    found = [await readers.find(connection, job.id) for job in jobs]
    assert [job and job.callback and job.callback["state"] for job in found] == [None, "waiting", "waiting"]


async def test_a_callback_and_its_job_are_stored_together_or_not_at_all(connection: Any, sql: Pg) -> None:
    """A job is not stored without its callback's delivery."""
    sql.execute("ALTER TABLE iidq_webhook_delivery ADD CHECK (url <> 'https://refused.example/')")
    with pytest.raises(psycopg.errors.CheckViolation):
        await store.enqueue(connection, [new_job(callback_url="https://refused.example/")], max_attempts=3)
    assert scalar(sql, 'SELECT count(*) FROM "VerificationJob"') == 0


async def test_under_a_key_the_first_jobs_callback_stays(connection: Any, sql: Pg) -> None:
    """A repeated request under a key makes no second delivery."""
    key = IdempotencyKey("me", "1", b"same")
    jobs = [new_job(key=key, callback_url=URL), new_job(key=key, callback_url=URL)]
    for job in jobs:
        [job_id] = await store.enqueue_under_keys(connection, [job], max_attempts=3, keep_seconds=60)
        assert job_id == jobs[0].id
    assert sql.execute('SELECT "jobId" FROM iidq_webhook_delivery').fetchall() == [(jobs[0].id,)]


async def test_what_clients_see_of_a_delivery(connection: Any, sql: Pg) -> None:
    """A job shows its delivery's state, attempts, times and last answer, also in lists, and the URL without query."""
    job = new_job(callback_url=f"{URL}?token=secret")
    await store.enqueue(connection, [job], max_attempts=3)
    cancel(sql, job.id)
    [claimed] = await claim(connection)
    failed = DeliveryResult(DeliveryState.PENDING, 500, "webhook.refused: 500", delay_seconds=5)
    assert await delivery_store.settle(connection, claimed, failed)
    found = await readers.find(connection, job.id)
    assert found is not None
    assert found.callback is not None
    next_at = found.callback.pop("nextAt")
    assert next_at.endswith("Z")
    assert len(next_at) == len("2026-11-24T00:50:26.013Z")
    assert found.callback == {
        "url": f"{URL}?***",
        "state": "pending",
        "attempts": 1,
        "lastStatus": 500,
        "lastError": "webhook.refused: 500",
        "deliveredAt": None,
    }
    listed = [
        (await readers.list_jobs(connection, limit=9)).jobs,
        (await readers.list_jobs(connection, limit=9, content_hash=job.subject.content_hash)).jobs,
    ]
    assert [[job.callback and job.callback["attempts"] for job in page] for page in listed] == [[1], [1]]


# Delivered ends


async def complete(connection: Any, sql: Pg, job_id: UUID) -> None:
    job = await claim_one(connection)
    await finish(connection, Outcome.completed(job, {"status": "OK"}))


async def fail(connection: Any, sql: Pg, job_id: UUID) -> None:
    job = await claim_one(connection)
    await finish(connection, Outcome.failed(job, "manifest.not_found: no"))


async def cancel_in_sql(connection: Any, sql: Pg, job_id: UUID) -> None:
    cancel(sql, job_id)


async def lose_for_the_last_time(connection: Any, sql: Pg, job_id: UUID) -> None:
    update(
        sql,
        job_id,
        maxAttempts=1,
        **{name: PROCESSING[name] for name in ("status", "ready", "attempt", "workerId")},
        leaseUntil=Sql("now() - interval '1 s'"),
    )
    await sweep(connection)


async def fail_by_hand(connection: Any, sql: Pg, job_id: UUID) -> None:
    update(sql, job_id, status="failed", ready=False, error="by hand", completedAt=Sql("now()"))


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (complete, "completed"),
        (fail, "failed"),
        (cancel_in_sql, "cancelled"),
        (lose_for_the_last_time, "failed"),
        (fail_by_hand, "failed"),
    ],
)
async def test_every_end_is_told(
    connection: Any, sql: Pg, database_url: str, receiver: Receiver, end: Any, status: str
) -> None:
    """Every end of a job delivers a signed event with the job as in a GET, and is recorded in the delivery's row."""
    job_id = insert_with_callback(sql, f"{receiver.url}?a=b")
    await end(connection, sql, job_id)
    async with delivering(database_url):
        await eventually(lambda: states(sql) == {"delivered": 1})
    [received] = receiver.received
    assert received.is_signed_with(SECRET)
    job = await readers.find(connection, job_id)
    assert job is not None
    shape = dict(job_shape(job))
    assert shape.pop("callback") is not None
    assert received.event == {"type": f"verification.{status}", "timestamp": shape["completedAt"], "data": shape}
    row = delivery(sql, job_id)
    assert (row["lastStatus"], row["lastError"], row["attempts"]) == (204, None, 1)
    assert received.event_id == str(row["eventId"])


async def test_a_retry_of_the_job_is_no_end(connection: Any, sql: Pg) -> None:
    """A retry and a release of a job send no event."""
    job_id = insert_with_callback(sql, URL)
    await finish(connection, Outcome.retried(await claim_one(connection), "fetch.timeout: no", 0.0))
    await finish(connection, Outcome.released(await claim_one(connection)))
    assert await claim(connection) == []
    assert delivery(sql, job_id)["state"] == "waiting"


async def test_a_job_that_is_retried_by_hand_is_told_anew(
    connection: Any, sql: Pg, database_url: str, receiver: Receiver
) -> None:
    """A job retried by hand sends another event at its next end, with a new id and attempts from one."""
    job_id = insert_with_callback(sql, receiver.url)
    async with delivering(database_url):
        cancel(sql, job_id)
        await eventually(lambda: states(sql) == {"delivered": 1})
        sql.execute("SELECT retry_job(%s)", [job_id])
        assert delivery(sql, job_id)["state"] == "waiting"
        await complete(connection, sql, job_id)
        await eventually(lambda: states(sql) == {"delivered": 1})
    first, second = receiver.received
    assert [first.event["type"], second.event["type"]] == ["verification.cancelled", "verification.completed"]
    assert first.event_id != second.event_id
    assert delivery(sql, job_id)["attempts"] == 1


async def test_an_end_in_this_process_is_told_at_once(
    sql: Pg, database_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's end in the same process is delivered at once, without a poll of the table."""
    monkeypatch.setattr(deliverer, "_POLL_SECONDS", 300.0)

    async def handle(job: Any, progress: Any) -> dict[str, Any]:
        return {"status": "OK"}

    settings = load_settings(database_url=database_url, poll_interval_seconds=300.0)
    async with delivering(database_url, poll_interval_seconds=300.0) as wake:
        woken = asyncio.Event()

        def wake_and_tell() -> None:
            woken.set()
            wake()

        async with open_work_loop(settings, handler=handle, worker_id="w", callback_due=wake_and_tell) as loop:
            working = asyncio.create_task(loop.run())
            await eventually(lambda: loop.listener.listening)
            insert(sql)
            await eventually(lambda: scalar(sql, "SELECT count(*) FROM \"VerificationJob\" WHERE status = 'completed'"))
            assert not woken.is_set()
            insert_with_callback(sql, receiver.url)
            await eventually(lambda: states(sql) == {"delivered": 1})
            loop.stop()
            await working
    assert woken.is_set()


def test_who_may_end_a_job_needs_no_right_to_the_urls(database_url: str) -> None:
    """An operator's cancel_job makes the event due without rights on the deliveries."""
    with psycopg.connect(database_url) as sql:
        job_id = insert_with_callback(sql, URL)
        sql.execute("CREATE ROLE a_canceller")
        sql.execute('GRANT SELECT, UPDATE ON "VerificationJob" TO a_canceller')
        sql.execute("SET LOCAL ROLE a_canceller")
        cancel(sql, job_id)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), sql.transaction():
            delivery(sql, job_id)
        sql.execute("RESET ROLE")
        assert delivery(sql, job_id)["state"] == "pending"
        sql.rollback()


# Retries, crashes, several workers


async def test_an_attempt_that_failed_comes_again_under_the_same_id(
    connection: Any, sql: Pg, database_url: str, receiver: Receiver
) -> None:
    """A failed attempt is repeated after its delay with the same event and a new signature, until accepted."""
    receiver.answer = always(500)
    job_id = insert_with_callback(sql, receiver.url)
    cancel(sql, job_id)
    async with delivering(database_url):
        await eventually(lambda: delivery(sql, job_id)["lastStatus"] == 500)
        row = delivery(sql, job_id)
        assert (row["state"], row["lastError"]) == (
            "pending",
            "webhook.refused: the receiver answered 500; expected 2xx",
        )
        assert 3 < row["due_seconds"] <= 6
        receiver.answer = always(200)
        make_due(sql)
        await eventually(lambda: states(sql) == {"delivered": 1})
    first, second = receiver.received
    assert first.event_id == second.event_id
    assert first.body == second.body
    assert second.is_signed_with(SECRET)
    assert delivery(sql, job_id)["attempts"] == 2


async def test_who_claimed_it_has_it_for_a_while(connection: Any, rival: Any, sql: Pg) -> None:
    """A claimed delivery is claimed again only after its lease; then a late result of the first worker is dropped."""
    job_id = insert_with_callback(sql, URL)
    cancel(sql, job_id)
    [first] = await claim(connection)
    assert await claim(rival) == []
    make_due(sql)
    [second] = await claim(rival)
    assert (second.event_id, second.attempt) == (first.event_id, 2)
    assert not await delivery_store.settle(connection, first, SETTLED)
    assert delivery(sql, job_id)["state"] == "pending"
    assert await delivery_store.settle(rival, second, SETTLED)


async def test_news_of_an_earlier_end_are_dropped(connection: Any, sql: Pg) -> None:
    """The result for an earlier end of a job is dropped, and the next end is delivered too."""
    job_id = insert_with_callback(sql, URL)
    cancel(sql, job_id)
    [first] = await claim(connection)
    sql.execute("SELECT retry_job(%s)", [job_id])
    assert not await delivery_store.settle(connection, first, SETTLED)
    cancel(sql, job_id)
    assert not await delivery_store.settle(connection, first, SETTLED)
    [second] = await claim(connection)
    assert (second.attempt, second.event_id != first.event_id) == (1, True)


async def test_a_worker_that_dies_at_the_last_attempt_does_not_leave_it_for_ever(
    sql: Pg, database_url: str, receiver: Receiver
) -> None:
    """A delivery left by a dead worker after ten attempts is given up without another attempt."""
    job_id = insert_with_callback(sql, receiver.url)
    cancel(sql, job_id)
    sql.execute("UPDATE iidq_webhook_delivery SET attempts = 10")
    async with delivering(database_url):
        await eventually(lambda: states(sql) == {"gave_up": 1})
    assert receiver.received == []
    assert delivery(sql, job_id)["lastError"].startswith("webhook.lost: ")


async def test_two_workers_deliver_each_event_once(sql: Pg, database_url: str, receiver: Receiver) -> None:
    """Two workers deliver each of many events once."""
    for _ in range(60):
        cancel(sql, insert_with_callback(sql, receiver.url))
    async with delivering(database_url), delivering(database_url):
        await eventually(lambda: states(sql) == {"delivered": 60})
    assert len({received.event_id for received in receiver.received}) == len(receiver.received) == 60


async def test_one_host_cannot_take_all_slots(connection: Any, sql: Pg) -> None:
    """A host has a bounded number of running deliveries; other hosts' events go through."""
    for url in ["https://Slow.example/a"] * 9 + ["https://quick.example:8443/b"] * 2:
        cancel(sql, insert_with_callback(sql, url))
    claimed = await claim(connection, slots=8, per_host=4)
    assert [found.host for found in claimed].count("slow.example") == 4
    assert [found.host for found in claimed].count("quick.example:8443") == 2
    assert await claim(connection, per_host=4, **{"slow.example": 4}) == []
    assert len(await claim(connection, per_host=4, **{"slow.example": 3})) == 1
    assert len(await claim(connection, slots=2)) == 2


async def test_a_stopping_worker_gives_back_what_hangs(
    sql: Pg, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopping worker gives back a hanging delivery after its grace: due at once, and uncharged."""
    monkeypatch.setattr(deliverer, "_GRACE_SECONDS", 0.1)
    async with receiving(never) as receiver:
        job_id = insert_with_callback(sql, receiver.url)
        cancel(sql, job_id)
        async with delivering(database_url):
            await eventually(lambda: receiver.received)
    row = delivery(sql, job_id)
    assert (row["state"], row["attempts"]) == ("pending", 0)
    assert row["due_seconds"] <= 0


async def test_without_a_secret_nobody_delivers(sql: Pg, database_url: str, receiver: Receiver) -> None:
    """Without a secret deliveries stay due; with a secret each is sent."""
    cancel(sql, insert_with_callback(sql, receiver.url))
    async with open_deliverer(load_settings(database_url=database_url), job_shape) as wake:
        wake()
    assert states(sql) == {"pending": 1}
    async with delivering(database_url):
        await eventually(lambda: states(sql) == {"delivered": 1})


# Costs, and the end of the row


@pytest.mark.parametrize(
    "removal",
    ['DELETE FROM "VerificationJob" WHERE "hasCallback"', 'TRUNCATE "VerificationJob"', None],
    ids=["delete", "truncate", "retention"],
)
async def test_a_delivery_goes_with_its_job(connection: Any, sql: Pg, removal: str | None) -> None:
    """A delivery is removed with its job by DELETE, TRUNCATE and retention, delivered or not."""
    insert_with_callback(sql, URL)
    cancel(sql, insert_with_callback(sql, URL))
    if removal is None:
        sql.execute(
            """UPDATE "VerificationJob"
               SET "completedAt" = now() - interval '1 d', "createdAt" = now() - interval '2 d'
               WHERE "completedAt" IS NOT NULL"""
        )
        await upkeep.purge(connection, completed_seconds=60, failed_seconds=60, batch=10)
        assert states(sql) == {"waiting": 1}
    else:
        sql.execute(removal.encode())
        assert states(sql) == {}


async def test_looks_and_claims_walk_over_no_history(connection: Any, sql: Pg) -> None:
    """With many deliveries done and one due, poll and claim use the indexes of unfinished deliveries."""
    sql.execute(
        """INSERT INTO iidq_webhook_delivery ("jobId", url, state, "deliveredAt")
           SELECT iidq_new_job_id(), 'https://a.example/', 'delivered', now() FROM generate_series(1, 20000)"""
    )
    cancel(sql, insert_with_callback(sql, URL))
    sql.execute("VACUUM ANALYZE iidq_webhook_delivery")

    before = scalar(sql, "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'iidq_webhook_delivery'")
    assert (await delivery_store.poll(connection)).waiting is False
    assert len(await claim(connection)) == 1
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT 1")
    after = scalar(sql, "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'iidq_webhook_delivery'")
    assert after == before


async def test_jobs_without_a_callback_fire_no_trigger_of_it(connection: Any, sql: Pg) -> None:
    """A job without a callback fires no trigger for callbacks."""
    sql.execute(
        "CREATE OR REPLACE FUNCTION iidq_follow_callback() RETURNS trigger LANGUAGE plpgsql "
        "AS $$BEGIN RAISE 'fired'; END$$"
    )
    insert(sql)
    await finish(connection, Outcome.completed(await claim_one(connection), {"status": "OK"}))
    insert(sql, COMPLETED)
    sql.execute('DELETE FROM "VerificationJob"')
    with pytest.raises(psycopg.errors.RaiseException):
        cancel(sql, insert_with_callback(sql, URL))
