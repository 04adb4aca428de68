"""Changes that time alone brings: expired leases, due retries, removal of old jobs. In bounded batches."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from iidq.database.connections import Connection
from iidq.database.faults import Faults
from iidq.database.pool import Database
from iidq.database.queries import load_queries
from iidq.database.sqlstates import may_be_of_one_row
from iidq.observability import logs, metrics
from iidq.queue import store
from iidq.queue.row_faults import each_apart, end_refused
from iidq.queue.store import Sweep, WorkerSigns
from iidq.settings import Settings

QUERIES = load_queries("iidq.queue")

SWEEP_BATCH = 1000
_PURGE_BATCH = 1000
_PURGE_INTERVAL_SECONDS = 60.0
_BETWEEN_BATCHES_SECONDS = 0.05
_DAY_SECONDS = 86_400.0
# How long rows that refuse to be removed are left out.
_KEPT_SECONDS = 3600.0
_FOREVER_SECONDS = float(100 * 365 * 86_400)
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
"""Begin of the history, for the first batch of a purge."""

Removed = tuple[int, datetime | None]
"""Number of removed jobs and creation time of the last one: the ``from_time`` of the next batch."""


async def sweep(database: Database, signs: WorkerSigns) -> Sweep:
    """Run a bounded sweep; end a job as failed if the row refuses the change."""
    try:
        return await _sweep(database, signs)
    except Exception as error:
        if not may_be_of_one_row(error):
            raise

    async def refuse(job_id: UUID, error: Exception) -> None:
        await end_refused(database, "sweep", job_id, error, worker_id=signs.worker_id)

    ids = await database.run(lambda connection: store.overdue(connection, batch=SWEEP_BATCH))
    await each_apart(ids, lambda some: _sweep(database, signs, some), refuse)
    return await _sweep(database, signs, [])


async def _sweep(database: Database, signs: WorkerSigns, only: Sequence[UUID] | None = None) -> Sweep:
    seen = await database.run(lambda connection: store.sweep(connection, signs, batch=SWEEP_BATCH, only=only))
    for job_id, attempt, status in seen.expired:
        logs.lease_expired(job_id, attempt, status)
    if seen.expired:
        metrics.leases_expired(len(seen.expired))
    return seen


class Retention:
    """Removes jobs that ended long ago, once a minute, batch by batch until none is left to remove."""

    def __init__(self, settings: Settings) -> None:
        self._completed_seconds = _seconds(settings.retention_completed_days)
        self._failed_seconds = _seconds(settings.retention_failed_days)
        self._keep = settings.retention_completed_count
        self._from_time = EARLIEST
        self._faults = Faults()

    async def purge(self, database: Database) -> float:
        """Remove a batch; return the seconds to wait before the next call.

        A row that a rule of the operator keeps, such as a foreign key, is left out for an hour.
        """
        self._faults = database.faults
        try:
            removed, last_time = await database.run(self._remove_batch)
        except Exception as error:
            if not may_be_of_one_row(error):
                raise
            removed, last_time = await database.run(self._remove_apart)
            if last_time is not None and (removed or last_time > self._from_time):
                logs.purged(removed)
                self._from_time = last_time
                return _BETWEEN_BATCHES_SECONDS
        if removed:
            logs.purged(removed)
        if removed == _PURGE_BATCH and last_time is not None:
            self._from_time = last_time
            return _BETWEEN_BATCHES_SECONDS
        self._from_time = EARLIEST
        return _PURGE_INTERVAL_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311

    async def _remove_batch(self, connection: Connection) -> Removed:
        async with connection.transaction():
            if not await _lock_retention(connection):
                return 0, None
            return await self._remove(connection)

    async def _remove(self, connection: Connection, only: Sequence[UUID] | None = None) -> Removed:
        kept = self._faults.refused_rows("retention", _KEPT_SECONDS)
        removed, last_time = await purge(
            connection,
            completed_seconds=self._completed_seconds,
            failed_seconds=self._failed_seconds,
            batch=_PURGE_BATCH,
            from_time=self._from_time,
            only=only,
            without=kept,
        )
        if removed or self._keep is None:
            return removed, last_time
        return await purge_excess(
            connection, keep=self._keep, batch=_PURGE_BATCH, from_time=self._from_time, only=only, without=kept
        )

    async def _remove_apart(self, connection: Connection) -> Removed:
        """Remove a batch without the rows that refuse the deletion.

        Return the number, and the creation time of the last job looked at, or None at the end of the history.
        """
        removed = 0

        async def remove(ids: Sequence[UUID]) -> None:
            nonlocal removed
            async with connection.transaction():
                some = await self._remove(connection, ids)
                await connection.execute(QUERIES["check_deferred_rules"])
            removed += some[0]

        async def refuse(job_id: UUID, error: Exception) -> None:
            self._faults.row_refused("retention", job_id, error)

        async with connection.transaction():
            if not await _lock_retention(connection):
                return 0, None
            kept = self._faults.refused_rows("retention", _KEPT_SECONDS)
            oldest = await oldest_ended(connection, batch=_PURGE_BATCH, from_time=self._from_time, without=kept)
            await each_apart([job_id for job_id, _ in oldest], remove, refuse)
        return removed, oldest[-1][1] if len(oldest) == _PURGE_BATCH else None


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * _DAY_SECONDS


async def _lock_retention(connection: Connection) -> bool:
    """Return whether this transaction may remove jobs; another worker may not until the end."""
    return await (await connection.execute(QUERIES["lock_retention"])).fetchone() == (True,)


async def purge(
    connection: Connection,
    *,
    completed_seconds: float | None,
    failed_seconds: float | None,
    batch: int,
    from_time: datetime = EARLIEST,
    only: Sequence[UUID] | None = None,
    without: Sequence[UUID] = (),
) -> Removed:
    """Delete up to ``batch`` jobs that ended longer ago than the given seconds; None keeps jobs for ever.

    ``only`` restricts the deletion to ids; ``without`` leaves ids out.
    """
    return await _delete(
        connection,
        "purge",
        completed_seconds=_FOREVER_SECONDS if completed_seconds is None else completed_seconds,
        failed_seconds=_FOREVER_SECONDS if failed_seconds is None else failed_seconds,
        batch=batch,
        from_time=from_time,
        only=only,
        without=list(without),
    )


async def purge_excess(
    connection: Connection,
    *,
    keep: int,
    batch: int,
    from_time: datetime = EARLIEST,
    only: Sequence[UUID] | None = None,
    without: Sequence[UUID] = (),
) -> Removed:
    """Delete up to ``batch`` of the oldest completed and cancelled jobs beyond the newest ``keep``, as purge does."""
    return await _delete(
        connection, "purge_excess", keep=keep, batch=batch, from_time=from_time, only=only, without=list(without)
    )


async def _delete(connection: Connection, name: str, **parameters: Any) -> Removed:
    row = await (await connection.execute(QUERIES[name], parameters)).fetchone()
    assert row is not None
    return row[0], row[1]


async def oldest_ended(
    connection: Connection, *, batch: int, from_time: datetime, without: Sequence[UUID] = ()
) -> list[tuple[UUID, datetime]]:
    """Return the oldest ended jobs from ``from_time`` on, each with its creation time."""
    parameters = {"batch": batch, "from_time": from_time, "without": list(without)}
    cursor = await connection.execute(QUERIES["oldest_ended"], parameters, prepare=False)
    return [(job_id, created_at) for job_id, created_at in await cursor.fetchall()]
