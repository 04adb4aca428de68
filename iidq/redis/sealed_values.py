"""Small values in Redis, sealed and with an end. Nothing here raises or waits long: what is not there is missing."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from iidq.errors import RedisUnavailable
from iidq.observability import metrics
from iidq.redis.key import SharedKey
from iidq.redis.redis_connection import Redis
from iidq.redis.sealing import Seal

LARGEST_BYTES: Final = 256 << 10
"""What is larger is not kept in Redis."""


class SealedValues:
    """Values of one kind under ``iidq:1:<namespace>:<kind>:…``, each for ``lasts_seconds``."""

    def __init__(self, redis: Redis, key: SharedKey, use: str, kind: str, lasts_seconds: float) -> None:
        self._redis = redis
        self._key = key
        self._use = use
        self._kind = kind
        self._lasts_seconds = lasts_seconds

    async def get(self, name: str) -> bytes | None:
        """The value, if it is there, ours and not over."""
        return (await self.get_many([name]))[0]

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """The values of all names, asked for at once."""
        seal = self._key.seal
        if seal is None or not self._redis.available:
            return [None] * len(names)
        keys = [self._key_of(seal, name) for name in names]

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
        return [self._opened(seal, key, sealed) for key, sealed in zip(keys, kept, strict=True)]

    async def put(self, name: str, value: bytes, *, only_if_new: bool = False) -> None:
        """Keep it for as long as its kind lasts; not if it is too large."""
        await self.put_many({name: value}, only_if_new=only_if_new)

    async def put_many(self, values: Mapping[str, bytes], *, only_if_new: bool = False) -> None:
        """The same for several."""
        milliseconds = int(self._lasts_seconds * 1000)
        seal = self._key.seal
        if seal is None or milliseconds < 1 or not self._redis.available:
            return
        now, lasts_seconds = time.time(), milliseconds / 1000
        sealed = {
            (key := self._key_of(seal, name)): seal.close(key, value, now=now, lasts_seconds=lasts_seconds)
            for name, value in values.items()
            if len(value) <= LARGEST_BYTES
        }

        async def write(client: Any) -> None:
            if len(sealed) == 1:
                [(key, value)] = sealed.items()
                await client.set(key, value, px=milliseconds, nx=only_if_new)
                return
            async with client.pipeline(transaction=False) as pipeline:
                for key, value in sealed.items():
                    pipeline.set(key, value, px=milliseconds, nx=only_if_new)
                await pipeline.execute()

        if sealed:
            try:
                await self._redis.run(write)
            except RedisUnavailable:
                return

    def _opened(self, seal: Seal, key: str, sealed: Any) -> bytes | None:
        if not isinstance(sealed, bytes):
            metrics.redis_read(self._use, "miss")
            return None
        value = seal.open(key, sealed, now=time.time(), lasts_seconds=self._lasts_seconds)
        metrics.redis_read(self._use, "rejected" if value is None else "hit")
        return value

    def _key_of(self, seal: Seal, name: str) -> str:
        # Digested: questions name URLs, and an endpoint's may carry a key.
        return f"iidq:1:{seal.namespace}:{self._kind}:{seal.digest(name)}"
