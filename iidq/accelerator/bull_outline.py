"""Which jobs stand where, read from Postgres in one bounded statement: ids and versions, no rows."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from psycopg.rows import tuple_row

from iidq.accelerator.bull_keys import ENDED, BullState
from iidq.database import Connection
from iidq.queue.queries import QUERIES

MOST_LISTED: Final = 100_000
"""Of each state; of more waiting jobs than that, these are the first in line."""
# How far back, by creation, ended jobs are looked for; those that were seen in line or running are found anyway.
_NEWEST_LATELY: Final = 1_000
_NEWEST: Final = 10_000
# A transaction that ended a job may have begun so long before its commit.
_OVERLAP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended: the row's version, where it stands, and when it ended (ms since 1970)."""

    version: str
    state: BullState
    at_ms: int


@dataclass(frozen=True, slots=True)
class Outline:
    """The queue as one snapshot shows it; ``at`` is its time by the database's clock.

    ``waiting`` is in order, first in line first; ``delayed`` has the time at which each is due (ms since 1970).
    ``versions`` has those of all three.
    """

    at: datetime
    paused: bool
    waiting: list[str]
    active: list[str]
    delayed: dict[str, int]
    versions: dict[str, str]
    ended: dict[str, Ended] = field(default_factory=dict)


async def read_outline(connection: Connection, since: datetime | None, *, most_ended: int) -> tuple[Any, ...]:
    """The outline as Postgres tells it, for :func:`parse_outline`.

    It has the jobs that ended after ``since``, or the newest ``most_ended`` failed and the newest completed ones.
    """
    parameters = {
        "most": MOST_LISTED,
        "newest": _NEWEST if since is None else _NEWEST_LATELY,
        "since": since,
        "overlap_seconds": _OVERLAP_SECONDS,
        "most_failed": most_ended,
    }
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(QUERIES["outline"], parameters)
        row = await cursor.fetchone()
    assert row is not None
    return row


def parse_outline(row: tuple[Any, ...]) -> Outline:
    """The outline in Python's terms; of a hundred thousand jobs it takes a while."""
    at, paused, waiting, active, delayed, ended = row
    versions: dict[str, str] = {}

    def items(text: str | None) -> list[list[str]]:
        return [item.split(" ") for item in text.split(",")] if text else []

    def ids(text: str | None) -> list[str]:
        found = items(text)
        versions.update((job_id, version) for job_id, version in found)
        return [job_id for job_id, _ in found]

    due: dict[str, int] = {}
    waiting, active = ids(waiting), ids(active)
    for job_id, version, due_ms in items(delayed):
        versions[job_id] = version
        due[job_id] = int(due_ms)
    return Outline(
        at=at,
        paused=paused,
        waiting=waiting,
        active=active,
        delayed=due,
        versions=versions,
        ended={job_id: Ended(version, ENDED[status], int(at_ms)) for job_id, version, status, at_ms in items(ended)},
    )
