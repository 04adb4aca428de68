"""Limits the fault of a row to its job.

A value at the limit of a type, or a failing trigger of the operator, fails a whole statement, and Postgres does not
name the row. The statement is therefore repeated for halves of the rows until the row is alone. A failed statement has
changed no row.
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

# How many rows that refuse every change a claim skips at the head of the line.
_MOST_SKIPPED: Final = 250
# How long claims then leave such rows out.
_REST_SECONDS: Final = 60.0


def refusal(error: BaseException, change: str) -> str:
    """Return the error of a job with a row that refuses ``change``; the text names the rule."""
    if isinstance(error, RowRefused):
        return f"{error} refuses {change}"
    return f"internal: the database refuses {change}; see the worker's log"


async def each_apart(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Awaitable[Any]],
    refused: Callable[[Item, Exception], Awaitable[None]],
) -> None:
    """Call ``work`` for all items, and after the fault of a row for halves.

    Call ``refused`` for each item that fails alone. Raise errors that do not come from a row.
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
    database: Database, change: str, job_id: UUID, error: BaseException, *, worker_id: str, attempt: int | None = None
) -> bool:
    """Log why the row refuses ``change``, and end the job as failed; return whether the row allowed the end.

    Where a trigger of the operator fails, the job waits until the trigger is fixed.
    """
    database.faults.row_refused(change, job_id, error)
    if isinstance(error, TriggerFault):
        database.faults.failed(f"{change} of a job", error, _REST_SECONDS, 2 * _REST_SECONDS)
        return False
    try:
        return await database.run(
            lambda connection: store.refuse(
                connection, job_id, worker_id=worker_id, error=refusal(error, f"the {change}"), attempt=attempt
            )
        )
    except (IidqError, psycopg.Error) as last:
        database.faults.row_refused("end", job_id, last)
        if concerns_one_row(last):
            database.faults.failed(f"{change} of a job", error, _REST_SECONDS, 2 * _REST_SECONDS)
        return False


async def claim(
    database: Database, *, worker_id: str, slots: int, lease_seconds: float, from_order: float = FROM_HEAD
) -> Claim:
    """Claim as ``store.claim`` does; end a job as failed if the row refuses the claim.

    A row that refuses even the end is left out for a minute. Raise the first error if all rows refuse.
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

    async def claim_only(ids: Sequence[UUID]) -> None:
        async with database.connection() as connection:
            taken = await store.claim(
                connection, worker_id=worker_id, slots=len(ids), lease_seconds=lease_seconds, only=ids
            )
        claimed.extend(taken.jobs)

    async def refuse(job_id: UUID, error: Exception) -> None:
        refused.append((job_id, error))

    reach = slots + _MOST_SKIPPED + len(resting)
    line = await database.run(lambda connection: store.first_in_line(connection, reach))
    line = [job_id for job_id in line if job_id not in resting]
    while line and len(claimed) < slots:
        room = slots - len(claimed)
        some, line = line[:room], line[room:]
        await each_apart(some, claim_only, refuse)
    if refused and not claimed and (len(refused) > 1 or isinstance(refused[0][1], TriggerFault)):
        # A trigger that refuses all of them is no fault of the jobs, which wait until the operator has fixed it.
        raise refused[0][1]
    for job_id, error in refused:
        await end_refused(database, "claim", job_id, error, worker_id=worker_id)
    return claimed
