"""What the operations page shows at the top: counts, ages and workers now; rates, durations and failures lately."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import class_row

from iidq.database.connections import Connection
from iidq.database.queries import QUERIES

MOST_WORKERS: Final = 200
MOST_CAUSES: Final = 50
MOST_COUNTED: Final = 1_001
"""Failures of one cause are counted up to here: one more than is told exactly."""
SAMPLE_PER_MINUTE: Final = 100
"""Jobs per minute that durations are taken from."""


@dataclass(frozen=True, slots=True)
class Head:
    """The queue now, by the database's clock ``at``; ages are None where nothing stands there.

    ``active`` counts the jobs that workers hold, ``running`` the slots of live workers in use: it is never above
    ``slots``. The difference has ended and is about to be stored.
    """

    at: datetime
    state: str
    pause_reason: str | None
    paused_at: datetime | None
    waiting: int
    delayed: int
    active: int
    completed: int
    failed: int
    cancelled: int
    oldest_waiting_seconds: float | None
    next_due_at: datetime | None
    oldest_active_seconds: float | None
    expired_leases: int
    workers: int
    slots: int
    running: int
    listening_workers: int
    upkeep_age_seconds: float | None


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker process, or only leases of one that nobody knows any more (then ``host`` is None).

    ``leases`` counts the jobs that it holds; ``running`` is how many of ``concurrency`` slots they fill.
    ``lease_seconds`` is how long the lease that ends first still holds; below zero it ran out.
    """

    worker_id: str
    host: str | None
    pid: int | None
    version: str | None
    concurrency: int | None
    listening: bool | None
    started_at: datetime | None
    alive: bool
    seen_seconds: float | None
    leases: int
    running: int | None
    lease_seconds: float | None


@dataclass(frozen=True, slots=True)
class MinuteRates:
    """Jobs asked for, completed and failed in one minute."""

    minute: datetime
    enqueued: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class MinuteDurations:
    """Median and 95th percentile, in seconds, of the sampled jobs of one minute; None where none tells."""

    minute: datetime
    waited: list[float] | None
    ran: list[float] | None


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Failed jobs that are kept, by cause: up to ``MOST_COUNTED`` in all and of the last hour, and the latest."""

    cause: str
    jobs: int
    lately: int
    latest_id: str
    latest_at: datetime
    latest_error: str


@dataclass(frozen=True, slots=True)
class Now:
    """What changes by the second."""

    head: Head
    workers: list[SeenWorker]


@dataclass(frozen=True, slots=True)
class Lately:
    """What changes by the minute, and costs more to read: some thousand rows."""

    rates: list[MinuteRates]
    durations: list[MinuteDurations]
    causes: list[FailureCause]


async def read_now(connection: Connection) -> Now:
    """Two small statements, as fast at any size of the history."""
    async with connection.cursor(row_factory=class_row(Head)) as cursor:
        await cursor.execute(QUERIES["overview"])
        head = await cursor.fetchone()
    assert head is not None
    async with connection.cursor(row_factory=class_row(SeenWorker)) as seen:
        await seen.execute(QUERIES["overview_workers"], {"most": MOST_WORKERS})
        return Now(head, await seen.fetchall())


async def read_lately(connection: Connection) -> Lately:
    """Three statements of bounded cost."""
    async with connection.cursor(row_factory=class_row(MinuteRates)) as rates:
        await rates.execute(QUERIES["overview_throughput"])
        throughput = await rates.fetchall()
    async with connection.cursor(row_factory=class_row(MinuteDurations)) as durations:
        await durations.execute(QUERIES["overview_durations"], {"sample": SAMPLE_PER_MINUTE})
        sampled = await durations.fetchall()
    async with connection.cursor(row_factory=class_row(FailureCause)) as causes:
        await causes.execute(QUERIES["overview_causes"], {"causes": MOST_CAUSES, "most": MOST_COUNTED})
        return Lately(throughput, sampled, await causes.fetchall())
