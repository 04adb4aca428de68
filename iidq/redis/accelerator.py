"""The Redis parts of a process, configured by ``REDIS_URL`` and ``REDIS_USE``."""

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
from iidq.redis.caches import FINISHED_JOB_SECONDS, MANIFEST_SECONDS, FinishedJobCache, ManifestCache
from iidq.redis.key import SharedKey
from iidq.redis.redis_connection import Redis, State, open_redis
from iidq.redis.redis_hint_bus import RedisRelay
from iidq.redis.signed_cache import SignedCache
from iidq.settings import Settings

_CHANNELS: Final = {"wakeups": {JOBS_CHANNEL}, "progress": {PROGRESS_CHANNEL, CHANGED_CHANNEL, WATCHING_CHANNEL}}
# Longest wait for the key at the start: then the first requests and jobs have it, unless Postgres is away.
_KEY_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The parts; a part is None, or idle, unless ``REDIS_USE`` names the use."""

    redis: Redis | None = None
    """The connection; None without ``REDIS_URL``."""
    key: SharedKey | None = None
    """The key that signs all values in Redis."""
    relay: HintBus = NO_HINT_BUS
    """Hints between processes (uses ``wakeups`` and ``progress``)."""
    ended_jobs: FinishedJobCache | None = None
    """Replies about finished jobs (use ``jobs``)."""
    manifests: ManifestCache | None = None
    """Verified manifests (use ``caches``)."""
    verdicts: SignedCache | None = None
    """Verdicts of the last ``RESULT_CACHE_SECONDS`` (use ``caches``)."""

    @property
    def state(self) -> State:
        """Whether Redis is up, away (open) or not used (off)."""
        return State.OFF if self.redis is None else self.redis.state

    @property
    def since(self) -> datetime | None:
        """Time of the last change of :attr:`state` by the clock of this host; None without Redis."""
        return None if self.redis is None else self.redis.since.astimezone(UTC)


@asynccontextmanager
async def open_accelerator(settings: Settings) -> AsyncIterator[Accelerator]:
    """Open the parts; without ``REDIS_URL`` they do nothing. Works while Redis or Postgres is away.

    Raises :class:`SettingsFault` where the package redis is missing.
    """
    async with open_redis(settings) as redis:
        if redis is None:
            yield Accelerator()
            return
        uses, key = frozenset(settings.redis_use), SharedKey(settings)
        channels = {channel for use, names in _CHANNELS.items() if use in uses for channel in names}
        relay = RedisRelay(redis, key, channels)
        ended_jobs = manifests = verdicts = None
        if "jobs" in uses:
            ended_jobs = FinishedJobCache(SignedCache(redis, key, "jobs", "job", FINISHED_JOB_SECONDS))
        if "caches" in uses:
            manifests = ManifestCache(SignedCache(redis, key, "caches", "manifest", MANIFEST_SECONDS))
            verdicts = SignedCache(redis, key, "caches", "verdict", settings.result_cache_seconds)
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
