"""The change feed: notifications of workers, states for watchers, and the cost of both."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from structlog.testing import capture_logs

from iidq.database.pool import Database, open_database
from iidq.errors import DatabaseRefusal, TooManyWatchers
from iidq.queue.identifiers import new_job_id
from iidq.queue.job import FINAL, ClaimedJob, Job, JobStatus
from iidq.queue.notify import channels, watching
from iidq.queue.notify.announcer import ChangeAnnouncer
from iidq.queue.notify.watching import Watch, WatchHub, open_watch_hub
from iidq.queue.processing.execution import Progress
from iidq.queue.read import readers
from iidq.settings import Settings
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import Sql, insert, scalar, update

ECHO = "test_echo"
OK = {"status": "OK"}


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool as in the API."""
    async with open_database(settings, pool_size=4) as database:
        yield database


@pytest.fixture
async def hub(settings: Settings, database: Database) -> AsyncIterator[WatchHub]:
    """A running hub."""
    async with open_watch_hub(settings, database, asyncio.Event()) as hub:
        yield hub


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of jobs in each statement of a hub."""
    found: list[int] = []
    find_changed = readers.find_changed

    async def noted(connection: Any, seen: Any) -> Any:
        found.append(len(seen))
        return await find_changed(connection, seen)

    monkeypatch.setattr(readers, "find_changed", noted)
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub poll more often than usual."""
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.05)


async def state(watch: Watch) -> Job:
    """Return the next state from the watch."""
    async with asyncio.timeout(15):
        job = await watch.next()
    assert job is not None
    return job


async def end(watch: Watch) -> Job:
    """Return the final state of the job."""
    while (job := await state(watch)).status not in FINAL:
        pass
    return job


def listening_for_changes(sql: psycopg.Connection[Any]) -> int:
    """Return the number of this database's connections with LISTEN in place."""
    return int(
        scalar(
            sql,
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle' AND query LIKE 'LISTEN%%'",
        )
    )


async def test_a_watcher_sees_the_present_state_first(hub: WatchHub, sql: psycopg.Connection[Any]) -> None:
    """Each watcher gets the present state first, also the second watcher of an unchanged job."""
    job_id = insert(sql)
    with hub.watch(job_id) as one, hub.watch(job_id) as other:
        assert (await state(one)).id == (await state(other)).id == job_id
        with hub.watch(job_id) as late:
            assert (await state(late)).status is JobStatus.QUEUED


@pytest.mark.usefixtures("quick")
async def test_plain_sql_is_seen(hub: WatchHub, sql: psycopg.Connection[Any]) -> None:
    """An UPDATE in psql without updatedAt, and an operator's function, reach watchers without a notification."""
    job_id = insert(sql)
    with hub.watch(job_id) as watch:
        await state(watch)
        update(sql, job_id, progress=42)
        assert (await state(watch)).progress == 42
        sql.execute("SELECT cancel_job(%s)", [job_id])
        assert (await state(watch)).status is JobStatus.CANCELLED


@pytest.mark.usefixtures("quick")
async def test_a_slow_watcher_gets_the_latest_alone(
    hub: WatchHub, sql: psycopg.Connection[Any], looks: list[int]
) -> None:
    """A slow watcher gets the latest state only, so no states pile up."""
    job_id = insert(sql)
    with hub.watch(job_id) as slow, hub.watch(job_id) as quick:
        await state(quick)
        for progress in (10, 20, 30):
            update(sql, job_id, progress=progress)
            assert (await state(quick)).progress == progress
        assert (await state(slow)).progress == 30


@pytest.mark.usefixtures("quick")
async def test_a_row_that_goes_ends_the_watch(hub: WatchHub, sql: psycopg.Connection[Any]) -> None:
    """A deleted or unknown row ends the watch, with ``gone`` set."""
    job_id = insert(sql)
    with hub.watch(job_id) as watch, hub.watch(new_job_id()) as nobodys:
        await state(watch)
        sql.execute('DELETE FROM "VerificationJob"')
        async with asyncio.timeout(15):
            assert await watch.next() is None
            assert await nobodys.next() is None
        assert (watch.gone, nobodys.gone) == (True, True)


