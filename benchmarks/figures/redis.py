"""Effect of Redis on watched jobs: time from a step to the client, and statements per job.

API, worker and watcher share one process and event loop, so the times include both ends' work. A client submits a job,
watches nine steps to the end, then submits the next: simultaneous jobs would share statements. The statements of idle
processes are measured first and subtracted.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import psycopg

from benchmarks.bench import Bench
from benchmarks.record import quantile
from benchmarks.redis_server import RedisServer
from iidq.embedded.endpoint import serve_locally
from iidq.observability.logs import configure_logging
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Progress
from iidq.queue.processing.loop import open_work_loop
from iidq.redis.accelerator import open_accelerator
from iidq.settings import Settings
from iidq.web.app import create_app
from iidq.web.reply.wire import JOBS_PATH
from iidq.web.server.http_protocol import bounded_http

STEPS = tuple(range(10, 100, 10))
_STEP_SECONDS = 0.2
_IDLE_SECONDS = 5.0
_SETTLE_SECONDS = 1.0


def watched(bench: Bench) -> dict[str, float]:
    """Run the same load without and with Redis."""
    with RedisServer() as server:
        plain, redis = (_run(bench, url) for url in (None, server.url))
    return {
        "plain_step_p50_ms": quantile(plain.steps_ms, 0.50),
        "plain_queries_per_job": plain.queries_per_job,
        "redis_step_p50_ms": quantile(redis.steps_ms, 0.50),
        "redis_queries_per_job": redis.queries_per_job,
    }


class _Load:
    """Jobs of one way, with or without Redis: time of each step, and time of the step's arrival at the watcher."""

    def __init__(self) -> None:
        self.stepped: dict[str, dict[int, float]] = defaultdict(dict)
        self.steps_ms: list[float] = []
        self.queries_per_job = 0.0

    async def handle(self, job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        """Step through a job, as the worker's handler."""
        for percent in STEPS:
            await asyncio.sleep(_STEP_SECONDS)
            self.stepped[str(job.id)][percent] = time.perf_counter()
            progress(percent)
        await asyncio.sleep(_STEP_SECONDS)
        return {"status": "OK"}

    async def watch(self, client: httpx.AsyncClient, number: int) -> None:
        """Submit a job and follow the job to its end."""
        body = {
            "contentHash": f"0x{number:064x}",
            "manifestURI": "https://example.org/manifest.json",
            "registryAddress": "0x" + "cd" * 20,
        }
        job_id = str(UUID((await client.post(f"{JOBS_PATH}/verify", json=body)).json()["jobId"]))
        seen = 0
        async with client.stream("GET", f"{JOBS_PATH}/{job_id}/events") as events:
            async for line in events.aiter_lines():
                if not line.startswith("data: "):
                    continue
                now, progress = time.perf_counter(), json.loads(line[6:])["progress"]
                for percent in STEPS:
                    if seen < percent <= progress:
                        self.steps_ms.append((now - self.stepped[job_id][percent]) * 1000)
                seen = max(seen, progress)


def _run(bench: Bench, redis_url: str | None) -> _Load:
    with bench.server.migrated_database() as url:
        return asyncio.run(_measure(url, redis_url, bench.options.watched_jobs))


async def _measure(database_url: str, redis_url: str | None, jobs: int) -> _Load:
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        rpc_url="http://127.0.0.1:9",
        rate_limit_submit_per_minute=0,
        rate_limit_read_per_minute=0,
    )
    configure_logging("error")
    load, app, numbers = _Load(), create_app(settings), itertools.count()
    async with (
        app.router.lifespan_context(app),
        serve_locally(app, http=bounded_http(settings)) as url,
        httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as client,
        open_accelerator(settings) as accelerator,
        open_work_loop(settings, load.handle, "bench", relay=accelerator.relay) as loop,
    ):
        working = asyncio.create_task(loop.run())
        # The first watcher opens the shared connections of later watchers.
        await load.watch(client, next(numbers))
        await asyncio.sleep(_SETTLE_SECONDS)
        load.steps_ms.clear()
        async with _counted_queries() as count:
            await asyncio.sleep(_IDLE_SECONDS)
            idle_per_second = count() / _IDLE_SECONDS
            before, began = count(), time.perf_counter()
            for number in itertools.islice(numbers, jobs):
                await load.watch(client, number)
            idle = idle_per_second * (time.perf_counter() - began)
            load.queries_per_job = (count() - before - idle) / jobs
        loop.stop()
        await working
    return load


@contextlib.asynccontextmanager
async def _counted_queries() -> AsyncIterator[Any]:
    """Count the statements sent by this process."""
    executed = 0
    original = psycopg.AsyncCursor.execute

    async def execute(*arguments: Any, **named: Any) -> Any:
        nonlocal executed
        executed += 1
        return await original(*arguments, **named)

    psycopg.AsyncCursor.execute = execute  # type: ignore[method-assign]
    try:
        yield lambda: executed
    finally:
        psycopg.AsyncCursor.execute = original  # type: ignore[method-assign]
