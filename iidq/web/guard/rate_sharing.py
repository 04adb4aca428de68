"""Share the counts of rate limits between API processes, so that a limit holds for all processes together.

Requests never wait for sharing: each process decides by local counts. Every ``EXCHANGE_SECONDS`` a small statement adds
new local counts to the shared counts and reads the totals of the same clients. A process without new counts sends
nothing.

Another process receives a count after at most two exchanges. Several processes together therefore admit at most the
limit and the requests of two exchanges; a single process never admits more than the limit. While the shared counts are
unreachable, each process continues with local counts.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from typing import Final

from iidq.concurrency.background import end_tasks, keep_running
from iidq.database.faults import Faults
from iidq.database.pool import Database
from iidq.database.queries import load_queries
from iidq.database.steady import try_step
from iidq.rate_window import BUCKET_SECONDS, BUCKETS, KeyedCount, SharedCounts
from iidq.web.guard.rate_limits import Addition, RateLimits, SharedClock, SlidingWindow

QUERIES = load_queries("iidq.web.guard")

EXCHANGE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 5.0
_LARGEST_EXCHANGE: Final = 1000
_PURGE_SECONDS: Final = 30.0
_PURGE_BATCH: Final = 10_000
# Clocks of API hosts may differ by one window before a needed count is removed.
_KEPT_BUCKETS: Final = 2 * BUCKETS


class PostgresCounts:
    """:class:`SharedCounts` in the table iidq_rate_count."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, additions: Sequence[KeyedCount], *, since_bucket: int) -> tuple[list[KeyedCount], float | None]:
        """Run one statement, once: a repetition would count twice."""
        parameters = {
            "keys": [addition.key for addition in additions],
            "steps": [addition.bucket for addition in additions],
            "requests": [addition.requests for addition in additions],
            "since_step": since_bucket,
        }
        async with self._database.connection() as connection:
            rows = await (await connection.execute(QUERIES["share_rates"], parameters)).fetchall()
        totals: dict[tuple[bytes, int], int] = {}
        for key, bucket, count, _ in rows:
            totals[key, bucket] = max(count, totals.get((key, bucket), 0))
        now = next((clock for *_, clock in rows if clock is not None), None)
        return [KeyedCount(key, bucket, count) for (key, bucket), count in totals.items()], now

    async def purge(self, *, before_bucket: int) -> None:
        """Remove older counts in bounded batches."""
        removed = _PURGE_BATCH
        while removed == _PURGE_BATCH:
            async with self._database.connection() as connection:
                parameters = {"before_step": before_bucket, "batch": _PURGE_BATCH}
                removed = (await connection.execute(QUERIES["purge_rates"], parameters)).rowcount


class RateSharing:
    """Share the counts of ``limits`` with the other processes."""

    def __init__(self, limits: RateLimits, clock: SharedClock, shared: SharedCounts, faults: Faults) -> None:
        self._faults = faults
        self._limits = limits
        self._clock = clock
        self._shared = shared
        self._next_purge = 0.0

    async def run(self) -> None:
        """Exchange counts until cancelled, at growing intervals while the shared counts are unreachable."""
        pause_seconds = EXCHANGE_SECONDS
        while True:
            await asyncio.sleep(pause_seconds * random.uniform(0.8, 1.0))  # noqa: S311
            longer_seconds = min(_LONGEST_PAUSE_SECONDS, 2 * pause_seconds)
            failed = await try_step(self._faults, "rate limits", self.exchange(), longer_seconds)
            pause_seconds = longer_seconds if failed else EXCHANGE_SECONDS

    async def exchange(self) -> None:
        """Send new counts and take over the totals of the same clients. Raise the errors of :class:`SharedCounts`."""
        shared = False
        for kind, window in self._limits.windows.items():
            # Counts that arrive meanwhile wait for the next exchange.
            for _ in range(math.ceil(window.unshared_clients / _LARGEST_EXCHANGE)):
                additions = window.take_unshared(_LARGEST_EXCHANGE)
                shared = True
                try:
                    await self._exchange(kind, window, additions)
                except BaseException:
                    window.give_back(additions)
                    raise
        if shared and time.monotonic() >= self._next_purge:
            self._next_purge = time.monotonic() + _PURGE_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311
            await self._shared.purge(before_bucket=self._present_bucket() - _KEPT_BUCKETS)

    async def _exchange(self, kind: str, window: SlidingWindow, additions: Sequence[Addition]) -> None:
        clients = {_key(kind, addition.client): addition.client for addition in additions}
        totals, now = await self._shared.add(
            [KeyedCount(_key(kind, client), bucket, requests) for client, bucket, requests in additions],
            since_bucket=self._present_bucket() - BUCKETS,
        )
        if now is not None:
            self._clock.set(now)
        counts: dict[str, dict[int, int]] = {}
        for key, bucket, requests in totals:
            counts.setdefault(clients[key], {})[bucket] = requests
        for client, by_bucket in counts.items():
            window.learn(client, by_bucket)

    def _present_bucket(self) -> int:
        return int(self._clock.now() // BUCKET_SECONDS)


def _key(kind: str, client: str) -> bytes:
    return blake2b(f"{kind} {client}".encode(), digest_size=16).digest()


@contextlib.asynccontextmanager
async def sharing(
    limits: RateLimits, clock: SharedClock, shared: SharedCounts, database: Database
) -> AsyncIterator[None]:
    """Exchange counts within the block, if there is any limit."""
    if not limits.enforced:
        yield
        return
    task = keep_running(RateSharing(limits, clock, shared, database.faults).run, "rate sharing")
    try:
        yield
    finally:
        await end_tasks([task])
