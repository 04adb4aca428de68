"""Ended jobs are read from Redis; only signed values are believed."""

from typing import Any

import httpx
import psycopg

from tests.eventually import eventually
from tests.job_rows import COMPLETED, FAILED, PROCESSING, insert, update
from tests.redis_server import RedisServer
from tests.web.serving import JOBS, ServeApi

DATA = "/admin/queues/data"


def kept(redis: RedisServer) -> list[str]:
    """Return the keys of ended jobs."""
    words = redis.command("KEYS", "iidq:1:*:job:*").decode().split("\r\n")
    return [word for word in words if word.startswith("iidq:")]


async def read_until_kept(api: httpx.AsyncClient, redis: RedisServer, job_id: object) -> dict[str, Any]:
    """Return the job, read through Postgres, once Redis has it."""
    job: dict[str, Any] = (await api.get(f"{JOBS}/{job_id}")).json()
    await eventually(lambda: kept(redis))
    return job


async def test_another_process_reads_it_from_redis(
    serve_api: ServeApi, redis: RedisServer, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """An ended job read at one API process is served by all processes from Redis for a moment, with the same tag."""
    job_id = insert(sql, COMPLETED)
    shared = {"database_url": database_url, "redis_url": redis.url}
    async with serve_api(**shared) as first, serve_api(**shared) as second:
        for _ in range(50):
            replies = []
            for api in (first, second):
                replies.append(await api.get(f"{JOBS}/{job_id}"))
                await eventually(lambda: kept(redis))
            # Changed in psql: a read from Postgres shows the change.
            update(sql, job_id, fileName="changed.bin")
            later = await second.get(f"{JOBS}/{job_id}")
            if later.json()["fileName"] != "changed.bin":
                break
            update(sql, job_id, fileName=None)
        assert replies[0].json() == replies[1].json() == later.json()
        assert replies[0].headers["etag"] == later.headers["etag"]
        fresh = replies[0]
        while fresh.json()["fileName"] != "changed.bin":
            fresh = await second.get(f"{JOBS}/{job_id}")


async def test_forged_values_are_not_believed(
    serve_api: ServeApi, redis: RedisServer, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """Garbage, a forged job and another job's signed value are not believed: the reply is the row."""
    job_id, failed = insert(sql, COMPLETED), insert(sql, FAILED)
    async with serve_api(database_url=database_url, redis_url=redis.url) as api:
        truth = await read_until_kept(api, redis, job_id)
        [key] = kept(redis)
        signed = redis.command("GET", key).partition(b"\r\n")[2][:-2]
        await api.get(f"{JOBS}/{failed}")
        await eventually(lambda: len(kept(redis)) == 2 or not kept(redis))
        forged = signed.replace(b'"status":"completed"', b'"status":"cancelled"')
        for lie in (b"", b"lie", forged, b"\0" * 200):
            for name in (key, *kept(redis)):
                redis.command("SET", name, lie)
            assert (await api.get(f"{JOBS}/{job_id}")).json() == truth
        for name in kept(redis):
            redis.command("SET", name, signed)
        assert (await api.get(f"{JOBS}/{failed}")).json()["status"] == "failed"


async def test_a_retried_job_is_in_line_at_once(
    serve_api: ServeApi, redis: RedisServer, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """After a retry over HTTP no API process shows the former end of the job."""
    job_id = insert(sql, FAILED)
    shared = {"database_url": database_url, "redis_url": redis.url}
    async with serve_api(**shared) as first, serve_api(**shared) as second:
        await read_until_kept(first, redis, job_id)
        assert (await first.post(f"{JOBS}/{job_id}/retry")).status_code == 200
        assert (await second.get(f"{JOBS}/{job_id}")).json()["status"] == "queued"


async def test_failures_that_are_retried_together_are_in_line_at_once(
    serve_api: ServeApi, redis: RedisServer, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """After a retry of a group of failures no API process shows the former end of any of its jobs."""
    job_ids = [insert(sql, FAILED, error="rpc.unavailable: down") for _ in range(2)]
    shared = {"database_url": database_url, "redis_url": redis.url}
    async with serve_api(**shared) as first, serve_api(**shared) as second:
        for job_id in job_ids:
            await read_until_kept(first, redis, job_id)
        first.headers["X-CSRF-Token"] = (await first.get(f"{DATA}/session")).json()["csrfToken"]
        reply = await first.post(f"{DATA}/failures/retry", json={"cause": "rpc.unavailable", "before": None})
        assert reply.json()["retried"] == 2
        for job_id in job_ids:
            assert (await second.get(f"{JOBS}/{job_id}")).json()["status"] == "queued"


async def test_unfinished_jobs_are_never_kept(
    serve_api: ServeApi, redis: RedisServer, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """An unfinished job is always read from Postgres."""
    running, ended = insert(sql, PROCESSING), insert(sql, COMPLETED)
    async with serve_api(database_url=database_url, redis_url=redis.url) as api:
        for job_id in (running, insert(sql), ended):
            await api.get(f"{JOBS}/{job_id}")
        await eventually(lambda: kept(redis))
        assert len(kept(redis)) == 1


async def test_readyz_tells_how_it_stands(
    serve_api: ServeApi, redis: RedisServer, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """``/readyz`` shows Redis as up, open or off, with the time of the last change, and is ready in any case."""
    async with serve_api(database_url=database_url, redis_url=redis.url) as api:

        async def state() -> str:
            reply = await api.get("/readyz")
            assert reply.status_code == 200
            assert reply.json()["redis"]["since"].endswith("Z")
            told: str = reply.json()["redis"]["state"]
            return told

        while await state() != "up":
            pass
        redis.kill()
        while await state() != "open":
            await api.get(f"{JOBS}/{insert(sql, COMPLETED)}")
        redis.start()
        while await state() != "up":
            pass
    async with serve_api(database_url=database_url, redis_url=None) as api:
        assert (await api.get("/readyz")).json()["redis"] == {"state": "off", "since": None}
