"""The state of the whole queue: counts, ages and workers now; rates, durations and failures of the last hour.

Each statement costs the same at any size of the history, except :func:`miscounts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg.rows import class_row

from iidq.database.connections import Connection
from iidq.database.queries import load_queries

QUERIES = load_queries("iidq.queue")

MOST_WORKERS: Final = 200
MOST_CAUSES: Final = 50
MOST_COUNTED: Final = 1_001
"""Upper bound for counting the failures of a cause: above the largest number shown exactly."""
SAMPLE_PER_MINUTE: Final = 100
"""Jobs per minute from which durations are taken."""


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """The queue at one moment of the database's clock."""

    at: datetime
    """Time of the reading."""
    state: str
    """running, idle, paused, "no workers" or "idle, no workers", as in the view queue_health."""
    pause_reason: str | None
    """Reason that the operator gave; None while not paused or without one."""
    paused_at: datetime | None
    """When the queue was paused; None while not paused."""
    waiting: int
    """Jobs in line, ready for a claim."""
    delayed: int
    """Queued jobs with a run time in the future."""
    active: int
    """Jobs that workers hold leases of."""
    completed: int
    """Completed jobs that retention keeps."""
    failed: int
    """Failed jobs that retention keeps."""
    cancelled: int
    """Cancelled jobs that retention keeps."""
    oldest_waiting_seconds: float | None
    """How long the first job in line has been due; None without one."""
    next_due_at: datetime | None
    """Run time of the next delayed job; in the past while upkeep is late; None without one."""
    oldest_active_seconds: float | None
    """Duration of the longest running attempt so far; None without one."""
    expired_leases: int
    """Running jobs of silent workers; the next upkeep takes them back."""
    workers: int
    """Live worker processes."""
    slots: int
    """Jobs that all live workers together run at a time."""
    running: int
    """Slots in use, at most ``slots``. Less than ``active`` while outcomes are being stored or leases are lost."""
    listening_workers: int
    """Live workers that receive notifications of new jobs."""
    upkeep_age_seconds: float | None
    """Time since the last upkeep; None before the first."""
    faults: Sequence[str] = ()
    """Faults of workers for an operator to fix, a sentence each."""

    @property
    def paused(self) -> bool:
        """Whether operators have paused the queue."""
        return self.state == "paused"

    @property
    def overdue_seconds(self) -> float:
        """How long the next delayed job has been due; 0 while upkeep is in time."""
        return max(0.0, (self.at - self.next_due_at).total_seconds()) if self.next_due_at else 0.0


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker process, or leases without a worker's row (``host`` is None)."""

    worker_id: str
    """Host, process id and a random part: new at each start."""
    host: str | None
    """Host name."""
    pid: int | None
    """Process id on the host."""
    version: str | None
    """Version of iidq."""
    concurrency: int | None
    """Jobs that the worker runs at a time."""
    listening: bool | None
    """Whether it receives notifications of new jobs."""
    started_at: datetime | None
    """Start of the process."""
    alive: bool
    """Whether its last sign of life still counts."""
    seen_seconds: float | None
    """Time since its last sign of life."""
    leases: int
    """Jobs that it holds."""
    running: int | None
    """How many of its slots these jobs fill."""
    lease_seconds: float | None
    """Time until the first of its leases runs out, negative after; None without leases."""


@dataclass(frozen=True, slots=True)
class MinuteRates:
    """Throughput of one minute."""

    minute: datetime
    """Begin of the minute."""
    enqueued: int
    """Jobs inserted."""
    completed: int
    """Jobs completed."""
    failed: int
    """Jobs failed."""


@dataclass(frozen=True, slots=True)
class MinuteDurations:
    """Median and 95th percentile, in seconds, of up to ``SAMPLE_PER_MINUTE`` jobs inserted in one minute."""

    minute: datetime
    """Begin of the minute."""
    waited: list[float] | None
    """Time in line before the first attempt; None without a started job."""
    ran: list[float] | None
    """Time from the last start to the end; None without an ended job."""


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Failed jobs of one cause."""

    cause: str
    """Code at the beginning of the error, up to the colon."""
    jobs: int
    """Failed jobs that are kept, counted up to ``MOST_COUNTED``."""
    lately: int
    """How many of them failed within the last hour."""
    latest_id: UUID
    """Id of the latest one."""
    latest_at: datetime
    """When the latest one failed."""
    latest_error: str
    """Error of the latest one, up to 500 characters."""


@dataclass(frozen=True, slots=True)
class LiveOverview:
    """The part of the operations page that changes by the second."""

    health: QueueHealth
    """Counts and ages."""
    workers: list[WorkerRow]
    """Up to ``MOST_WORKERS`` workers, those that fell silent first."""


@dataclass(frozen=True, slots=True)
class RecentOverview:
    """The part of the operations page that changes by the minute; costs some thousand rows to read."""

    rates: list[MinuteRates]
    """Per minute of the last hour, oldest first."""
    durations: list[MinuteDurations]
    """Per minute of the last hour, oldest first."""
    causes: list[FailureCause]
    """Up to ``MOST_CAUSES``, the most frequent of the last hour first."""


async def read_health(connection: Connection) -> QueueHealth:
    """Read the state of the queue."""
    async with connection.cursor(row_factory=class_row(QueueHealth)) as cursor:
        await cursor.execute(QUERIES["queue_health"])
        health = await cursor.fetchone()
    assert health is not None
    return health


async def read_live_overview(connection: Connection) -> LiveOverview:
    """Read the health and the workers, in two small statements."""
    health = await read_health(connection)
    async with connection.cursor(row_factory=class_row(WorkerRow)) as workers:
        await workers.execute(QUERIES["overview_workers"], {"most": MOST_WORKERS})
        return LiveOverview(health, await workers.fetchall())


async def read_recent_overview(connection: Connection) -> RecentOverview:
    """Read the last hour, in three statements of bounded cost."""
    async with connection.cursor(row_factory=class_row(MinuteRates)) as rates:
        await rates.execute(QUERIES["overview_throughput"])
        throughput = await rates.fetchall()
    async with connection.cursor(row_factory=class_row(MinuteDurations)) as durations:
        await durations.execute(QUERIES["overview_durations"], {"sample": SAMPLE_PER_MINUTE})
        sampled = await durations.fetchall()
    async with connection.cursor(row_factory=class_row(FailureCause)) as causes:
        await causes.execute(QUERIES["overview_causes"], {"causes": MOST_CAUSES, "most": MOST_COUNTED})
        return RecentOverview(throughput, sampled, await causes.fetchall())


async def miscounts(connection: Connection) -> list[tuple[str, int, int]]:
    """Return the states with a wrong kept count: state, kept, real. Counts every job."""
    return await (await connection.execute(QUERIES["miscounts"], prepare=False)).fetchall()


async def probe(connection: Connection) -> None:
    """Raise an error of the database if the schema lacks anything that the present version needs."""
    await connection.execute(QUERIES["probe"])


async def is_read_only(connection: Connection) -> bool:
    """Return whether this server refuses writes at present: a standby, or set so."""
    row = await (await connection.execute(QUERIES["is_read_only"])).fetchone()
    assert row is not None
    return bool(row[0])


async def applied_migrations(connection: Connection) -> set[str]:
    """Return the names of all applied migrations, of this version and of any other."""
    cursor = await connection.execute(load_queries("iidq.database")["applied_migrations"])
    return {name for (name,) in await cursor.fetchall()}
