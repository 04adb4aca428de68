"""Small values in Redis with a signature and an end."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from iidq.errors import RedisUnavailable
from iidq.observability import metrics
from iidq.redis.key import SharedKey
from iidq.redis.redis_connection import Redis
from iidq.redis.signer import Signer

LARGEST_BYTES: Final = 256 << 10
"""Largest value that is cached; a longer one is skipped."""


class SignedCache:
    """Values of one kind under ``iidq:1:<namespace>:<kind>:…``, each for ``lasts_seconds``.

    Reads and writes never raise and wait at most ``REDIS_TIMEOUT_MS``: while Redis is away every value is missing.
    """

    def __init__(self, redis: Redis, key: SharedKey, use: str, kind: str, lasts_seconds: float) -> None:
        self._redis = redis
        self._key = key
        self._use = use
        self._kind = kind
        self._lasts_seconds = lasts_seconds

    async def get(self, name: str) -> bytes | None:
        """Return the value; None if missing, expired or badly signed."""
        return (await self.get_many([name]))[0]

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the values of all names in order, read in one command."""
        signer = self._key.signer
        if signer is None or not self._redis.available:
            return [None] * len(names)
        keys = [self._key_of(signer, name) for name in names]

        async def read(client: Any) -> list[Any]:
            if len(keys) == 1:
                return [await client.get(keys[0])]
            if self._redis.is_cluster:
                return list(await client.mget_nonatomic(keys))
            return list(await client.mget(keys))

        try:
            kept = await self._redis.run(read)
        except RedisUnavailable:
            return [None] * len(names)
        return [self._verified(signer, key, signed) for key, signed in zip(keys, kept, strict=True)]

    async def put(self, name: str, value: bytes) -> None:
        """Store a value of at most :data:`LARGEST_BYTES`."""
        await self.put_many({name: value})

    async def put_many(self, values: Mapping[str, bytes], *, only_if_new: bool = False) -> None:
        """Store several values; ``only_if_new`` keeps values that Redis has."""
        milliseconds = int(self._lasts_seconds * 1000)
        signer = self._key.signer
        if signer is None or milliseconds < 1 or not self._redis.available:
            return
        now, lasts_seconds = time.time(), milliseconds / 1000
        signed = {
            (key := self._key_of(signer, name)): signer.sign(key, value, now=now, lasts_seconds=lasts_seconds)
            for name, value in values.items()
            if len(value) <= LARGEST_BYTES
        }

        async def write(client: Any) -> None:
            if len(signed) == 1:
                [(key, value)] = signed.items()
                await client.set(key, value, px=milliseconds, nx=only_if_new)
                return
            async with client.pipeline(transaction=False) as pipeline:
                for key, value in signed.items():
                    pipeline.set(key, value, px=milliseconds, nx=only_if_new)
                await pipeline.execute()

        if signed:
            try:
                await self._redis.run(write)
            except RedisUnavailable:
                return

    def _verified(self, signer: Signer, key: str, signed: Any) -> bytes | None:
        if not isinstance(signed, bytes):
            metrics.redis_read(self._use, "miss")
            return None
        value = signer.verify(key, signed, now=time.time(), lasts_seconds=self._lasts_seconds)
        metrics.redis_read(self._use, "rejected" if value is None else "hit")
        return value

    def _key_of(self, signer: Signer, name: str) -> str:
        # Digested: the names of verdicts hold URLs, and an endpoint's URL may hold a key.
        return f"iidq:1:{signer.namespace}:{self._kind}:{signer.digest(name)}"
