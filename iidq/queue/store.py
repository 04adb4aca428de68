"""The queue's transitions, a function each; operators' transitions are in ``control.py``.

Every write is a statement from ``queries.sql``. The functions take a connection and do not retry, but may be repeated,
inserts by id and outcomes by attempt: :meth:`iidq.database.pool.Database.run` retries.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from iidq.database.connections import Connection, is_shared, not_confirmed
from iidq.database.hot_statement import Statement
from iidq.database.queries import load_queries
from iidq.database.sqlstates import concerns_one_row
from iidq.queue.job import ClaimedJob, IdempotencyKey, JobType, NewJob
from iidq.queue.notify.channels import WAKE_ONE
from iidq.queue.outcome import Outcome
from iidq.queue.processing.claiming import FROM_HEAD
from iidq.subject import Subject

QUERIES = load_queries("iidq.queue")

Fence = tuple[UUID, int]
"""Id and attempt: a write of an attempt takes effect only while this attempt holds the row."""

# A generic plan assumes ten ids, and for a thousand takes 26 times as long as a fresh one. Up to ten it saves half.
_PLANNED_EACH_TIME = False
_KEPT_PLAN_TAKES = 10

# How long a failed write waits for earlier commits before it is tried again.
_CONFIRM_SECONDS = 10.0

_LOST = "attempt.lost: the worker fell silent and its lease ran out"
_ENQUEUE = Statement(QUERIES["enqueue"])
_ANNOUNCE = Statement(QUERIES["announce"])
_JOB_TYPES = {kind.value: kind for kind in JobType}


async def enqueue(connection: Connection, jobs: Sequence[NewJob], *, max_attempts: int, announce: bool = False) -> bool:
    """Insert the jobs durably, all or none; a job with a known id is left as it is.

    Return whether the workers were notified too: if ``announce``, and neither in a transaction nor behind a pooler.
    """
    callbacks = [{"job_id": str(job.id), "url": job.callback_url} for job in jobs if job.callback_url is not None]
    alone = not callbacks and connection.pgconn.transaction_status == TransactionStatus.IDLE
    values = {
        "jobs": f"[{','.join([job.as_json() for job in jobs])}]",
        "max_attempts": str(max_attempts),
        "again": "false" if alone else "true",
        "expected": str(len(jobs)),
    }
    if not callbacks:
        try:
            if announce and alone and not is_shared(connection):
                return await _ENQUEUE.run_before(connection, values, _ANNOUNCE, {"payload": WAKE_ONE})
            await _ENQUEUE.run(connection, values)
        except errors.UniqueViolation:
            if not alone:
                raise
            await _ENQUEUE.run(connection, values | {"again": "true"})
        return False
    async with connection.transaction():
        await _ENQUEUE.run(connection, values)
        await connection.execute(QUERIES["expect_callbacks"], {"callbacks": json.dumps(callbacks)})
    return False


async def enqueue_under_keys(
    connection: Connection, jobs: Sequence[NewJob], *, max_attempts: int, keep_seconds: float
) -> list[UUID | None]:
    """Insert the jobs under new keys, in a transaction; return the id of each key's job.

    The id is None where the key belongs to another request.
    """
    keyed = [(job, job.key) for job in jobs if job.key is not None]
    parameters = _key_parameters([(key, job.id) for job, key in keyed], keep_seconds)

    async def find_keys() -> list[tuple[bytes, UUID]]:
        cursor = await connection.execute(QUERIES["find_keys"], parameters)
        known = {(scope, key): (bytes(fingerprint), job_id) async for scope, key, fingerprint, job_id in cursor}
        return [known[(key.scope, key.key)] for _, key in keyed]

    async with connection.transaction():
        await connection.execute(QUERIES["take_keys"], parameters)
        known_as = await find_keys()
        if any(job.id != job_id for (job, _), (_, job_id) in zip(keyed, known_as, strict=True)):
            await connection.execute(QUERIES["take_ended_keys"], parameters)
            known_as = await find_keys()
        new = [job for (job, _), (_, job_id) in zip(keyed, known_as, strict=True) if job.id == job_id]
        if new:
            await enqueue(connection, new, max_attempts=max_attempts)
    return [
        job_id if fingerprint == key.fingerprint else None
        for (_, key), (fingerprint, job_id) in zip(keyed, known_as, strict=True)
    ]


async def enqueue_batch(
    connection: Connection,
    batch_id: UUID,
    jobs: Sequence[NewJob],
    key: IdempotencyKey | None,
    *,
    max_attempts: int,
    keep_seconds: float,
) -> UUID | None:
    """Insert the jobs durably, all or none; return the id of the batch.

    Under the key of an earlier batch, insert nothing and return the earlier id, or None after another request.
    """
    async with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        if key is not None:
            parameters = _key_parameters([(key, batch_id)], keep_seconds)
            await cursor.execute(QUERIES["take_keys"], parameters)
            await cursor.execute(QUERIES["find_keys"], parameters)
            ((_, _, fingerprint, known_as),) = await cursor.fetchall()
            if known_as != batch_id:
                return known_as if bytes(fingerprint) == key.fingerprint else None
        await enqueue(connection, jobs, max_attempts=max_attempts)
    return batch_id


def _key_parameters(keys: Sequence[tuple[IdempotencyKey, UUID]], keep_seconds: float) -> dict[str, Any]:
    return {
        "scopes": [key.scope for key, _ in keys],
        "keys": [key.key for key, _ in keys],
        "fingerprints": [key.fingerprint for key, _ in keys],
        "job_ids": [job_id for _, job_id in keys],
        "keep_seconds": keep_seconds,
    }


async def first_refused(connection: Connection, jobs: Sequence[NewJob], *, max_attempts: int) -> int | None:
    """Return the index of the first job refused by a rule, or None; store nothing."""

    async def refuses(first: int) -> bool:
        try:
            async with connection.transaction(force_rollback=True):
                await enqueue(connection, jobs[:first], max_attempts=max_attempts)
                await connection.execute(QUERIES["check_deferred_rules"])
        except psycopg.Error as error:
            if not concerns_one_row(error):
                raise
            return True
        return False

    # A binary search: ten tries for a thousand jobs.
    accepted, refused = 0, len(jobs) + 1
    while refused - accepted > 1:
        middle = (accepted + refused) // 2
        if middle > len(jobs) or not await refuses(middle):
            accepted = middle
        else:
            refused = middle
    return refused - 1 if refused <= len(jobs) else None


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of a claim."""

    jobs: list[ClaimedJob]
    """Claimed jobs, first in line first."""
    reached: float | None
    """Claim order up to which the claim saw every row, for the next claim; None for an empty claim."""


