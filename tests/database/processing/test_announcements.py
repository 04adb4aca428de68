"""Wake-ups: every insert is announced to listening workers, after its commit, and cheaply."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from iidq.database.pool import open_database
from iidq.queue import store
from iidq.queue.enqueuer import open_enqueuer
from iidq.queue.notify import announcer as announcers
from iidq.queue.notify import channels, listener
from iidq.queue.notify.announcer import Announcer
from iidq.settings import Settings
from tests.job_rows import COMPLETED, insert, new_job

ECHO = "test_echo"


@pytest.fixture
async def listening(rival: Any) -> AsyncIterator[Any]:
    """A connection listening as workers do."""
    await channels.listen(rival, ECHO)
    yield rival


async def heard_before_echo(listening: Any) -> int:
    """Return the number of announcements before the echo."""
    await channels.echo(listening, ECHO)
    heard = 0
    async with asyncio.timeout(10):
        async for notification in listening.notifies():
            if notification.channel == ECHO:
                return heard
            heard += 1
    raise AssertionError("the connection ended")


async def test_a_plain_insert_is_announced(listening: Any, sql: psycopg.Connection[Any]) -> None:
    """An insert in psql wakes a worker, once per statement."""
    insert(sql, copies=10)
    assert await heard_before_echo(listening) == 1


async def test_what_comes_back_in_line_is_announced(listening: Any, sql: psycopg.Connection[Any]) -> None:
    """An UPDATE with jobs back in line wakes a worker; changes without a new waiting job do not."""
    insert(sql, COMPLETED, copies=3)
    sql.execute('UPDATE "VerificationJob" SET priority = 1')
    assert await heard_before_echo(listening) == 0
    sql.execute("""UPDATE "VerificationJob" SET status = 'queued', ready = true, result = NULL, "completedAt" = NULL""")
    assert await heard_before_echo(listening) == 1


async def test_an_insert_that_rolls_back_is_not(listening: Any, sql: psycopg.Connection[Any]) -> None:
    """A rolled-back insert wakes no worker."""
    with sql.transaction(force_rollback=True):
        insert(sql)
    assert await heard_before_echo(listening) == 0


async def test_enqueue_announces_nothing_by_itself(connection: Any, listening: Any) -> None:
    """The store's insert notifies no worker by default: a NOTIFY takes a database-wide lock at the commit."""
    await store.enqueue(connection, [new_job(), new_job()], max_attempts=3)
    assert await heard_before_echo(listening) == 0
    await channels.announce(connection)
    assert await heard_before_echo(listening) == 1


async def test_an_insert_can_announce_itself(connection: Any, listening: Any) -> None:
    """An insert with ``announce`` notifies after its commit, and returns True; within a transaction it does neither."""
    assert await store.enqueue(connection, [new_job()], max_attempts=3, announce=True)
    assert await heard_before_echo(listening) == 1
    async with connection.transaction():
        assert not await store.enqueue(connection, [new_job()], max_attempts=3, announce=True)
    assert not await store.enqueue(
        connection, [new_job(callback_url="https://receiver.example/")], max_attempts=3, announce=True
    )
    assert await heard_before_echo(listening) == 0


async def test_one_enqueued_job_is_announced_once(settings: Settings, listening: Any) -> None:
    """A single enqueued job is announced once."""
    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:
        await enqueuer.enqueue(new_job())
    assert await heard_before_echo(listening) == 1


async def test_silence_ends_with_its_transaction(connection: Any, listening: Any) -> None:
    """A plain insert after the store's insert on the same connection is announced again."""
    await store.enqueue(connection, [new_job()], max_attempts=3)
    job = new_job()
    await connection.execute(
        'INSERT INTO "VerificationJob"(type, "contentHash", "manifestUri", "registryAddress") VALUES (%s, %s, %s, %s)',
        [job.type.value, *job.subject[:3]],
    )
    assert await heard_before_echo(listening) == 1


