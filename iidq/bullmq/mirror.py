"""Write the jobs in Postgres under BullMQ's keys in Redis, for tools of the replaced system.

Only the holder of a lease in Redis writes. Each round:

1. Take or prolong the lease (:meth:`BullMirror._hold`).
2. Every half minute, or after a fault, read the keys and repair changes by others (:meth:`BullMirror._check`).
3. Read an outline of the queue and the changed rows (``outline.py``, :func:`.plan.survey`).
4. Compute the difference to the keys (:func:`.plan.plan`) and write the commands, in a transaction if few.

The pause after a round grows with the round: the mirror uses a connection for about a twentieth of the time.
Postgres never changes: changes in Redis are only repaired.
"""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from iidq import __version__
from iidq.bullmq.keys import COUNTER, LISTS, META, OURS, SORTED_SETS, BullState
from iidq.bullmq.list_edits import Command
from iidq.bullmq.outline import Outline, outline_parameters, parse_outline
from iidq.bullmq.plan import MOST_ENDED, Plan, Shown, Survey, ownership, plan, survey
from iidq.concurrency.background import keep_running
from iidq.database.connections import Connection
from iidq.database.faults import Faults
from iidq.database.pool import Database, open_database
from iidq.database.queries import load_queries
from iidq.database.steady import wait_at_most
from iidq.errors import IidqError, RedisUnavailable
from iidq.observability import logs
from iidq.queue.job import Job
from iidq.queue.read import readers
from iidq.redis.redis_connection import Redis
from iidq.setting_values.redis_url import Kind, parse_redis_url
from iidq.settings import Settings

QUERIES = load_queries("iidq.bullmq")

LEASE_KEY: Final = "iidq:1:bull-keys"
LEASE_SECONDS: Final = 10.0
CHECK_SECONDS: Final = 30.0
"""Longest life of another client's change to the keys, in seconds."""
_BUSY_SECONDS: Final = 0.25
_IDLE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = LEASE_SECONDS / 2
# Pause after a round, as a multiple of its length; shorter while changes are left over.
_REST: Final = 19
_REST_BEHIND: Final = 4
_FOREIGN_SECONDS: Final = 30.0
_HASHES_PER_CHECK: Final = 500
_WORDS_PER_PIPELINE: Final = 2_000
_IDS_PER_READ: Final = 2_000
_ROWS_PER_READ: Final = 250
_GRACE_SECONDS: Final = 1.0

_TYPES: Final = {**dict.fromkeys(LISTS, b"list"), **dict.fromkeys(SORTED_SETS, b"zset")}


