"""All that Redis accelerates in one process, as ``REDIS_URL`` and ``REDIS_USE`` say."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from iidq.concurrency.background import end_tasks, keep_running
from iidq.queue.notify.channels import CHANGED_CHANNEL, JOBS_CHANNEL, WATCHING_CHANNEL
from iidq.queue.notify.hint_bus import NO_HINT_BUS, PROGRESS_CHANNEL, HintBus
from iidq.redis.ended_jobs import LASTS_SECONDS, EndedJobs
from iidq.redis.key import SharedKey
from iidq.redis.redis_connection import Redis, State, open_redis
from iidq.redis.redis_hint_bus import RedisRelay
from iidq.redis.sealed_values import SealedValues
from iidq.redis.shared_caches import MANIFEST_SECONDS, RedisManifests, RedisVerdicts
from iidq.settings import Settings

_CHANNELS: Final = {"wakeups": {JOBS_CHANNEL}, "progress": {PROGRESS_CHANNEL, CHANGED_CHANNEL, WATCHING_CHANNEL}}
# The first requests and jobs shall have it already; without Postgres nothing waits for the key.
_KEY_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One process' parts; None, or doing nothing, for what is not used."""

    redis: Redis | None = None
    key: SharedKey | None = None
    relay: HintBus = NO_HINT_BUS
    ended_jobs: EndedJobs | None = None
    manifests: RedisManifests | None = None
    verdicts: RedisVerdicts | None = None

    @property
    def state(self) -> State:
        """How it stands with Redis."""
        return State.OFF if self.redis is None else self.redis.state

    @property
    def since(self) -> datetime | None:
        """Since when, by this host's clock; None where Redis is not used."""
        return None if self.redis is None else self.redis.since.astimezone(UTC)


@asynccontextmanager
async def open_accelerator(settings: Settings) -> AsyncIterator[Accelerator]:
    """The parts at work; without ``REDIS_URL`` they do nothing. Starts as well while Redis or Postgres is away.

    Raises :class:`SettingsFault` where the package redis is missing.
    """
    async with open_redis(settings) as redis:
        if redis is None:
            yield Accelerator()
            return
        uses, key = frozenset(settings.redis_use), SharedKey(settings)
        channels = {channel for use, those in _CHANNELS.items() if use in uses for channel in those}
        relay = RedisRelay(redis, key, channels)
        ended_jobs = EndedJobs(SealedValues(redis, key, "jobs", "job", LASTS_SECONDS)) if "jobs" in uses else None
        manifests = verdicts = None
        if "caches" in uses:
            manifests = RedisManifests(SealedValues(redis, key, "caches", "manifest", MANIFEST_SECONDS))
            verdicts = RedisVerdicts(SealedValues(redis, key, "caches", "verdict", settings.result_cache_seconds))
        tasks = [keep_running(key.load, "redis key"), keep_running(relay.send, "redis relay")]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KEY_SECONDS):
                    await key.known()
            yield Accelerator(redis, key, relay, ended_jobs, manifests, verdicts)
        finally:
            if ended_jobs is not None:
                await ended_jobs.aclose()
            await end_tasks(tasks)