async def test_many_enqueued_jobs_make_few_announcements(settings: Settings, listening: Any) -> None:
    """Callers at the same moment share few announcements, with at least one for all."""
    async with open_database(settings, pool_size=2) as database, open_enqueuer(database, settings) as enqueuer:
        await asyncio.gather(*(enqueuer.enqueue(new_job()) for _ in range(500)))
        async with asyncio.timeout(10):
            async for notification in listening.notifies(stop_after=1):
                assert notification.channel == "iidq_jobs"
    assert await heard_before_echo(listening) < 20


async def test_a_stream_of_inserts_takes_the_announcements_along(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of inserts without a reservation are served by the next reserved insert, without a separate NOTIFY."""
    # A long time, so that the next insert comes in time on a busy machine.
    monkeypatch.setattr(announcers, "_INSERT_MAY_COME_SECONDS", 30.0)
    sent: list[str] = []

    class Counted(Announcer):
        async def _send(self) -> None:
            sent.append("by itself")

    async with open_database(settings, pool_size=1) as database, Counted(database) as announcer:
        turns = 0
        async with asyncio.timeout(20):
            while turns < 5:
                turn = announcer.reserve()
                await asyncio.sleep(0.001)
                if turn is None:
                    announcer.announce()
                else:
                    turns += 1
                    announcer.announced(turn)
    # Also none at the end: the last reserved insert served all requests.
    assert sent == []


@pytest.mark.parametrize("insert_seconds", [0.002, 0.02])
async def test_announcements_are_not_put_off_by_inserts_that_make_none(
    settings: Settings, insert_seconds: float
) -> None:
    """Reserved inserts without a NOTIFY, one after the other, do not hold up announcements for long."""
    sent = asyncio.Semaphore(0)

    class Counted(Announcer):
        async def _send(self) -> None:
            sent.release()
            await super()._send()

    async with open_database(settings, pool_size=1) as database, Counted(database) as announcer:

        async def insert_in_vain() -> None:
            while True:
                announcer.reserve()
                await asyncio.sleep(insert_seconds)
                announcer.announce()

        stream = asyncio.create_task(insert_in_vain())
        async with asyncio.timeout(10):
            for _ in range(5):
                await sent.acquire()
        stream.cancel()


async def test_behind_a_pooler_jobs_are_announced_all_the_same(settings: Settings, listening: Any) -> None:
    """Behind a pooler each enqueued job is announced, by a statement of its own."""
    async with open_database(settings, pool_size=1, statement_timeout_seconds=7.0) as database:
        async with database.connection() as connection:
            connection.prepare_threshold = None
        async with open_enqueuer(database, settings) as enqueuer:
            for _ in range(3):
                await enqueuer.enqueue(new_job())
                async with asyncio.timeout(10):
                    async for notification in listening.notifies(stop_after=1):
                        assert notification.channel == "iidq_jobs"


async def test_announcements_that_cannot_be_sent_are_dropped(settings: Settings) -> None:
    """An announcement without a database is dropped, without a wait and without an error."""
    away = settings.model_copy(update={"database_url": "postgresql://iidq@/iidq?host=/nonexistent"})
    async with open_database(away, pool_size=1) as database, Announcer(database) as announcer:
        announcer.announce()
        await asyncio.sleep(0)
        announcer.announce()


async def test_a_listener_at_rest_stays_asleep(rival: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting listener sets one timer for the end of its wait, and does not poll in between."""
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def counted(when: float, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *arguments, **options)

    async with open_database(settings, pool_size=1) as database:
        waits = listener.Listener(settings, database, {}, lambda: None)
        await channels.listen(rival, ECHO)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_at", counted)
            assert await waits._receive(rival, 1.0) == set()
        assert len(timers) < 5
        await database.run(lambda speaker: channels.echo(speaker, ECHO))
        assert await waits._receive(rival, 10.0) == {ECHO}
