"""One function per transition of a job that the queue itself makes; those that people make are in ``control.py``.

Every write is one statement from ``queries.sql``. Functions take a connection and do not retry:
:meth:`iidq.database.pool.Database.run` does, and all of them bear repetition: inserts by id, outcomes by attempt.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from iidq.database.pool import Connection, concerns_one_row, is_shared, not_confirmed
from iidq.database.queries import load_queries
from iidq.database.statement import Statement
from iidq.queue.job import ClaimedJob, IdempotencyKey, JobType, NewJob
from iidq.queue.notify.channels import WAKE_ONE
from iidq.queue.outcome import Outcome
from iidq.queue.processing.claim_span import WHOLE
from iidq.subject import Subject

QUERIES = load_queries("iidq.queue")

# One attempt of one job: what a write must present to be let through.
Fence = tuple[UUID, int]

# A plan that is kept expects ten ids and scans for each of a thousand: 650 ms where a fresh one takes 25. Up to ten it
# saves half: 0.6 ms instead of 1.3 for one outcome.
_PLANNED_EACH_TIME = False
_KEPT_PLAN_TAKES = 10

# How long a write that failed waits for commits to get through, before it is tried again.
_CONFIRM_SECONDS = 10.0

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
_FOREVER_SECONDS = float(100 * 365 * 86_400)
_LOST = "attempt.lost: the worker fell silent and its lease ran out"
_ENQUEUE = Statement(QUERIES["enqueue"])
_ANNOUNCE = Statement(QUERIES["announce"])
_JOB_TYPES = {kind.value: kind for kind in JobType}


async def enqueue(connection: Connection, jobs: Sequence[NewJob], *, max_attempts: int, announce: bool = False) -> bool:
    """Insert the jobs durably, all or none; a job whose id is there already is left as it is.

    Returns whether workers were told, too: only if that was asked for, and neither within a transaction nor behind a
    pooler.
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
    """Insert those jobs whose key is new; return per job the id that its key stands for.

    None: the key stands for another request. All of it in one transaction.
    """
    keyed = [(job, job.key) for job in jobs if job.key is not None]
    parameters = {
        "scopes": [key.scope for _, key in keyed],
        "keys": [key.key for _, key in keyed],
        "fingerprints": [key.fingerprint for _, key in keyed],
        "job_ids": [job.id for job, _ in keyed],
        "keep_seconds": keep_seconds,
    }

    async def find_keys() -> list[tuple[bytes, UUID]]:
        cursor = await connection.execute(QUERIES["find_keys"], parameters)
        known = {(scope, key): (bytes(fingerprint), job_id) async for scope, key, fingerprint, job_id in cursor}
        return [known[(key.scope, key.key)] for _, key in keyed]

    async with connection.transaction():
        await connection.execute(QUERIES["take_keys"], parameters)
        stands_for = await find_keys()
        if any(job.id != job_id for (job, _), (_, job_id) in zip(keyed, stands_for, strict=True)):
            await connection.execute(QUERIES["take_ended_keys"], parameters)
            stands_for = await find_keys()
        new = [job for (job, _), (_, job_id) in zip(keyed, stands_for, strict=True) if job.id == job_id]
        if new:
            await enqueue(connection, new, max_attempts=max_attempts)
    return [
        job_id if fingerprint == key.fingerprint else None
        for (_, key), (fingerprint, job_id) in zip(keyed, stands_for, strict=True)
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
    """Insert the jobs durably, all or none, unless the key stands for an earlier batch; return the batch it stands for.

    None: the key stands for another request.
    """
    async with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        if key is not None:
            parameters = {
                "scopes": [key.scope],
                "keys": [key.key],
                "fingerprints": [key.fingerprint],
                "job_ids": [batch_id],
                "keep_seconds": keep_seconds,
            }
            await cursor.execute(QUERIES["take_keys"], parameters)
            await cursor.execute(QUERIES["find_keys"], parameters)
            ((_, _, fingerprint, stands_for),) = await cursor.fetchall()
            if stands_for != batch_id:
                return stands_for if bytes(fingerprint) == key.fingerprint else None
        await enqueue(connection, jobs, max_attempts=max_attempts)
    return batch_id


async def first_refused(connection: Connection, jobs: Sequence[NewJob], *, max_attempts: int) -> int | None:
    """Return which of the jobs, inserted in this order, is the first that a rule refuses; nothing is stored.

    None: all of them would go in.
    """

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

    # Ten tries find one of a thousand.
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
    """What a claim took, and how far in line it came: None where it took nothing. See ``claim_span.py``."""

    jobs: list[ClaimedJob]
    reached: float | None


async def claim(
    connection: Connection,
    *,
    worker_id: str,
    slots: int,
    lease_seconds: float,
    from_order: float = WHOLE,
    only: Sequence[UUID] | None = None,
) -> Claim:
    """Take up to ``slots`` ready jobs, first in line first; nobody else gets them. ``only``: none but these."""
    parameters = {
        "worker_id": worker_id,
        "slots": slots,
        "lease_seconds": lease_seconds,
        "from_order": from_order,
        "only": only,
    }
    # Binary: an id costs 1 µs to read instead of 3. Prepared at once: a claim takes 1 ms more until Postgres keeps its
    # plan, which it does after five of them; the driver by itself would first let five others go by.
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        # With "only" its plan is another: by their ids.
        await cursor.execute(QUERIES["claim"], parameters, prepare=only is None)
        rows = await cursor.fetchall()
    jobs = [ClaimedJob(row[0], row[1], _JOB_TYPES[row[2]], Subject._make(row[3:10]), *row[10:-1]) for row in rows]
    return Claim(jobs, rows[0][-1] if rows else None)


async def first_in_line(connection: Connection, limit: int) -> list[UUID]:
    """Return the jobs that the next claims would take."""
    cursor = await connection.execute(QUERIES["first_in_line"], {"limit": limit}, prepare=False)
    return [job_id for (job_id,) in await cursor.fetchall()]


async def refuse(
    connection: Connection, job_id: UUID, *, worker_id: str, error: str, attempt: int | None = None
) -> bool:
    """End a job as failed because its row refuses all else; False where another worker holds it, or it has ended."""
    parameters = {"id": job_id, "worker_id": worker_id, "error": error, "attempt": attempt}
    return (await connection.execute(QUERIES["refuse"], parameters)).rowcount == 1


async def release_unknown(connection: Connection, *, worker_id: str, known: Iterable[Fence]) -> None:
    """Give back, uncharged, what this worker holds without knowing: a claim's answer was lost with its connection."""
    await connection.execute(
        QUERIES["release_unknown"], {"worker_id": worker_id, "ids": [job_id for job_id, _ in known]}
    )


async def renew(connection: Connection, held: Sequence[Fence], *, worker_id: str, lease_seconds: float) -> set[Fence]:
    """Extend the leases; those not in the answer are lost."""
    cursor = await connection.execute(
        QUERIES["renew"],
        {"ids": [job_id for job_id, _ in held], "worker_id": worker_id, "lease_seconds": lease_seconds},
        prepare=_PLANNED_EACH_TIME,
    )
    return set(await cursor.fetchall())


async def report_progress(
    connection: Connection, progress: Sequence[tuple[Fence, int]], *, worker_id: str
) -> set[Fence]:
    """Store how far running jobs are, 0 to 99; those not in the answer are lost."""
    progress = sorted(progress)
    rows = [{"id": str(job_id), "attempt": attempt, "progress": percent} for (job_id, attempt), percent in progress]
    cursor = await connection.execute(
        QUERIES["report_progress"],
        {"progress": json.dumps(rows), "worker_id": worker_id, "ids": [fence[0] for fence, _ in progress]},
        prepare=_PLANNED_EACH_TIME,
    )
    return set(await cursor.fetchall())


async def confirm(connection: Connection, within_seconds: float = _CONFIRM_SECONDS) -> None:
    """Return when all that was committed before is durable: on the disk, and with synchronous standbys.

    Raises DatabaseUnavailable where that takes too long. The server's wait ends with it: other than a write that is
    given up, this leaves nothing behind that holds a connection of the server until the standby is back.
    """
    try:
        async with asyncio.timeout(within_seconds):
            await connection.execute(QUERIES["confirm"])
    except TimeoutError:
        raise not_confirmed() from None


async def store_outcomes(
    connection: Connection, outcomes: Sequence[Outcome], *, worker_id: str, again: bool = False
) -> set[Fence]:
    """End the attempts durably; those in the answer had lost their lease, and nothing was written for them.

    ``again`` after a try of unknown fate: what that one stored is not lost.
    """
    outcomes = sorted(outcomes, key=lambda outcome: outcome.id.int)
    parameters = {
        "worker_id": worker_id,
        # As text: psycopg takes 1 µs for each id of a list.
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
    """Return those of the lost that hold their row all the same: a trigger of the operator's dropped the change."""
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
    """What a worker tells of itself at every sweep; it counts as live for ``alive_seconds`` more."""

    worker_id: str
    host: str
    pid: int
    version: str
    concurrency: int
    running: int
    listening: bool
    alive_seconds: float
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did, and what it saw.

    ``expired`` holds (id, attempt, status) of each job taken back. The ``first_responder`` answers announcements
    while the other listening workers stay asleep. ``uncounted``: the kept counts can be another database's, and a
    :func:`recount` is due.
    """

    expired: list[tuple[str, int, str]]
    promoted: int
    waiting: bool
    next_event_seconds: float | None
    first_responder: bool
    uncounted: bool


async def overdue(connection: Connection, *, batch: int) -> list[UUID]:
    """Return the jobs that a sweep would change."""
    cursor = await connection.execute(QUERIES["overdue"], {"batch": batch}, prepare=False)
    return [job_id for (job_id,) in await cursor.fetchall()]


async def sweep(connection: Connection, signs: WorkerSigns, *, batch: int, only: Sequence[UUID] | None = None) -> Sweep:
    """Say that the worker lives; take back jobs whose lease ran out and put due ones in line, ``batch`` of each.

    ``only``: none but these.
    """
    parameters = {**asdict(signs), "batch": batch, "lost": _LOST, "only": only}
    cursor = await connection.execute(QUERIES["sweep"], parameters)
    row = await cursor.fetchone()
    assert row is not None
    expired, promoted, waiting, next_event_seconds, first_responder, uncounted = row
    taken_back = [(job["id"], job["attempt"], job["status"]) for job in expired]
    return Sweep(taken_back, promoted, waiting, next_event_seconds, first_responder, uncounted)


async def recount(connection: Connection) -> None:
    """Count all jobs, unless another worker does: with many, longer than any other statement takes."""
    await connection.execute(QUERIES["recount"])


async def say_alive(connection: Connection, signs: WorkerSigns) -> None:
    """Say that the worker lives, where it may not do all that a sweep does."""
    await connection.execute(QUERIES["say_alive"], asdict(signs))


async def leave(connection: Connection, worker_id: str) -> None:
    """The worker stops; nobody waits for it to answer."""
    await connection.execute(QUERIES["leave"], {"worker_id": worker_id})


async def purge(
    connection: Connection,
    *,
    completed_seconds: float | None,
    failed_seconds: float | None,
    batch: int,
    from_time: datetime = EARLIEST,
    only: Sequence[UUID] | None = None,
    without: Sequence[UUID] = (),
) -> tuple[int, datetime | None]:
    """Delete up to ``batch`` jobs that ended longer ago than that; None keeps them for ever. ``only``: none but these;
    ``without``: none of these.

    Returns how many, and the creation time of the last: the ``from_time`` of the next batch.
    """
    cursor = await connection.execute(
        QUERIES["purge"],
        {
            "completed_seconds": _FOREVER_SECONDS if completed_seconds is None else completed_seconds,
            "failed_seconds": _FOREVER_SECONDS if failed_seconds is None else failed_seconds,
            "batch": batch,
            "from_time": from_time,
            "only": only,
            "without": list(without),
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def purge_excess(
    connection: Connection,
    *,
    keep: int,
    batch: int,
    from_time: datetime = EARLIEST,
    only: Sequence[UUID] | None = None,
    without: Sequence[UUID] = (),
) -> tuple[int, datetime | None]:
    """Delete up to ``batch`` of the oldest completed and cancelled jobs beyond the newest ``keep``, as purge does."""
    parameters = {"keep": keep, "batch": batch, "from_time": from_time, "only": only, "without": list(without)}
    cursor = await connection.execute(QUERIES["purge_excess"], parameters)
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def oldest_ended(
    connection: Connection, *, batch: int, from_time: datetime, without: Sequence[UUID] = ()
) -> list[tuple[UUID, datetime]]:
    """Return the jobs among which retention looks first, each with the time of its creation."""
    parameters = {"batch": batch, "from_time": from_time, "without": list(without)}
    cursor = await connection.execute(QUERIES["oldest_ended"], parameters, prepare=False)
    return [(job_id, created_at) for job_id, created_at in await cursor.fetchall()]