async def test_a_worker_tells_what_it_changed(
    hub: WatchHub, sql: psycopg.Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress and end of a job reach a watcher by a worker's notification alone, without a poll."""
    monkeypatch.setattr(watching, "POLL_SECONDS", 300.0)
    go_on = asyncio.Event()

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        progress(50)
        await go_on.wait()
        return OK

    async with working(database_url, handler) as work:
        await eventually(lambda: work.loop.listener.listening)
        warm = insert(sql, status="cancelled", ready=False, completedAt=Sql("now()"))
        with hub.watch(warm) as watch:
            await state(watch)
            await eventually(lambda: listening_for_changes(sql) == 2)
            job_id = insert(sql)
            with hub.watch(job_id) as watch:
                while (await state(watch)).progress != 50:
                    pass
                go_on.set()
                assert (await end(watch)).result == OK


async def test_only_who_was_called_notifies(rival: Any, settings: Settings, database: Database) -> None:
    """A worker without watchers sends nothing; with watchers it names each changed job once, many in one payload."""
    await channels.listen(rival, ECHO, [channels.CHANGED_CHANNEL])
    unseen, ids = new_job_id(), [new_job_id() for _ in range(250)]
    announcer = ChangeAnnouncer(database)
    sending = asyncio.create_task(announcer.run())
    announcer.changed(unseen)
    announcer.watched()
    for job_id in [*ids, *ids]:
        announcer.changed(job_id)
    payloads: list[str] = []
    async with asyncio.timeout(15):
        async for notification in rival.notifies(stop_after=3):
            payloads += [notification.payload]
    sending.cancel()
    assert [UUID(text) for payload in payloads for text in payload.split(",")] == ids
    assert max(map(len, payloads)) < 8000


async def test_hundreds_of_watchers_share_statements_and_one_listener(
    hub: WatchHub, sql: psycopg.Connection[Any], looks: list[int]
) -> None:
    """400 watchers of as many jobs cost fewer than 20 statements and one listening connection."""
    insert(sql, copies=400)
    ids = [job_id for (job_id,) in sql.execute('SELECT id FROM "VerificationJob"').fetchall()]

    async def follow(job_id: Any) -> JobStatus:
        with hub.watch(job_id) as watch:
            return (await end(watch)).status

    watchers = [asyncio.create_task(follow(job_id)) for job_id in ids]
    await eventually(lambda: listening_for_changes(sql) == 1)
    await eventually(lambda: sum(looks) >= 400)
    sql.execute('SELECT cancel_job(id) FROM "VerificationJob"')
    assert set(await asyncio.gather(*watchers)) == {JobStatus.CANCELLED}
    assert len(looks) < 20
    assert listening_for_changes(sql) == 1


async def test_watchers_are_bounded(settings: Settings, database: Database) -> None:
    """A watcher beyond ``MAX_WATCHERS`` is refused; the end of a watch makes room."""
    few = settings.model_copy(update={"max_watchers": 2})
    async with open_watch_hub(few, database, asyncio.Event()) as hub:
        with hub.watch(new_job_id()):
            with hub.watch(new_job_id()), pytest.raises(TooManyWatchers), hub.watch(new_job_id()):
                pass
            with hub.watch(new_job_id()):
                assert hub.watchers == 2


async def test_stopping_ends_all_watches(settings: Settings, database: Database, sql: psycopg.Connection[Any]) -> None:
    """A stop ends all waiting watches at once, and later watches return without waiting."""
    stopping = asyncio.Event()
    job_id = insert(sql)
    async with open_watch_hub(settings, database, stopping) as hub:
        with hub.watch(job_id) as watch:
            await state(watch)
            stopping.set()
            async with asyncio.timeout(15):
                assert await watch.next() is None
            assert not watch.gone
        with hub.watch(job_id) as watch:
            assert await watch.next() is None


async def test_the_hub_outlives_the_database_connection(hub: WatchHub, sql: psycopg.Connection[Any]) -> None:
    """A watcher outlives the loss of all connections, and gets the later states."""
    job_id = insert(sql)
    with hub.watch(job_id) as watch:
        await state(watch)
        sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        sql.execute("SELECT cancel_job(%s)", [job_id])
        assert (await state(watch)).status is JobStatus.CANCELLED


@pytest.mark.usefixtures("quick")
async def test_a_fault_of_the_reads_is_logged_once(hub: WatchHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the reads of watched jobs are refused, successful calls to the workers do not end the fault."""
    calls, announce_watching = 0, channels.announce_watching

    async def called(connection: Any) -> None:
        nonlocal calls
        await announce_watching(connection)
        calls += 1

    async def refused(connection: Any, seen: Any) -> Any:
        raise DatabaseRefusal("the role of DATABASE_URL lacks a right")

    monkeypatch.setattr(channels, "announce_watching", called)
    monkeypatch.setattr(watching, "_CALL_SECONDS", 0.1)
    monkeypatch.setattr(readers, "find_changed", refused)
    with capture_logs() as logged, hub.watch(new_job_id()):
        await eventually(lambda: calls >= 4)
    faults = [line["event"] for line in logged if line.get("what") == "watched jobs"]
    assert faults == ["database.refuses"]
