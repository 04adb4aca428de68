"""The connection to Redis: short time-outs, and a circuit for the whole process.

           a command fails or takes too long                no answer to the probe
    up ───────────────────────────────────────▶ suspected ─────────────────────────▶ open
    ▲                                               │ PING answered                    │ PING answered, every
    └───────────────────────────────────────────────┴──────────────────────────────────┘ half second

While the circuit is suspected or open, commands raise :class:`RedisUnavailable` at once. A slow answer (a busy event
loop, a cut connection) costs the present callers a time-out; the loss of Redis is noticed within a few
time-outs. :mod:`iidq.concurrency.circuit_breaker` probes by requests, this circuit in the background.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from iidq.concurrency.background import end_tasks, keep_running
from iidq.errors import RedisUnavailable, SettingsFault
from iidq.extras import install_command
from iidq.observability import logs, metrics
from iidq.setting_values.redis_url import Kind, parse_redis_url
from iidq.settings import Settings

T = TypeVar("T")

PROBE_SECONDS: Final = 0.5
_PROBE_ANSWER_SECONDS: Final = 1.0
_CALM_PROBE_SECONDS: Final = 5.0
_MOST_COMMANDS: Final = 64
_CLOSE_SECONDS: Final = 1.0
_PROBE_KEY: Final = "iidq:1:probe"
_PROBE_KEY_MS: Final = 60_000
# First words of Redis' errors; redis-py has classes for some errors, and removes their word.
_AWAY_WORDS: Final = ("LOADING", "READONLY", "NOAUTH", "WRONGPASS", "MASTERDOWN", "CLUSTERDOWN")
_AWAY_ERRORS: Final = ("ReadOnlyError", "MasterDownError", "ClusterDownError")
_FIRST_ANSWER_SECONDS: Final = 0.25


class State(StrEnum):
    """State of the circuit, as ``/readyz`` shows it."""

    UP = "up"
    OPEN = "open"
    OFF = "off"


class Redis:
    """Sends commands to Redis, each bounded in time; safe to share within one event loop."""

    def __init__(self, settings: Settings) -> None:
        # An optional package that takes 0.1 s to import.
        try:
            from redis.exceptions import RedisError, ResponseError

            from iidq.redis.redis_client import RedisClients
        except ImportError:
            raise SettingsFault(f"REDIS_URL needs the package redis: {install_command('redis')}") from None
        self.faults: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
        """Errors of redis-py, for callers that use a client without :meth:`run`."""
        self._redis_error = RedisError
        self._response_error = ResponseError
        address = parse_redis_url(settings.redis_url or "")
        self.is_cluster = address.kind is Kind.CLUSTER
        """Whether commands on several keys must be split."""
        self._timeout_seconds = settings.redis_timeout_ms / 1000
        probe_seconds = max(_PROBE_ANSWER_SECONDS, 2 * self._timeout_seconds)
        self._probe_seconds = probe_seconds
        self.clients = RedisClients(address, connect_seconds=probe_seconds, answer_seconds=probe_seconds)
        self._closed = False
        self._state = State.OPEN
        self._since = datetime.now(UTC)
        self._loss_logged = False
        self._refusal_logged = False
        self._running = 0
        self._suspected = asyncio.Event()
        self._suspected.set()
        self._came_back = asyncio.Event()
        self._fault: BaseException | None = None

    @property
    def available(self) -> bool:
        """Whether the circuit is closed, so that commands are sent."""
        return self._closed

    @property
    def state(self) -> State:
        """Up or open; a suspicion does not change it."""
        return self._state

    @property
    def since(self) -> datetime:
        """Time of the last change of ``state``, by the clock of this host."""
        return self._since

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run ``work`` with redis-py's client within ``REDIS_TIMEOUT_MS``; raise :class:`RedisUnavailable`.

        ``work`` sends a command or a pipeline. Redis may have executed the command in spite of the error.
        """
        if not self._closed or self._running >= _MOST_COMMANDS:
            metrics.redis_command("refused")
            raise RedisUnavailable("Redis is away" if not self._closed else "too many commands wait for Redis")
        self._running += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await work(self.clients.commands)
        except TimeoutError as error:
            self._suspect(error)
            raise RedisUnavailable("Redis took too long") from None
        except (self._redis_error, OSError) as error:
            if isinstance(error, self._response_error) and not _means_away(error):
                self._refused(error)
            else:
                self._suspect(error)
            raise RedisUnavailable("Redis did not do it") from error
        finally:
            self._running -= 1
        metrics.redis_command("answered")
        return answer

    async def until_available(self) -> None:
        """Wait until the circuit is closed."""
        while not self._closed:
            self._came_back.clear()
            await self._came_back.wait()

    async def watch(self) -> None:
        """Probe until cancelled: at once on a suspicion, every half second while the circuit is open."""
        while True:
            self._suspected.clear()
            answered = await self._probe()
            if answered and not self._suspected.is_set():
                self._set_up()
            elif not answered:
                self._set_open()
            pause = _CALM_PROBE_SECONDS if self._closed else PROBE_SECONDS * random.uniform(0.7, 1.0)  # noqa: S311
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    if self._state is State.UP:
                        await self._suspected.wait()
                    else:
                        await asyncio.sleep(pause)

    async def aclose(self) -> None:
        """Close the connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.clients.aclose()

    async def _probe(self) -> bool:
        seconds = self._timeout_seconds if self._state is State.UP else self._probe_seconds
        try:
            if not self._closed:
                await self.clients.drop_connections()
            # The first probe may open a connection; the second must answer within the time-out of a command.
            for limit in (self._probe_seconds if self._state is not State.UP else 2 * seconds, self._timeout_seconds):
                async with asyncio.timeout(limit):
                    # A write, since a replica answers PING as well.
                    await self.clients.commands.set(_PROBE_KEY, b"", px=_PROBE_KEY_MS)
        except (self._redis_error, OSError, TimeoutError) as error:
            self._fault = error
            return isinstance(error, self._response_error) and not _means_away(error)
        return True

    def _suspect(self, error: BaseException) -> None:
        metrics.redis_command("failed")
        self._closed = False
        self._fault = error
        self._suspected.set()

    def _refused(self, error: BaseException) -> None:
        """Log the first refusal of a command by a healthy Redis, above all of a write while its memory is full."""
        metrics.redis_command("failed")
        if not self._refusal_logged:
            self._refusal_logged = True
            logs.redis_refuses(error)

    def _set_up(self) -> None:
        self._closed = True
        self._came_back.set()
        if self._state is not State.UP:
            before = self._since
            self._state, self._since = State.UP, datetime.now(UTC)
            self._loss_logged, self._refusal_logged = True, False
            logs.redis_up((self._since - before).total_seconds())
            metrics.redis_changed("up", self._since.timestamp())

    def _set_open(self) -> None:
        self._closed = False
        if self._state is State.UP:
            self._state, self._since = State.OPEN, datetime.now(UTC)
        elif self._loss_logged:
            return
        self._loss_logged = True
        logs.redis_lost(self._fault)
        metrics.redis_changed("open", self._since.timestamp())


def _means_away(error: BaseException) -> bool:
    """Return whether the server is useless: loading, a replica, locked, or without its master or slots."""
    return type(error).__name__ in _AWAY_ERRORS or str(error).startswith(_AWAY_WORDS)


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[Redis | None]:
    """Open a watched :class:`Redis`, or None without ``REDIS_URL``. Wait up to 0.25 s for the first answer."""
    if settings.redis_url is None:
        yield None
        return
    redis = Redis(settings)
    watching = keep_running(redis.watch, "redis")
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_ANSWER_SECONDS):
                await redis.until_available()
        yield redis
    finally:
        await end_tasks([watching])
        await redis.aclose()
