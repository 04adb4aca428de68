"""What time alone brings about: leases run out, retries fall due, old jobs are removed. In bounded batches."""

import random

from iidq import logs
from iidq.database import Database
from iidq.queue import store
from iidq.queue.store import Sweep
from iidq.settings import Settings

_SWEEP_BATCH = 1000
_PURGE_BATCH = 1000
_PURGE_INTERVAL_SECONDS = 60.0
_DAY_SECONDS = 86_400.0


async def sweep(database: Database) -> Sweep:
    """One bounded sweep; tells what it did and when the next event falls due."""
    seen = await database.run(lambda connection: store.sweep(connection, batch=_SWEEP_BATCH))
    for job_id, attempt, status in seen.expired:
        logs.lease_expired(job_id, attempt, status)
    return seen


class Retention:
    """Removes jobs that ended long ago, now and then, until nothing is left to remove."""

    def __init__(self, settings: Settings) -> None:
        self._completed_seconds = _seconds(settings.retention_completed_days)
        self._failed_seconds = _seconds(settings.retention_failed_days)

    async def purge(self, database: Database) -> float:
        """Remove one batch; return the seconds to wait before the next call."""
        removed = await database.run(
            lambda connection: store.purge(
                connection,
                completed_seconds=self._completed_seconds,
                failed_seconds=self._failed_seconds,
                batch=_PURGE_BATCH,
            )
        )
        if removed:
            logs.purged(removed)
        if removed == _PURGE_BATCH:
            return 0.1
        return _PURGE_INTERVAL_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * _DAY_SECONDS
