"""One function per transition of a delivery.

As in :mod:`iidq.queue.store`, functions take a connection, do not retry, and bear repetition.
"""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from psycopg.rows import tuple_row

from iidq.database.connections import Connection
from iidq.database.queries import QUERIES
from iidq.webhooks.delivery import Delivery, Settlement


class Outlook(NamedTuple):
    """In how many seconds the next delivery falls due (zero or less: now; None: none), and whether more may come."""

    due_seconds: float | None
    waiting: bool


async def look(connection: Connection) -> Outlook:
    """What there is to deliver."""
    cursor = await connection.execute(QUERIES["look_for_deliveries"])
    row = await cursor.fetchone()
    assert row is not None
    return Outlook(*row)


async def claim(
    connection: Connection,
    *,
    slots: int,
    per_host: int,
    running: Mapping[str, int],
    lease_seconds: float,
    only: Sequence[UUID] | None = None,
) -> list[Delivery]:
    """Take up to ``slots`` due deliveries for ``lease_seconds``; ``running`` counts by host those that still run.

    ``only``: none but those of these jobs.
    """
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(
            QUERIES["claim_deliveries"],
            {
                "slots": slots,
                "per_host": per_host,
                "running": json.dumps(running),
                "lease_seconds": lease_seconds,
                "only": only,
            },
        )
        return [Delivery(*row) for row in await cursor.fetchall()]


async def due(connection: Connection, limit: int) -> list[UUID]:
    """Return the jobs whose deliveries a claim would take."""
    cursor = await connection.execute(QUERIES["due_deliveries"], {"limit": limit})
    return [job_id for (job_id,) in await cursor.fetchall()]


async def refuse(connection: Connection, job_id: UUID, *, error: str) -> None:
    """Give up a delivery whose row cannot be claimed."""
    await connection.execute(QUERIES["refuse_delivery"], {"job_id": job_id, "error": error})


async def settle(connection: Connection, delivery: Delivery, settlement: Settlement) -> bool:
    """Store what became of the attempt; False: another attempt, or another end of the job, has come between."""
    cursor = await connection.execute(
        QUERIES["settle_delivery"],
        {
            "job_id": delivery.job_id,
            "event_id": delivery.event_id,
            "attempt": delivery.attempt,
            "state": settlement.state.value,
            "delay_seconds": settlement.delay_seconds,
            "status": settlement.status,
            "error": settlement.error,
        },
    )
    return cursor.rowcount == 1


async def release(connection: Connection, broken_off: Sequence[Delivery]) -> None:
    """Make attempts that were broken off due again at once, uncharged."""
    rows = [
        {"job_id": str(delivery.job_id), "event_id": str(delivery.event_id), "attempt": delivery.attempt}
        for delivery in sorted(broken_off, key=lambda delivery: delivery.job_id.int)
    ]
    await connection.execute(QUERIES["release_deliveries"], {"broken_off": json.dumps(rows)})