class BullMirror:
    """Writes the keys while holding the lease, until :meth:`stop`."""

    def __init__(self, settings: Settings, redis: Redis, database: Database) -> None:
        self._redis = redis
        self._database = database
        self._backoff_ms = settings.retry_backoff_ms
        # The keys of a Cluster are on several nodes: no transaction spans them.
        self._atomic = parse_redis_url(settings.redis_url or "").kind is not Kind.CLUSTER
        self._token = uuid.uuid4().hex
        self._stopping = asyncio.Event()
        self._shown: Shown | None = None
        self._since: datetime | None = None
        self._next_check = self._held_at = 0.0
        # The last round failed, perhaps after it had written a part.
        self._failed = False
        self._foreign_logged = False

    async def run(self) -> None:
        """Repeat rounds until stopped."""
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            began = clock()
            try:
                pause_seconds = await self._do_round(began)
            except Exception as error:
                self._failed = True
                pause_seconds = random.uniform(0.5, 1.5)  # noqa: S311
                if isinstance(error, RedisUnavailable):
                    # The connection logs that Redis is away; a Redis that is full gets a longer pause.
                    pause_seconds *= 3 if self._redis.available else 1
                elif isinstance(error, (IidqError, psycopg.Error)):
                    self._database.faults.failed("BullMQ keys", error, pause_seconds)
                else:
                    pause_seconds *= 5
                    logs.background_crashed("BullMQ keys", error, pause_seconds)
            else:
                self._database.faults.succeeded("BullMQ keys")
                rest = _REST if pause_seconds else _REST_BEHIND
                pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(pause_seconds, rest * (clock() - began)))
            await wait_at_most(self._stopping, pause_seconds)

    async def stop(self, run: asyncio.Task[None]) -> None:
        """End ``run`` and give up the lease."""
        self._stopping.set()
        await asyncio.wait([run], timeout=_GRACE_SECONDS)
        run.cancel()
        await asyncio.wait([run], timeout=_GRACE_SECONDS)
        if self._shown is not None:
            # If this fails, the lease runs out after LEASE_SECONDS.
            with contextlib.suppress(RedisUnavailable):
                if await self._send(("GET", LEASE_KEY)) == [self._token.encode()]:
                    await self._send(("DEL", LEASE_KEY))

    async def _do_round(self, now: float) -> float:
        """Do a round if the lease is free or held; return the seconds to pause."""
        if not await self._hold():
            self._shown = None
            return _IDLE_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311
        if self._shown is None:
            if await self._is_foreign():
                if not self._foreign_logged:
                    logs.bull_keys_foreign()
                self._foreign_logged = True
                return _FOREIGN_SECONDS
            self._shown, self._failed, self._foreign_logged = Shown(), True, False
            logs.bull_keys_kept()
        if self._failed or now >= self._next_check:
            if not self._failed:
                self._shown.doubt_hashes(_HASHES_PER_CHECK)
            self._shown, self._since = await self._check(self._shown), None
            self._next_check = now + CHECK_SECONDS
        pause_seconds = await self._show_changes(self._shown)
        self._failed = False
        return pause_seconds

    async def _show_changes(self, shown: Shown) -> float:
        surveyed, rows = await self._database.run(lambda connection: self._read(connection, shown))
        if asyncio.get_running_loop().time() > self._held_at + LEASE_SECONDS / 2 and not await self._hold():
            # Reading took long: another process holds the lease now.
            self._shown = None
            return _IDLE_SECONDS
        planned = await asyncio.to_thread(plan, shown, surveyed, rows, backoff_ms=self._backoff_ms)
        await self._write([*planned.hashes, *((command,) for command in planned.moves)])
        self._shown, self._since = planned.shown, surveyed.outline.at
        if surveyed.more:
            return 0.0
        return _BUSY_SECONDS if _is_busy(planned, surveyed.outline) else _IDLE_SECONDS

    async def _read(self, connection: Connection, shown: Shown) -> tuple[Survey, dict[str, tuple[str, Job] | None]]:
        async with connection.cursor(row_factory=tuple_row) as cursor:
            parameters = outline_parameters(self._since, most_failed=MOST_ENDED)
            # A plan for any bounds would read the whole history.
            await cursor.execute(QUERIES["outline"], parameters, prepare=False)
            row = await cursor.fetchone()
        assert row is not None
        surveyed = await asyncio.to_thread(lambda: survey(shown, parse_outline(row)))
        rows: dict[str, tuple[str, Job] | None] = {}
        for start in range(0, len(surveyed.to_read), _ROWS_PER_READ):
            some = dict.fromkeys(surveyed.to_read[start : start + _ROWS_PER_READ], "")
            for job_id, version, job in await readers.find_changed(connection, some):
                rows[job_id] = (version, job) if version is not None and job is not None else None
        return surveyed, rows

    async def _check(self, shown: Shown) -> Shown:
        """Read the lists and sets from Redis; take the hashes as written."""
        await self._write([(command,) for command in ownership(__version__)])
        held = await self._read_shown()
        held.versions, held.unresolved = shown.versions, shown.unresolved
        return held

    # Redis

    async def _hold(self) -> bool:
        """Take or prolong the lease; return False while another process holds it."""
        seconds = int(LEASE_SECONDS)
        taken, holder = await self._send(
            ("SET", LEASE_KEY, self._token, "EX", seconds, "NX"), ("GET", LEASE_KEY), atomic=False
        )
        if holder != self._token.encode():
            return False
        if taken and self._shown is not None:
            # The lease had run out, or Redis was flushed: the content of the keys is unknown.
            self._shown = None
            return False
        await self._send(("EXPIRE", LEASE_KEY, seconds))
        self._held_at = asyncio.get_running_loop().time()
        return True

    async def _is_foreign(self) -> bool:
        """Return whether the keys belong to a real BullMQ queue, which must stay untouched."""
        ours, counter, *kinds = await self._send(
            ("HEXISTS", META, OURS), ("EXISTS", COUNTER), *(("TYPE", state.key) for state in BullState)
        )
        return not ours and (bool(counter) or any(kind != b"none" for kind in kinds))

    async def _read_shown(self) -> Shown:
        kinds = await self._send(*(("TYPE", state.key) for state in BullState))
        wrong = [
            state.key for state, kind in zip(BullState, kinds, strict=True) if kind not in (b"none", _TYPES[state])
        ]
        for key in wrong:
            await self._send(("DEL", key))
        (paused,) = await self._send(("HEXISTS", META, "paused"))
        return Shown(
            wait=await self._read_list(BullState.WAIT),
            active=await self._read_list(BullState.ACTIVE),
            delayed=await self._read_set(BullState.DELAYED),
            completed=await self._read_set(BullState.COMPLETED),
            failed=await self._read_set(BullState.FAILED),
            paused=bool(paused),
        )

    async def _read_list(self, state: BullState) -> list[str]:
        return [_text(item) async for some in self._pieces("LRANGE", state) for item in some]

    async def _read_set(self, state: BullState) -> dict[str, int]:
        held: dict[str, int] = {}
        # RESP 2: members and scores in turn.
        async for some in self._pieces("ZRANGE", state, "WITHSCORES"):
            held.update((_text(job_id), int(float(score))) for job_id, score in zip(some[::2], some[1::2], strict=True))
        return held

    async def _pieces(self, command: str, state: BullState, *words: str) -> AsyncIterator[list[bytes]]:
        start = 0
        while True:
            (some,) = await self._send((command, state.key, start, start + _IDS_PER_READ - 1, *words))
            if not some:
                return
            yield some
            start += _IDS_PER_READ

    async def _write(self, units: Sequence[Sequence[Command]]) -> None:
        """Send the commands in order, in few pipelines; a small difference is a transaction."""
        pipeline: list[Command] = []
        words = 0
        for unit in units:
            length = sum(map(len, unit))
            if pipeline and words + length > _WORDS_PER_PIPELINE:
                await self._send(*pipeline)
                pipeline, words = [], 0
            pipeline += unit
            words += length
        if pipeline:
            await self._send(*pipeline)

    async def _send(self, *commands: Command, atomic: bool | None = None) -> list[Any]:
        transaction = self._atomic if atomic is None else atomic

        async def send(client: Any) -> list[Any]:
            async with client.pipeline(transaction=transaction and len(commands) > 1) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return list(await pipe.execute())

        return await self._redis.run(send)


def _text(answer: bytes) -> str:
    # Another client may have written any bytes.
    return answer.decode(errors="replace")


def _is_busy(planned: Plan, outline: Outline) -> bool:
    return bool(planned.hashes or planned.moves or outline.active)


@asynccontextmanager
async def open_bull_mirror(
    settings: Settings, redis: Redis | None, faults: Faults | None = None
) -> AsyncIterator[None]:
    """Run a :class:`BullMirror` in the background if ``REDIS_BULL_KEYS`` is on."""
    if redis is None or settings.redis_bull_keys == "off":
        yield
        return
    async with open_database(settings, pool_size=1, faults=faults) as database:
        mirror = BullMirror(settings, redis, database)
        running = keep_running(mirror.run, "BullMQ keys")
        try:
            yield
        finally:
            await mirror.stop(running)
