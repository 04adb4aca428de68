"""What processes tell each other through Postgres: that there is work, that a job was cancelled, that one changed.

Hints alone: whoever misses one looks for itself in time.
"""

import json
from collections.abc import Iterable, Sequence
from uuid import UUID

from psycopg.sql import SQL, Identifier

from iidq.database.connections import Connection
from iidq.database.queries import QUERIES

# What an announcement says: whoever is first responder may answer, or all who have room.
TO_FIRST = ""
TO_ALL = "rest"


async def announce(connection: Connection, payload: str = TO_FIRST) -> None:
    """Tell listening workers that there may be something to claim."""
    await connection.execute(QUERIES["announce"], {"payload": payload})


# Where announcements of work, ids of cancelled jobs, watchers' calls, and ids of changed jobs are heard.
JOBS_CHANNEL = "iidq_jobs"
CANCELLED_CHANNEL = "iidq_cancelled"
WATCHING_CHANNEL = "iidq_watching"
CHANGED_CHANNEL = "iidq_changed"
WORK_CHANNELS = (JOBS_CHANNEL, CANCELLED_CHANNEL)


async def listen(connection: Connection, echo_channel: str, channels: Iterable[str] = WORK_CHANNELS) -> None:
    """Subscribe this connection to ``channels`` and to its own echo."""
    for channel in (*channels, echo_channel):
        await connection.execute(SQL(QUERIES["listen"].decode()).format(channel=Identifier(channel)))


async def echo(connection: Connection, echo_channel: str) -> None:
    """Notify oneself, to hear whether one hears."""
    await connection.execute(QUERIES["echo"], {"channel": echo_channel})


async def announce_watching(connection: Connection) -> None:
    """Ask workers to tell of the changes they make."""
    await connection.execute(QUERIES["announce_watching"])


# A payload of NOTIFY may have 8,000 bytes; an id and its comma have 37.
_CHANGES_PER_PAYLOAD = 100


async def announce_changes(connection: Connection, job_ids: Sequence[UUID]) -> None:
    """Tell whoever watches that these jobs changed."""
    payloads = [
        ",".join(map(str, job_ids[start : start + _CHANGES_PER_PAYLOAD]))
        for start in range(0, len(job_ids), _CHANGES_PER_PAYLOAD)
    ]
    await connection.execute(QUERIES["announce_changes"], {"payloads": json.dumps(payloads)})
