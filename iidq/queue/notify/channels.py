"""Channels of hints between processes through Postgres: new work, cancelled jobs, changed jobs.

A hint may be lost. Every receiver also polls.
"""

import json
from collections.abc import Iterable, Sequence
from uuid import UUID

from psycopg.sql import SQL, Identifier

from iidq.database.connections import Connection
from iidq.database.queries import load_queries

QUERIES = load_queries("iidq.queue")

JOBS_CHANNEL = "iidq_jobs"
"""There may be something to claim; the payload is WAKE_ONE or WAKE_ALL."""
CANCELLED_CHANNEL = "iidq_cancelled"
"""Ids of running jobs that were cancelled."""
WATCHING_CHANNEL = "iidq_watching"
"""Clients watch jobs; workers report changes for a while."""
CHANGED_CHANNEL = "iidq_changed"
"""Ids of changed jobs, comma-separated."""
WORK_CHANNELS = (JOBS_CHANNEL, CANCELLED_CHANNEL)

WAKE_ONE = ""
"""Only the designated worker claims."""
WAKE_ALL = "rest"
"""Every worker with a free slot claims."""

# A payload of NOTIFY may have 8,000 bytes; an id and its comma take 37.
_CHANGES_PER_PAYLOAD = 100


async def announce(connection: Connection, payload: str = WAKE_ONE) -> None:
    """Notify workers that there may be something to claim."""
    await connection.execute(QUERIES["announce"], {"payload": payload})


async def announce_watching(connection: Connection) -> None:
    """Request reports of changes from the workers."""
    await connection.execute(QUERIES["announce_watching"])


async def announce_changes(connection: Connection, job_ids: Sequence[UUID]) -> None:
    """Notify watchers of changed jobs."""
    payloads = [
        ",".join(map(str, job_ids[start : start + _CHANGES_PER_PAYLOAD]))
        for start in range(0, len(job_ids), _CHANGES_PER_PAYLOAD)
    ]
    await connection.execute(QUERIES["announce_changes"], {"payloads": json.dumps(payloads)})


async def listen(connection: Connection, echo_channel: str, channels: Iterable[str] = WORK_CHANNELS) -> None:
    """Subscribe the connection to ``channels`` and to the echo."""
    for channel in (*channels, echo_channel):
        await connection.execute(SQL(QUERIES["listen"].decode()).format(channel=Identifier(channel)))


async def echo(connection: Connection, echo_channel: str) -> None:
    """Notify a listener's own channel; a listener that misses the echo is deaf."""
    await connection.execute(QUERIES["echo"], {"channel": echo_channel})
