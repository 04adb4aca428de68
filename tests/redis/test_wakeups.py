"""Wake-ups through Redis, where notifications of Postgres do not arrive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from iidq.database.pool import open_database
from iidq.queue.enqueuer import open_enqueuer
from iidq.queue.job import ClaimedJob
from iidq.queue.notify import channels
from iidq.queue.notify.listener import Listener
from iidq.queue.processing.execution import Progress
from iidq.queue.processing.loop import open_work_loop
from iidq.redis.accelerator import Accelerator
from iidq.settings import load_settings
from tests.database.working import NEVER_POLLS_SECONDS, Working
from tests.eventually import eventually
from tests.job_rows import new_job, statuses
from tests.redis.conftest import OpenAccelerator
from tests.redis_server import RedisServer


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep LISTEN from ever working, as behind a transaction pooler."""

    async def hear_nothing(_listener: Listener) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Listener, "run", hear_nothing)


async def handler(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
    """Return a result at once."""
    return {"status": "OK"}


@asynccontextmanager
async def deaf_worker(database_url: str, accelerator: Accelerator) -> AsyncIterator[Working]:
    """A worker without LISTEN and without a poll in time, with wake-ups through Redis."""
    settings = load_settings(database_url=database_url, poll_interval_seconds=NEVER_POLLS_SECONDS)
    async with open_work_loop(settings, handler, "deaf", relay=accelerator.relay) as loop:
        working = Working(loop, asyncio.create_task(loop.run()))
        await eventually(lambda: accelerator.relay.is_subscribed(channels.JOBS_CHANNEL))
        yield working
        await working.stop()


async def enqueue_one(accelerator: Accelerator, database_url: str) -> None:
    """Enqueue a job as an API process does."""
    settings = load_settings(database_url=database_url)
    async with (
        open_database(settings, pool_size=2) as database,
        open_enqueuer(database, settings, accelerator.relay) as enqueuer,
    ):
        await enqueuer.enqueue(new_job())


async def test_a_deaf_worker_hears_of_work(
    deaf: None, accelerate: OpenAccelerator, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """A worker without LISTEN runs another process's job long before its poll, and reports itself as listening."""
    async with accelerate() as api, accelerate() as own, deaf_worker(database_url, own) as worker:
        for count in (1, 2, 3):
            await enqueue_one(api, database_url)
            await eventually(lambda count=count: statuses(sql) == {"completed": count})  # type: ignore[misc]
        assert worker.loop._signs().listening


async def test_after_redis_was_away_it_wakes_again(
    deaf: None, accelerate: OpenAccelerator, redis: RedisServer, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """Jobs of a Redis outage are run when the subscription returns, and later jobs at once."""
    async with accelerate() as api, accelerate() as own, deaf_worker(database_url, own):
        redis.kill()
        await eventually(lambda: not own.relay.is_subscribed(channels.JOBS_CHANNEL))
        await enqueue_one(api, database_url)
        assert statuses(sql) == {"queued": 1}
        redis.start()
        await eventually(lambda: statuses(sql) == {"completed": 1})
        await eventually(lambda: api.relay.is_up(channels.JOBS_CHANNEL))
        await enqueue_one(api, database_url)
        await eventually(lambda: statuses(sql) == {"completed": 2})


async def test_strangers_wake_nobody(accelerate: OpenAccelerator, redis: RedisServer) -> None:
    """A message published without the key wakes no worker."""
    async with accelerate() as one, accelerate() as other:
        assert one.key is not None
        assert one.key.signer is not None
        heard: list[str] = []
        hearing = asyncio.create_task(other.relay.run({channels.JOBS_CHANNEL: heard.append}, lambda: None))
        await eventually(lambda: other.relay.is_subscribed(channels.JOBS_CHANNEL))
        channel = f"iidq:1:{one.key.signer.namespace}:{channels.JOBS_CHANNEL}"
        assert redis.command("PUBLISH", channel, "rest") == b":1\r\n"
        one.relay.publish(channels.JOBS_CHANNEL, "ours")
        await eventually(lambda: heard)
        assert heard == ["ours"]
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def test_wakeups_can_be_switched_off(accelerate: OpenAccelerator) -> None:
    """Without ``wakeups`` in ``REDIS_USE`` nothing is published or heard on the channel of jobs."""
    async with accelerate(redis_use=("progress",)) as accelerator:
        assert not accelerator.relay.is_up(channels.JOBS_CHANNEL)
        assert accelerator.relay.is_up(channels.CHANGED_CHANNEL)
        assert (accelerator.ended_jobs, accelerator.manifests, accelerator.verdicts) == (None, None, None)
