"""The operators' transitions: cancel, retry, pause, resume."""

from datetime import datetime
from uuid import UUID

from psycopg import errors

from iidq.database.connections import Connection
from iidq.database.queries import load_queries

QUERIES = load_queries("iidq.queue")


async def cancel(connection: Connection, job_id: UUID) -> bool | None:
    """End a waiting or running job. Return False if the job had ended, None if it does not exist."""
    return await _change(connection, "cancel", job_id)


async def retry(connection: Connection, job_id: UUID) -> bool | None:
    """Put an ended job back in line. Return False if the job has not ended, None if it does not exist."""
    return await _change(connection, "retry", job_id)


async def retry_failures(
    connection: Connection, cause: str, *, batch: int, before: datetime | None = None
) -> tuple[list[UUID], datetime]:
    """Put the earliest ``batch`` failures of a cause back in line, up to the time ``before`` (None: now).

    Return the ids, and ``before`` for the next batch.
    """
    cursor = await connection.execute(QUERIES["retry_failures"], {"cause": cause, "before": before, "batch": batch})
    row = await cursor.fetchone()
    assert row is not None
    return row[1], row[0]


async def _change(connection: Connection, name: str, job_id: UUID) -> bool | None:
    try:
        cursor = await connection.execute(QUERIES[name], {"id": job_id})
    except errors.NoDataFound:
        return None
    row = await cursor.fetchone()
    assert row is not None
    return bool(row[0])


async def pause(connection: Connection, reason: str | None) -> None:
    """Stop all claims; running jobs continue."""
    await connection.execute(QUERIES["pause"], {"reason": reason})


async def resume(connection: Connection) -> None:
    """Allow claims, and wake the workers."""
    await connection.execute(QUERIES["resume"])
