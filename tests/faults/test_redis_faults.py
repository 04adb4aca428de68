"""Redis is killed, frozen, flushed, filled, restarted empty and slowed under load, without effect on the queue."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import psycopg

from tests.eventually import eventually
from tests.faults.conftest import StartWorker
from tests.job_rows import scalar, statuses
from tests.redis_server import RedisServer
from tests.web.conftest import serve_api  # noqa: F401 — a fixture
from tests.web.request.test_idempotency import QUESTION
from tests.web.routes.test_events import watching
from tests.web.serving import JOBS, ServeApi

STEPPING = "tests.faults.stepping_worker_process"
_JOBS_PER_DISTURBANCE = 8


async def test_no_request_fails_and_no_job_is_lost_or_doubled(
    serve_api: ServeApi,  # noqa: F811
    start_worker: StartWorker,
    database_url: str,
    ledger: psycopg.Connection[Any],
) -> None:
    """Two APIs and two workers lose no job and fail no request through all faults of Redis.

    Every job runs once and ends once, every watcher gets its end, and all processes use Redis again afterwards.
    """
    with RedisServer() as redis:

        async def kill() -> None:
            redis.kill()

        async def freeze() -> None:
            redis.freeze()

        async def flush() -> None:
            redis.command("FLUSHALL")

        async def fill() -> None:
            redis.command("CONFIG", "SET", "maxmemory", "1")

        async def restart() -> None:
            redis.restart()

        async def slow() -> None:
            # All commands wait in the meantime.
            await asyncio.to_thread(redis.command, "DEBUG", "SLEEP", "0.2")

        shared = {"database_url": database_url, "redis_url": redis.url}
        workers = [start_worker(database_url, module=STEPPING, REDIS_URL=redis.url) for _ in range(2)]
        async with AsyncExitStack() as stack:
            apis = [await stack.enter_async_context(serve_api(**shared)) for _ in range(2)]

            async def submit_and_follow(number: int) -> dict[str, Any]:
                first, second = apis[number % 2], apis[(number + 1) % 2]
                question = {**QUESTION, "manifestURI": f"https://example.org/{number}"}
                accepted = await first.post(f"{JOBS}/verify", json=question)
                assert accepted.status_code == 200, accepted.text
                job_id = accepted.json()["jobId"]
                unfinished = await second.get(f"{JOBS}/{job_id}")
                assert unfinished.status_code == 200, unfinished.text
                last: dict[str, Any] = {}
                async with watching(second, job_id) as stream:
                    while (event := await stream.next()) is not None:
                        last = event
                assert (last["event"], last["job"]["result"]["status"]) == ("completed", "OK")
                for api in (first, second):
                    job = await api.get(f"{JOBS}/{job_id}")
                    assert (job.status_code, job.json()["status"]) == (200, "completed")
                return last

            count = 0
            for disturb in (kill, freeze, flush, fill, restart, slow):
                following = [
                    asyncio.create_task(submit_and_follow(count + number)) for number in range(_JOBS_PER_DISTURBANCE)
                ]
                count += _JOBS_PER_DISTURBANCE
                await disturb()
                await asyncio.gather(*following)
                if disturb is kill:
                    redis.start()
                elif disturb is freeze:
                    redis.thaw()
                elif disturb is fill:
                    redis.command("CONFIG", "SET", "maxmemory", "0")

            for api in apis:
                await _until_up(api)
            await eventually(lambda: all(_last_state(worker.log.read_text()) == "redis.up" for worker in workers))
    assert statuses(ledger) == {"completed": count}
    assert scalar(ledger, "SELECT count(*) FROM execution") == count
    assert scalar(ledger, "SELECT count(*) FROM ending") == count


async def _until_up(api: httpx.AsyncClient) -> None:
    async with asyncio.timeout(15):
        while (await api.get("/readyz")).json()["redis"]["state"] != "up":
            pass


def _last_state(log: str) -> str:
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    last: str = [event for event in events if event in ("redis.up", "redis.lost")][-1]
    return last