async def claim(
    connection: Connection,
    *,
    worker_id: str,
    slots: int,
    lease_seconds: float,
    from_order: float = FROM_HEAD,
    only: Sequence[UUID] | None = None,
) -> Claim:
    """Claim up to ``slots`` ready jobs exclusively, first in line first; ``only`` restricts the claim to the ids."""
    parameters = {
        "worker_id": worker_id,
        "slots": slots,
        "lease_seconds": lease_seconds,
        "from_order": from_order,
        "only": only,
    }
    # Binary, because ids are read three times as fast. Prepared at the first call, because a claim takes 1 ms more
    # until Postgres keeps its plan, after five calls.
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        # With "only" another plan is right, by id.
        await cursor.execute(QUERIES["claim"], parameters, prepare=only is None)
        rows = await cursor.fetchall()
    jobs = [ClaimedJob(row[0], row[1], _JOB_TYPES[row[2]], Subject._make(row[3:10]), *row[10:-1]) for row in rows]
    return Claim(jobs, rows[0][-1] if rows else None)


async def first_in_line(connection: Connection, limit: int) -> list[UUID]:
    """Return the first ``limit`` jobs in line."""
    cursor = await connection.execute(QUERIES["first_in_line"], {"limit": limit}, prepare=False)
    return [job_id for (job_id,) in await cursor.fetchall()]


async def refuse(
    connection: Connection, job_id: UUID, *, worker_id: str, error: str, attempt: int | None = None
) -> bool:
    """End a job as failed because its row refuses other changes; return False if ended or held by another worker."""
    parameters = {"id": job_id, "worker_id": worker_id, "error": error, "attempt": attempt}
    return (await connection.execute(QUERIES["refuse"], parameters)).rowcount == 1


async def release_unknown(connection: Connection, *, worker_id: str, known: Iterable[Fence]) -> None:
    """Release jobs of a claim with a lost answer: held by the worker, but not ``known``."""
    await connection.execute(
        QUERIES["release_unknown"], {"worker_id": worker_id, "ids": [job_id for job_id, _ in known]}
    )


async def renew(connection: Connection, held: Sequence[Fence], *, worker_id: str, lease_seconds: float) -> set[Fence]:
    """Extend the leases; return those still held."""
    cursor = await connection.execute(
        QUERIES["renew"],
        {"ids": [job_id for job_id, _ in held], "worker_id": worker_id, "lease_seconds": lease_seconds},
        prepare=_PLANNED_EACH_TIME,
    )
    return set(await cursor.fetchall())


async def report_progress(
    connection: Connection, progress: Sequence[tuple[Fence, int]], *, worker_id: str
) -> set[Fence]:
    """Store the progress of running jobs, 0 to 99 percent; return the attempts that still hold a lease."""
    progress = sorted(progress)
    rows = [{"id": str(job_id), "attempt": attempt, "progress": percent} for (job_id, attempt), percent in progress]
    cursor = await connection.execute(
        QUERIES["report_progress"],
        {"progress": json.dumps(rows), "worker_id": worker_id, "ids": [fence[0] for fence, _ in progress]},
        prepare=_PLANNED_EACH_TIME,
    )
    return set(await cursor.fetchall())


