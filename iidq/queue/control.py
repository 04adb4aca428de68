"""What people do to jobs and to the queue: cancel, retry, pause, resume. One transition each, as in ``store.py``."""

from datetime import datetime
from uuid import UUID

from psycopg import errors

from iidq.database.connections import Connection
from iidq.database.queries import QUERIES


async def cancel(connection: Connection, job_id: UUID) -> bool | None:
    """End a waiting or running job. False: it had ended already. None: there is no such job."""
    return await _steer(connection, "cancel", job_id)


async def retry(connection: Connection, job_id: UUID) -> bool | None:
    """Put a job that ended back in line. False: it has not ended. None: there is no such job."""
    return await _steer(connection, "retry", job_id)


async def retry_failures(
    connection: Connection, cause: str, *, batch: int, before: datetime | None = None
) -> tuple[list[UUID], datetime]:
    """Put the earliest ``batch`` failures of one cause back in line: those that failed by ``before`` (None: by now).

    Returns their ids, and ``before`` for the next batch.
    """
    cursor = await connection.execute(QUERIES["retry_failures"], {"cause": cause, "before": before, "batch": batch})
    row = await cursor.fetchone()
    assert row is not None
    return row[1], row[0]


async def _steer(connection: Connection, name: str, job_id: UUID) -> bool | None:
    try:
        cursor = await connection.execute(QUERIES[name], {"id": job_id})
    except errors.NoDataFound:
        return None
    row = await cursor.fetchone()
    assert row is not None
    return bool(row[0])


async def pause(connection: Connection, reason: str | None) -> None:
    """Stop all claims; running jobs go on."""
    await connection.execute(QUERIES["pause"], {"reason": reason})


async def resume(connection: Connection) -> None:
    """Let claims go on, and wake the workers."""
    await connection.execute(QUERIES["resume"])
