"""Counts of the rate limits in Redis, and in Postgres while Redis is away.

Both counts are separate: in the minute after a change, several API processes together may admit more than the limit;
a single process cannot.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from iidq.errors import RedisUnavailable
from iidq.rate_window import BUCKETS, WINDOW_SECONDS, KeyedCount, SharedCounts
from iidq.redis.accelerator import Accelerator
from iidq.redis.key import SharedKey
from iidq.redis.redis_connection import Redis
from iidq.settings import Settings

# A pipeline of these takes some milliseconds, of the 50 that a command has.
_KEYS_PER_COMMAND: Final = 200
_KEPT_SECONDS: Final = 2 * WINDOW_SECONDS
# Other hosts' clocks may be ahead; a bucket of next year would never leave the window, so it is ignored.
_MOST_BUCKETS: Final = 2 * BUCKETS
_MOST_DIGITS: Final = 18


class RedisCounts:
    """:class:`SharedCounts`: a hash per client, bucket → requests, which ends by itself."""

    def __init__(self, redis: Redis, key: SharedKey) -> None:
        self._redis = redis
        self._key = key

    async def add(self, additions: Sequence[KeyedCount], *, since_bucket: int) -> tuple[list[KeyedCount], float | None]:
        """Add the counts, 200 per pipeline; raise :class:`RedisUnavailable`. Redis has no clock to return, so None."""
        found: list[KeyedCount] = []
        for first in range(0, len(additions), _KEYS_PER_COMMAND):
            found += await self._add(additions[first : first + _KEYS_PER_COMMAND], since_bucket)
        return found, None

    async def purge(self, *, before_bucket: int) -> None:
        """Do nothing: counts in Redis expire."""

    async def _add(self, additions: Sequence[KeyedCount], since_bucket: int) -> list[KeyedCount]:
        signer = self._key.signer
        if signer is None:
            raise RedisUnavailable("the key is not known yet")
        prefix = f"iidq:1:{signer.namespace}:rate:"
        keys = list(dict.fromkeys(addition.key for addition in additions))

        async def count(client: Any) -> list[Any]:
            async with client.pipeline(transaction=False) as pipeline:
                for key, bucket, requests in additions:
                    pipeline.hincrby(prefix + key.hex(), str(bucket), requests)
                for key in keys:
                    pipeline.expire(prefix + key.hex(), _KEPT_SECONDS)
                for key in keys:
                    pipeline.hgetall(prefix + key.hex())
                replies: list[Any] = await pipeline.execute()
            return replies[-len(keys) :]

        return [
            KeyedCount(key, bucket, requests)
            for key, by_bucket in zip(keys, await self._redis.run(count), strict=True)
            for bucket, requests in _numbers(by_bucket).items()
            if since_bucket <= bucket <= since_bucket + _MOST_BUCKETS
        ]


def _numbers(by_bucket: Mapping[bytes | str, bytes | str]) -> dict[int, int]:
    """Return the valid counts by bucket; other clients may have written anything into the hash."""
    return {
        int(bucket): int(requests)
        for bucket, requests in by_bucket.items()
        if _is_number(bucket) and _is_number(requests)
    }


def _is_number(text: bytes | str) -> bool:
    return len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit()


class PreferRedis:
    """Counts in Redis while Redis is up, else in Postgres."""

    def __init__(self, redis: RedisCounts, postgres: SharedCounts) -> None:
        self._redis = redis
        self._postgres = postgres

    async def add(self, additions: Sequence[KeyedCount], *, since_bucket: int) -> tuple[list[KeyedCount], float | None]:
        """Add to Redis, else to Postgres; raise the faults of Postgres."""
        try:
            return await self._redis.add(additions, since_bucket=since_bucket)
        except RedisUnavailable:
            return await self._postgres.add(additions, since_bucket=since_bucket)

    async def purge(self, *, before_bucket: int) -> None:
        """Purge the counts in Postgres."""
        await self._postgres.purge(before_bucket=before_bucket)


def shared_counts(settings: Settings, accelerator: Accelerator, postgres: SharedCounts) -> SharedCounts:
    """Return the shared counts of all API processes."""
    if accelerator.redis is None or accelerator.key is None or "limits" not in settings.redis_use:
        return postgres
    return PreferRedis(RedisCounts(accelerator.redis, accelerator.key), postgres)
