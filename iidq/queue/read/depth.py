"""How deep the queue is, how old what stands in it, and who works on it: what metrics and probes show."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from iidq.database.connections import Connection
from iidq.database.queries import QUERIES


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """One reading, by the database's clock.

    ``oldest_waiting_seconds`` is how long the first in line has been due, ``overdue_seconds`` how late a delayed job
    is put in line, ``oldest_active_seconds`` how long the longest running attempt takes; None where there is none.
    ``faults`` are what workers cannot do until an operator mends it.
    """

    waiting: int
    delayed: int
    active: int
    completed: int
    failed: int
    cancelled: int
    paused: bool
    oldest_waiting_seconds: float | None
    overdue_seconds: float | None
    oldest_active_seconds: float | None
    expired_leases: int
    workers: int
    slots: int
    listening_workers: int
    upkeep_age_seconds: float | None
    faults: Sequence[str] = ()


async def read_depth(connection: Connection) -> QueueDepth:
    """One query, as fast at any size of the history."""
    async with connection.cursor(row_factory=class_row(QueueDepth)) as cursor:
        await cursor.execute(QUERIES["queue_depth"])
        depth = await cursor.fetchone()
    assert depth is not None
    return depth
