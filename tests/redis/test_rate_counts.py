"""Rate limits shared through Redis, and through Postgres while Redis is away."""

import asyncio
import time
from typing import Any

import psycopg

from iidq.database.pool import open_database
from iidq.rate_window import BUCKET_SECONDS, KeyedCount
from iidq.redis.rate_counts import RedisCounts, shared_counts
from iidq.settings import Settings
from iidq.web.guard.rate_sharing import PostgresCounts
from tests.job_rows import scalar
from tests.redis.conftest import OpenAccelerator
from tests.redis_server import RedisServer

KEY, OTHER = b"one of clients  ", b"another of them "


async def test_processes_add_up(accelerate: OpenAccelerator) -> None:
    """Each process learns the sums of its clients over all processes, without steps before the window."""
    async with accelerate() as one, accelerate() as other:
        assert one.redis and one.key and other.redis and other.key
        first, second = RedisCounts(one.redis, one.key), RedisCounts(other.redis, other.key)
        await first.add([KeyedCount(KEY, 7, 3), KeyedCount(KEY, 8, 1), KeyedCount(OTHER, 8, 5)], since_bucket=7)
        totals, _ = await second.add([KeyedCount(KEY, 8, 2)], since_bucket=8)
        assert totals == [KeyedCount(KEY, 8, 3)]
        totals, _ = await first.add([KeyedCount(bytes([n]) * 16, 8, n) for n in range(250)], since_bucket=7)
        assert sorted(totals) == [KeyedCount(bytes([n]) * 16, 8, n) for n in range(250)]


async def test_counts_end_by_themselves(accelerate: OpenAccelerator, redis: RedisServer) -> None:
    """A count in Redis expires within two minutes."""
    async with accelerate() as one:
        assert one.redis and one.key
        await RedisCounts(one.redis, one.key).add([KeyedCount(KEY, 7, 3)], since_bucket=7)
        [key] = [word for word in redis.command("KEYS", "*:rate:*").decode().split("\r\n") if word.startswith("iidq:")]
        assert 0 < int(redis.command("TTL", key)[1:]) <= 120


async def test_postgres_counts_while_redis_is_away(
    accelerate: OpenAccelerator, redis: RedisServer, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """A Redis outage counts no request twice and loses none, and Redis counts again after its return."""
    settings = Settings(_env_file=None, database_url=database_url, redis_url=redis.url)
    step = int(time.time() // BUCKET_SECONDS)

    def stored() -> Any:
        return scalar(sql, "SELECT coalesce(sum(requests), 0) FROM iidq_rate_count")

    async with accelerate() as one, open_database(settings, pool_size=1) as database:
        assert one.redis
        counts = shared_counts(settings, one, PostgresCounts(database))
        await counts.add([KeyedCount(KEY, step, 3)], since_bucket=step)
        assert stored() == 0
        redis.kill()
        await counts.add([KeyedCount(KEY, step, 4)], since_bucket=step)
        assert stored() == 4
        redis.start()
        async with asyncio.timeout(15):
            await one.redis.until_available()
        totals, _ = await counts.add([KeyedCount(KEY, step, 5)], since_bucket=step)
        assert (totals, stored()) == ([KeyedCount(KEY, step, 5)], 4)


async def test_junk_beside_the_counts_ends_nothing(accelerate: OpenAccelerator, redis: RedisServer) -> None:
    """Foreign fields in a client's hash are ignored, also steps far in the future."""
    async with accelerate() as one:
        assert one.redis and one.key
        counts = RedisCounts(one.redis, one.key)
        await counts.add([KeyedCount(KEY, 7, 3)], since_bucket=7)
        [key] = [word for word in redis.command("KEYS", "*:rate:*").decode().split("\r\n") if word.startswith("iidq:")]
        for field, value in [("junk", "1"), ("8", "junk"), ("9" * 18, "5"), ("9" * 5000, "5"), ("-1", "2"), ("", "")]:
            redis.command("HSET", key, field, value)
        totals, _ = await counts.add([KeyedCount(KEY, 7, 1)], since_bucket=7)
        assert totals == [KeyedCount(KEY, 7, 4)]
