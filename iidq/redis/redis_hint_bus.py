"""Hints between processes through Redis' publish and subscribe: :class:`iidq.queue.notify.hint_bus.HintBus`.

Messages published during a command go with the next command. Unsigned messages are dropped. A silent subscription is
renewed, and every subscription after a loss of Redis.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from iidq.errors import RedisUnavailable
from iidq.observability import metrics
from iidq.redis.key import SharedKey
from iidq.redis.redis_connection import Redis, State
from iidq.redis.signer import Signer

_SETTLE_SECONDS: Final = 1.0
_PING_SECONDS: Final = 5.0
_MOST_PENDING: Final = 10_000
_LINES_PER_MESSAGE: Final = 500
_LASTS_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 0.5


class RedisRelay:
    """Publishes and receives on the given channels, with :meth:`send` in the background."""

    def __init__(self, redis: Redis, key: SharedKey, channels: Collection[str]) -> None:
        self._redis = redis
        self._key = key
        self._channels = frozenset(channels)
        self._pending: dict[str, list[str]] = {}
        self._pending_lines = 0
        self._asked = asyncio.Event()
        self._heard_channels: Collection[str] = ()
        self._subscribed = False

    def is_up(self, channel: str) -> bool:
        """Return whether messages on this channel are sent through Redis."""
        return channel in self._channels and self._redis.available and self._key.signer is not None

    def is_subscribed(self, channel: str) -> bool:
        """Return whether the subscription is active and Redis is up."""
        return self._subscribed and channel in self._heard_channels and self._redis.state is State.UP

    def publish(self, channel: str, payload: str) -> None:
        """Queue a message, unless Redis is away or the queue is full."""
        if not self.is_up(channel) or self._pending_lines >= _MOST_PENDING:
            return
        self._pending.setdefault(channel, []).append(payload)
        self._pending_lines += 1
        self._asked.set()

    async def send(self) -> None:
        """Send the queued messages until cancelled."""
        signer = await self._key.known()
        while True:
            await self._asked.wait()
            self._asked.clear()
            pending, self._pending, self._pending_lines = self._pending, {}, 0
            messages = [
                (_name(signer, channel), "\n".join(lines[first : first + _LINES_PER_MESSAGE]))
                for channel, lines in pending.items()
                for first in range(0, len(lines), _LINES_PER_MESSAGE)
            ]
            for name, text in messages:
                with contextlib.suppress(RedisUnavailable):
                    await self._publish(signer, name, text)

    async def publish_now(self, channel: str, payloads: Sequence[str]) -> bool:
        """Publish now; return False if Redis is away or no process has subscribed."""
        signer = self._key.signer
        if signer is None or not self.is_up(channel):
            return False
        heard_by = []
        for first in range(0, len(payloads), _LINES_PER_MESSAGE):
            text = "\n".join(payloads[first : first + _LINES_PER_MESSAGE])
            try:
                heard_by.append(await self._publish(signer, _name(signer, channel), text))
            except RedisUnavailable:
                return False
        # A node of a Cluster counts only its own subscribers.
        return self._redis.is_cluster or all(heard_by)

    async def _publish(self, signer: Signer, name: str, text: str) -> int:
        signed = signer.sign(name, text.encode(), now=time.time(), lasts_seconds=_LASTS_SECONDS)
        return int(await self._redis.run(partial(_publish, name=name, signed=signed)))

    async def run(self, heard: Mapping[str, Callable[[str], None]], connected: Callable[[], None]) -> None:
        """Receive until cancelled."""
        self._heard_channels = self._channels & heard.keys()
        if not self._heard_channels:
            return
        signer = await self._key.known()
        by_name = {_name(signer, channel): heard[channel] for channel in self._heard_channels}
        while True:
            await self._redis.until_available()
            with contextlib.suppress(*self._redis.faults):
                await self._hear(signer, by_name, connected)
            await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311

    async def _hear(
        self, signer: Signer, by_name: Mapping[str, Callable[[str], None]], connected: Callable[[], None]
    ) -> None:
        async with asyncio.timeout(_SETTLE_SECONDS):
            client = await self._redis.clients.subscriber()
        pubsub = client.pubsub()
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                await pubsub.subscribe(*by_name)
                for _ in by_name:
                    await pubsub.get_message(timeout=_SETTLE_SECONDS)
            self._subscribed = True
            connected()
            await self._listen(pubsub, signer, by_name)
        finally:
            self._subscribed = False
            with contextlib.suppress(*self._redis.faults):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await pubsub.aclose()
                    await client.aclose(close_connection_pool=True)

    async def _listen(self, pubsub: Any, signer: Signer, by_name: Mapping[str, Callable[[str], None]]) -> None:
        heard_at, pinged = time.monotonic(), False
        while self._redis.state is State.UP:
            message = await pubsub.get_message(timeout=1.0)
            now = time.monotonic()
            if message is not None:
                heard_at, pinged = now, False
                if message["type"] == "message":
                    name = message["channel"].decode()
                    _pass_on(signer, name, message["data"], by_name[name])
            elif now - heard_at > _PING_SECONDS:
                if pinged:
                    raise TimeoutError
                pinged, heard_at = True, now
                await pubsub.ping()


async def _publish(client: Any, name: str, signed: bytes) -> Any:
    return await client.publish(name, signed)


def _name(signer: Signer, channel: str) -> str:
    return f"iidq:1:{signer.namespace}:{channel}"


def _pass_on(signer: Signer, name: str, signed: bytes, call: Callable[[str], None]) -> None:
    value = signer.verify(name, signed, now=time.time(), lasts_seconds=_LASTS_SECONDS)
    if value is None:
        metrics.redis_read("messages", "rejected")
        return
    for line in value.decode().split("\n"):
        call(line)
