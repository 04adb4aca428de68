"""Cost of a dying and freezing Redis under load, compared with a healthy one under the same load.

API and workers run as deployed, upstreams answer at once. Requests come at a fixed beat, also while earlier requests
wait for answers: one half submits, the other reads an earlier job.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import httpx

from benchmarks.bench import Bench
from benchmarks.figures.verify import upstreams
from benchmarks.record import quantile
from benchmarks.redis_server import RedisServer
from benchmarks.samples import REGISTRY, Sample, read_samples
from benchmarks.server import STATEMENTS, execute
from benchmarks.service import ServiceFailed, api, program
from iidq.web.reply.wire import JOBS_PATH

WORKERS = 4
PER_SECOND = 200
_SETTLE_SECONDS = 3.0
_OUTAGE_SECONDS = 1.5
_LONGEST_SECONDS = 60.0


def under_load(bench: Bench) -> dict[str, float]:
    """Return p99 of the requests without and with faults, and the longest time until Redis was used again.

    Raises :class:`ServiceFailed` if a request failed, or if a job did not end with its first attempt.
    """
    sources, scratch = upstreams(bench), bench.server.scratch
    samples = list(read_samples(sources.samples))
    with RedisServer() as redis, bench.server.migrated_database() as url, ExitStack() as stack:
        environment = {"DATABASE_URL": url, "REDIS_URL": redis.url, **sources.environment}
        for _ in range(WORKERS):
            stack.enter_context(program(["iidq.worker"], environment, scratch / "worker.log"))
        server = stack.enter_context(api(environment, scratch / "api.log"))
        time.sleep(_SETTLE_SECONDS)
        figures, submitted = asyncio.run(_measure(server.url, redis, samples, bench.options.fault_seconds))
        _check_jobs(url, submitted)
    return figures


async def _measure(url: str, redis: RedisServer, samples: list[Sample], seconds: float) -> tuple[dict[str, float], int]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
        load = _Load(client, samples)
        await load.run(seconds / 5)
        load.taken_ms.clear()
        await load.run(seconds)
        calm_p99_ms = quantile(load.taken_ms, 0.99)
        load.taken_ms.clear()
        disturbing = asyncio.create_task(_disturb(client, redis, seconds))
        await load.run(seconds, until=disturbing)
        return {
            "redis_calm_p99_ms": calm_p99_ms,
            "redis_faults_p99_ms": quantile(load.taken_ms, 0.99),
            "redis_back_seconds": await disturbing,
        }, load.submitted


class _Load:
    """Requests at a fixed beat; the time of each request counts from its due moment."""

    def __init__(self, client: httpx.AsyncClient, samples: list[Sample]) -> None:
        self._client = client
        self._samples = samples
        self._last = ""
        self.submitted = 0
        self.taken_ms: list[float] = []

    async def run(self, seconds: float, until: asyncio.Task[float] | None = None) -> None:
        """Send for ``seconds``, and on until ``until`` has ended."""
        start = time.perf_counter()
        number = 0
        async with asyncio.TaskGroup() as requests:
            while number < seconds * PER_SECOND or (until is not None and not until.done()):
                due = start + number / PER_SECOND
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                requests.create_task((self._submit if number % 2 or not self._last else self._read)(due))
                number += 1

    async def _submit(self, due: float) -> None:
        sample = self._samples[self.submitted % len(self._samples)]
        self.submitted += 1
        body = {
            "contentHash": sample.content_hash,
            "manifestURI": sample.manifest_uri,
            "registryAddress": REGISTRY,
        }
        self._last = (await self._answered(due, self._client.post(f"{JOBS_PATH}/verify", json=body)))["jobId"]

    async def _read(self, due: float) -> None:
        await self._answered(due, self._client.get(f"{JOBS_PATH}/{self._last}"))

    async def _answered(self, due: float, reply: Awaitable[httpx.Response]) -> dict[str, str]:
        got = await reply
        self.taken_ms.append((time.perf_counter() - due) * 1000)
        if got.status_code != 200:
            raise ServiceFailed(f"{got.request.method} answered {got.status_code}: {got.text[:200]}")
        answer: dict[str, str] = json.loads(got.content)
        return answer


async def _disturb(client: httpx.AsyncClient, redis: RedisServer, seconds: float) -> float:
    """Kill and freeze in turn; return the longest time from Redis' return to its use by the API, in seconds."""
    faults: list[tuple[Callable[[], None], Callable[[], None]]] = [
        (redis.kill, redis.start),
        (redis.freeze, redis.thaw),
    ]
    end, count, longest_seconds = time.monotonic() + seconds, 0, 0.0
    while count < len(faults) or time.monotonic() < end:
        harm, heal = faults[count % len(faults)]
        harm()
        await asyncio.sleep(_OUTAGE_SECONDS)
        await asyncio.to_thread(heal)
        back_at = time.perf_counter()
        # The state is in another process, so the loop polls.
        while (await client.get("/readyz")).json()["redis"]["state"] != "up":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        longest_seconds = max(longest_seconds, time.perf_counter() - back_at)
        count += 1
        await asyncio.sleep(_OUTAGE_SECONDS / 2)
    return longest_seconds


def _check_jobs(url: str, submitted: int) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while True:
        [(rows, ended, attempts)] = execute(url, STATEMENTS["ended_and_attempts"])
        if (rows, ended, attempts) == (submitted, submitted, submitted):
            return
        if time.monotonic() > deadline:
            raise ServiceFailed(f"of {submitted} jobs {rows} are there and {ended} completed, in {attempts} attempts")
        time.sleep(0.1)
