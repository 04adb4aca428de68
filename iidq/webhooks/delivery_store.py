"""One function per transition of a delivery; the functions take a connection, do not retry, and may be repeated."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from psycopg.rows import tuple_row

from iidq.database.connections import Connection
from iidq.database.queries import load_queries
from iidq.webhooks.delivery import Delivery, DeliveryResult

QUERIES = load_queries("iidq.webhooks")


class Outlook(NamedTuple):
    """When deliveries are due."""

    due_seconds: float | None
    """Seconds until the next delivery is due, zero or less if one is due now; None without pending deliveries."""
    waiting: bool
    """Whether unfinished jobs have a callback."""


async def poll(connection: Connection) -> Outlook:
    """Return when the next delivery is due."""
    cursor = await connection.execute(QUERIES["poll_deliveries"])
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
    """Claim up to ``slots`` due deliveries for ``lease_seconds``.

    ``running`` counts the running deliveries by host. ``only`` restricts the claim to deliveries of the given jobs.
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
    """Return up to ``limit`` jobs with a due delivery."""
    cursor = await connection.execute(QUERIES["due_deliveries"], {"limit": limit})
    return [job_id for (job_id,) in await cursor.fetchall()]


async def refuse(connection: Connection, job_id: UUID, *, error: str) -> None:
    """Give up a delivery because its row refuses every claim."""
    await connection.execute(QUERIES["refuse_delivery"], {"job_id": job_id, "error": error})


async def settle(connection: Connection, delivery: Delivery, result: DeliveryResult) -> bool:
    """Store the result of the attempt; return False after a newer attempt or another end of the job."""
    cursor = await connection.execute(
        QUERIES["settle_delivery"],
        {
            "job_id": delivery.job_id,
            "event_id": delivery.event_id,
            "attempt": delivery.attempt,
            "state": result.state.value,
            "delay_seconds": result.delay_seconds,
            "status": result.status,
            "error": result.error,
        },
    )
    return cursor.rowcount == 1


async def release(connection: Connection, unfinished: Sequence[Delivery]) -> None:
    """Make unfinished attempts due at once, without counting them."""
    rows = [
        {"job_id": str(delivery.job_id), "event_id": str(delivery.event_id), "attempt": delivery.attempt}
        for delivery in sorted(unfinished, key=lambda delivery: delivery.job_id.int)
    ]
    await connection.execute(QUERIES["release_deliveries"], {"unfinished": json.dumps(rows)})
