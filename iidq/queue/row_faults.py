"""What one row's fault may cost: that job alone.

A value at the end of its type or a trigger of the operator's that raises fails the whole statement, and Postgres does
not say for which row. So the statement is repeated for halves of its rows until the row is alone. The others lose
nothing: a statement that failed has changed none of them.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg

from iidq.database.pool import Database
from iidq.database.sqlstates import concerns_one_row, fault_of_code, may_be_of_one_row
from iidq.errors import IidqError, RowRefused, TriggerFault
from iidq.queue import store
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.claiming import FROM_HEAD
from iidq.queue.store import Claim

Item = TypeVar("Item")

# How many rows that refuse every change, even their end as failed, a claim may find at the head of the line.
_LOOKED_PAST: Final = 250
# How long claims leave such rows out.
_REST_SECONDS: Final = 60.0


def refusal(error: BaseException, what: str) -> str:
    """The error of a job whose row refuses ``what``: it names the rule."""
    if isinstance(error, RowRefused):
        return f"{error} refuses {what}"
    return f"internal: the database refuses {what}; see the worker's log"


async def each_apart(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Awaitable[Any]],
    refused: Callable[[Item, Exception], Awaitable[None]],
) -> None:
    """Do ``work`` for all items; where one of them spoils it, for halves. ``refused`` gets each that fails alone.

    Raises an error that does not come from one row.
    """
    if not items:
        return
    try:
        await work(items)
    except Exception as error:
        if not may_be_of_one_row(error):
            raise
        if len(items) == 1:
            await refused(items[0], fault_of_code(error) or error)
            return
        middle = len(items) // 2
        await each_apart(items[:middle], work, refused)
        await each_apart(items[middle:], work, refused)


async def end_refused(
    database: Database, what: str, job_id: UUID, error: BaseException, *, worker_id: str, attempt: int | None = None
) -> bool:
    """Log why the row refuses ``what``, and end its job as failed; return whether that went through.

    Where code of the operator's fails, the job waits until it is mended.
    """
    database.faults.row_refused(what, job_id, error)
    if isinstance(error, TriggerFault):
        database.faults.failed(f"{what} of a job", error, _REST_SECONDS, 2 * _REST_SECONDS)
        return False
    try:
        return await database.run(
            lambda connection: store.refuse(
                connection, job_id, worker_id=worker_id, error=refusal(error, f"the {what}"), attempt=attempt
            )
        )
    except (IidqError, psycopg.Error) as last:
        database.faults.row_refused("end", job_id, last)
        if concerns_one_row(last):
            database.faults.failed(f"{what} of a job", error, _REST_SECONDS, 2 * _REST_SECONDS)
        return False


async def claim(
    database: Database, *, worker_id: str, slots: int, lease_seconds: float, from_order: float = FROM_HEAD
) -> Claim:
    """Claim as ``store.claim`` does; a job whose row refuses to be claimed ends as failed.

    A row that refuses its end, too, is left out for a while. Raises the error of the first where all refuse.
    """
    resting = database.faults.refused_rows("claim", _REST_SECONDS)
    if not resting:
        try:
            async with database.connection() as connection:
                return await store.claim(
                    connection, worker_id=worker_id, slots=slots, lease_seconds=lease_seconds, from_order=from_order
                )
        except Exception as error:
            if not may_be_of_one_row(error):
                raise
    return Claim(await _claim_apart(database, worker_id, slots, lease_seconds, set(resting)), None)


async def _claim_apart(
    database: Database, worker_id: str, slots: int, lease_seconds: float, resting: set[UUID]
) -> list[ClaimedJob]:
    claimed: list[ClaimedJob] = []
    refused: list[tuple[UUID, Exception]] = []

    async def take(ids: Sequence[UUID]) -> None:
        async with database.connection() as connection:
            taken = await store.claim(
                connection, worker_id=worker_id, slots=len(ids), lease_seconds=lease_seconds, only=ids
            )
        claimed.extend(taken.jobs)

    async def refuse(job_id: UUID, error: Exception) -> None:
        refused.append((job_id, error))

    reach = slots + _LOOKED_PAST + len(resting)
    line = await database.run(lambda connection: store.first_in_line(connection, reach))
    line = [job_id for job_id in line if job_id not in resting]
    while line and len(claimed) < slots:
        room = slots - len(claimed)
        some, line = line[:room], line[room:]
        await each_apart(some, take, refuse)
    if refused and not claimed and (len(refused) > 1 or isinstance(refused[0][1], TriggerFault)):
        # A trigger that refuses all of them is not a fault of the jobs: they wait until the operator has mended it.
        raise refused[0][1]
    for job_id, error in refused:
        await end_refused(database, "claim", job_id, error, worker_id=worker_id)
    return claimed