async def confirm(connection: Connection, within_seconds: float = _CONFIRM_SECONDS) -> None:
    """Return when all earlier commits are durable, on the disk and on synchronous standbys.

    Raise DatabaseUnavailable after ``within_seconds``. The server stops waiting too, whereas an abandoned write would
    hold a server connection until the standby is back.
    """
    try:
        async with asyncio.timeout(within_seconds):
            await connection.execute(QUERIES["confirm"])
    except TimeoutError:
        raise not_confirmed() from None


async def store_outcomes(
    connection: Connection, outcomes: Sequence[Outcome], *, worker_id: str, again: bool = False
) -> set[Fence]:
    """End the attempts durably, except attempts with a lost lease, which are returned.

    ``again`` after a try with an unknown result: outcomes already stored do not count as lost.
    """
    outcomes = sorted(outcomes, key=lambda outcome: outcome.id.int)
    parameters = {
        "worker_id": worker_id,
        # As text, because psycopg takes 1 µs for each element of a list.
        "ids": f"{{{','.join([outcome.id.hex for outcome in outcomes])}}}",
        "outcomes": f"[{','.join([outcome.as_json() for outcome in outcomes])}]",
    }
    cursor = await connection.execute(QUERIES["store_outcomes"], parameters, prepare=len(outcomes) <= _KEPT_PLAN_TAKES)
    lost = {job_id for (job_id,) in await cursor.fetchall()}
    if lost and again:
        cursor = await connection.execute(QUERIES["find_ended"], parameters)
        lost -= {job_id for (job_id,) in await cursor.fetchall()}
    return {(outcome.id, outcome.attempt) for outcome in outcomes if outcome.id in lost} if lost else set()


async def find_held(connection: Connection, outcomes: Sequence[Outcome], *, worker_id: str) -> set[Fence]:
    """Return the lost attempts that still hold the row: a trigger of the operator dropped the change."""
    parameters = {
        "worker_id": worker_id,
        "ids": [outcome.id for outcome in outcomes],
        "outcomes": f"[{','.join([outcome.as_json() for outcome in outcomes])}]",
    }
    cursor = await connection.execute(QUERIES["find_held"], parameters)
    held = {job_id for (job_id,) in await cursor.fetchall()}
    return {(outcome.id, outcome.attempt) for outcome in outcomes if outcome.id in held}


@dataclass(frozen=True, slots=True)
class WorkerSigns:
    """A worker's sign of life, stored at every sweep."""

    worker_id: str
    """Host, process id and a random part: new at each start."""
    host: str
    """Host name."""
    pid: int
    """Process id on the host."""
    version: str
    """Version of iidq."""
    concurrency: int
    """Jobs that the worker runs at a time."""
    running: int
    """Jobs that it runs now."""
    listening: bool
    """Whether it receives notifications of new jobs."""
    alive_seconds: float
    """How long the sign counts; other workers consider the worker dead after that."""
    faults: list[str] = field(default_factory=list)
    """Faults for an operator to fix, a sentence each; shown by queue_health."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result of a sweep."""

    expired: list[tuple[str, int, str]]
    """Jobs taken back from dead workers: id, attempt, new status."""
    promoted: int
    """Number of delayed jobs put in line."""
    waiting: bool
    """Whether a claim would find a job."""
    next_event_seconds: float | None
    """Time until the next delayed job or lease is due; None without one."""
    first_responder: bool
    """Whether this worker answers announcements, while the other listening workers stay asleep."""
    uncounted: bool
    """Whether the kept counts may belong to another database, so that :func:`recount` is due."""


async def overdue(connection: Connection, *, batch: int) -> list[UUID]:
    """Return up to ``batch`` expired and ``batch`` due jobs, which a sweep would change."""
    cursor = await connection.execute(QUERIES["overdue"], {"batch": batch}, prepare=False)
    return [job_id for (job_id,) in await cursor.fetchall()]


async def sweep(connection: Connection, signs: WorkerSigns, *, batch: int, only: Sequence[UUID] | None = None) -> Sweep:
    """Store the sign of life; take back expired jobs and put due jobs in line, up to ``batch`` of each.

    ``only`` restricts the changes to the given ids.
    """
    parameters = {**asdict(signs), "batch": batch, "lost": _LOST, "only": only}
    cursor = await connection.execute(QUERIES["sweep"], parameters)
    row = await cursor.fetchone()
    assert row is not None
    expired, promoted, waiting, next_event_seconds, first_responder, uncounted = row
    taken_back = [(job["id"], job["attempt"], job["status"]) for job in expired]
    return Sweep(taken_back, promoted, waiting, next_event_seconds, first_responder, uncounted)


async def recount(connection: Connection) -> None:
    """Count all jobs, unless another worker does. With many jobs the slowest of all statements."""
    await connection.execute(QUERIES["recount"])


async def say_alive(connection: Connection, signs: WorkerSigns) -> None:
    """Store the sign of life alone, after a sweep that Postgres refused."""
    await connection.execute(QUERIES["say_alive"], asdict(signs))


async def leave(connection: Connection, worker_id: str) -> None:
    """Remove the sign of life of a stopping worker, so that no announcement waits for an answer."""
    await connection.execute(QUERIES["leave"], {"worker_id": worker_id})
