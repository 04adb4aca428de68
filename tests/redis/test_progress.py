"""Progress of a job reaches watchers at every API process through Redis; states come from Postgres."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from iidq.queue.job import ClaimedJob
from iidq.queue.notify import watching as hub
from iidq.queue.notify.hint_bus import PROGRESS_CHANNEL, progress_line
from iidq.queue.processing import writers
from iidq.queue.processing.execution import Progress
from iidq.queue.processing.loop import open_work_loop
from iidq.settings import load_settings
from tests.database.working import NEVER_POLLS_SECONDS, Working
from tests.eventually import eventually
from tests.job_rows import PROCESSING, insert, read
from tests.redis.conftest import OpenAccelerator
from tests.redis_server import RedisServer
from tests.web.routes.test_events import watching
from tests.web.serving import ServeApi


async def test_watchers_of_all_processes_see_each_step_before_it_is_stored(
    accelerate: OpenAccelerator,
    serve_api: ServeApi,
    redis: RedisServer,
    database_url: str,
    sql: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Watchers at two API processes see each of twenty steps before the row has any."""
    monkeypatch.setattr(writers, "_RELAYED_PROGRESS_INTERVAL_SECONDS", 3600)
    steps = list(range(10, 50, 2))
    seen: asyncio.Queue[int] = asyncio.Queue()
    begin = asyncio.Event()
    stored: list[Any] = []

    async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        await begin.wait()
        for step in steps:
            progress(step)
            for _ in range(2):
                while await seen.get() != step:
                    pass
            stored.append(read(sql, job.id)["progress"])
        return {"status": "OK"}

    api = {"database_url": database_url, "redis_url": redis.url}
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(serve_api(**api)) for _ in range(2)]
        own = await stack.enter_async_context(accelerate())
        settings = load_settings(database_url=database_url, poll_interval_seconds=NEVER_POLLS_SECONDS)
        loop = await stack.enter_async_context(open_work_loop(settings, handler, "w", relay=own.relay))
        job_id = insert(sql)

        async def watch(number: int) -> list[dict[str, Any]]:
            events = []
            async with watching(clients[number], job_id) as stream:
                while (event := await stream.next()) is not None:
                    events.append(event)
                    seen.put_nowait(event["job"]["progress"])
            return events

        watchers = [asyncio.create_task(watch(number)) for number in range(2)]
        working = Working(loop, asyncio.create_task(loop.run()))
        # A call that comes before the worker listens is repeated after 20 s.
        await eventually(
            lambda: loop._changes._watched_until > 0 and own.relay.is_up(PROGRESS_CHANNEL), timeout_seconds=60
        )
        begin.set()
        told = await asyncio.gather(*watchers)
        await working.stop()
    assert stored == [0] * len(steps)
    for events in told:
        assert [event["job"]["progress"] for event in events][-len(steps) - 1 :] == [*steps, 100]
        assert (events[-1]["event"], events[-1]["job"]["result"]) == ("completed", {"status": "OK"})
        assert len({event["id"] for event in events}) == len(events)


async def test_a_message_ends_no_job(
    accelerate: OpenAccelerator,
    serve_api: ServeApi,
    redis: RedisServer,
    database_url: str,
    sql: psycopg.Connection[Any],
) -> None:
    """A message with the key moves the progress of the running attempt only; the end of a job comes from Postgres."""
    job_id = insert(sql, PROCESSING)
    async with (
        serve_api(database_url=database_url, redis_url=redis.url) as api,
        accelerate() as liar,
        watching(api, job_id) as stream,
    ):
        assert (await stream.next() or {})["job"]["progress"] == 0
        told = None
        while told is None or told["job"]["progress"] != 20:
            for line in ("nonsense", progress_line(job_id, 1, 100), progress_line(job_id, 0, 90)):
                liar.relay.publish(PROGRESS_CHANNEL, line)
            liar.relay.publish(PROGRESS_CHANNEL, progress_line(job_id, 1, 20))
            told = await stream.next()
            assert told is not None
        assert (told["event"], told["job"]["status"], told["job"]["progress"]) == ("progress", "processing", 20)


async def test_watchers_look_for_themselves_when_redis_falls_silent(
    serve_api: ServeApi,
    redis: RedisServer,
    database_url: str,
    sql: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Watchers poll the table rarely while Redis brings hints, and often once Redis is silent."""
    monkeypatch.setattr(hub, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(hub, "_POLL_WITH_HINT_BUS_SECONDS", 3600.0)
    job_id = insert(sql, PROCESSING)
    told: asyncio.Queue[int] = asyncio.Queue()
    async with serve_api(database_url=database_url, redis_url=redis.url) as api, watching(api, job_id) as stream:

        async def read_on() -> None:
            while (event := await stream.next()) is not None:
                told.put_nowait(event["job"]["progress"])

        reading = asyncio.create_task(read_on())
        assert await told.get() == 0

        async def first_unseen() -> int:
            # Until the subscription is confirmed, watchers still poll for changes.
            for progress in range(1, 100):
                sql.execute('UPDATE "VerificationJob" SET progress = %s WHERE id = %s', [progress, job_id])
                try:
                    assert await asyncio.wait_for(told.get(), 1) == progress
                except TimeoutError:
                    return progress
            raise AssertionError("each change was seen at once")

        unseen = await first_unseen()
        redis.kill()
        assert await asyncio.wait_for(told.get(), 15) == unseen
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
