"""One function per transition of a job, and the readers. Every write is one statement from ``queries.sql``.

Functions take a connection and do not retry; :meth:`iidq.database.Database.run` does, for all of them bear
repetition: inserts by their id, outcomes by their attempt.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import errors
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row, tuple_row
from psycopg.sql import SQL, Identifier

from iidq.database import Connection
from iidq.queue.claim_span import WHOLE
from iidq.queue.job import ClaimedJob, IdempotencyKey, Job, JobStatus, JobType, NewJob, QueueCounts
from iidq.queue.outcome import Outcome
from iidq.queue.paging import Cursor
from iidq.queue.queries import QUERIES

# One attempt of one job: what a write must present to be let through.
Fence = tuple[UUID, int]

# A generic plan expects ten ids and scans for each of a thousand: 650 ms where a fresh plan takes 25.
_PLANNED_EACH_TIME = False

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
_FOREVER_SECONDS = float(100 * 365 * 86_400)
_LOST = "attempt.lost: the worker fell silent and its lease ran out"
_JOB_TYPES = {kind.value: kind for kind in JobType}
_LISTS: dict[JobStatus | None, str] = {JobStatus.QUEUED: "list_queued", JobStatus.PROCESSING: "list_running"}


async def enqueue(connection: Connection, jobs: Sequence[NewJob], *, max_attempts: int, announce: bool = False) -> bool:
    """Insert the jobs durably, all or none; a job whose id is there already is left as it is.

    Returns whether workers were told, too: only if that was asked for, and never within a transaction.
    """
    callbacks = [{"job_id": str(job.id), "url": job.callback_url} for job in jobs if job.callback_url is not None]
    announce = announce and not callbacks and connection.pgconn.transaction_status == TransactionStatus.IDLE
    parameters = {
        "jobs": f"[{','.join(job.as_json() for job in jobs)}]",
        "max_attempts": max_attempts,
        "announce": announce,
    }
    if not callbacks:
        await connection.execute(QUERIES["enqueue"], parameters)
        return announce
    async with connection.transaction():
        await connection.execute(QUERIES["enqueue"], parameters)
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


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim took, and how far in line it came: None where it took nothing. See ``claim_span.py``."""

    jobs: list[ClaimedJob]
    reached: float | None


async def claim(
    connection: Connection, *, worker_id: str, slots: int, lease_seconds: float, from_order: float = WHOLE
) -> Claim:
    """Take up to ``slots`` ready jobs, first in line first; nobody else gets the same ones."""
    parameters = {"worker_id": worker_id, "slots": slots, "lease_seconds": lease_seconds, "from_order": from_order}
    # Binary: an id costs 1 µs to read instead of 3.
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(QUERIES["claim"], parameters)
        rows = await cursor.fetchall()
    jobs = [ClaimedJob(row[0], row[1], _JOB_TYPES[row[2]], *row[3:-1]) for row in rows]
    return Claim(jobs, rows[0][-1] if rows else None)


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


async def store_outcomes(connection: Connection, outcomes: Sequence[Outcome], *, worker_id: str) -> set[Fence]:
    """End the attempts durably; those not in the answer had lost their lease, and nothing was written for them."""
    outcomes = sorted(outcomes, key=lambda outcome: outcome.id.int)
    cursor = await connection.execute(
        QUERIES["store_outcomes"],
        {
            "worker_id": worker_id,
            "ids": [outcome.id for outcome in outcomes],
            "outcomes": f"[{','.join(outcome.as_json() for outcome in outcomes)}]",
        },
        prepare=_PLANNED_EACH_TIME,
    )
    lost = {job_id for (job_id,) in await cursor.fetchall()}
    return {(outcome.id, outcome.attempt) for outcome in outcomes if outcome.id not in lost}


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


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did, and what it saw.

    ``expired`` holds (id, attempt, status) of each job taken back. The ``first_responder`` answers announcements
    while the other listening workers stay asleep.
    """

    expired: list[tuple[str, int, str]]
    promoted: int
    waiting: bool
    next_event_seconds: float | None
    first_responder: bool


async def sweep(connection: Connection, signs: WorkerSigns, *, batch: int) -> Sweep:
    """Say that the worker lives; take back jobs whose lease ran out and put due ones in line, ``batch`` of each."""
    cursor = await connection.execute(QUERIES["sweep"], {**asdict(signs), "batch": batch, "lost": _LOST})
    row = await cursor.fetchone()
    assert row is not None
    expired, promoted, waiting, next_event_seconds, first_responder = row
    taken_back = [(job["id"], job["attempt"], job["status"]) for job in expired]
    return Sweep(taken_back, promoted, waiting, next_event_seconds, first_responder)


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
) -> tuple[int, datetime | None]:
    """Delete up to ``batch`` jobs that ended longer ago than that; None keeps them for ever.

    Returns how many, and the creation time of the last: the ``from_time`` of the next batch.
    """
    cursor = await connection.execute(
        QUERIES["purge"],
        {
            "completed_seconds": _FOREVER_SECONDS if completed_seconds is None else completed_seconds,
            "failed_seconds": _FOREVER_SECONDS if failed_seconds is None else failed_seconds,
            "batch": batch,
            "from_time": from_time,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def purge_excess(
    connection: Connection, *, keep: int, batch: int, from_time: datetime = EARLIEST
) -> tuple[int, datetime | None]:
    """Delete up to ``batch`` of the oldest completed and cancelled jobs beyond the newest ``keep``."""
    cursor = await connection.execute(QUERIES["purge_excess"], {"keep": keep, "batch": batch, "from_time": from_time})
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def cancel(connection: Connection, job_id: UUID) -> bool | None:
    """End a waiting or running job. False: it had ended already. None: there is no such job."""
    return await _steer(connection, "cancel", job_id)


async def retry(connection: Connection, job_id: UUID) -> bool | None:
    """Put a job that ended back in line. False: it has not ended. None: there is no such job."""
    return await _steer(connection, "retry", job_id)


async def retry_failures(
    connection: Connection, cause: str, *, batch: int, before: datetime | None = None
) -> tuple[list[UUID], datetime]:
    """Put the earliest ``batch`` failures of one cause back in line: those that failed by ``before`` (None: by now).

    Returns their ids, and ``before`` for the next batch.
    """
    cursor = await connection.execute(QUERIES["retry_failures"], {"cause": cause, "before": before, "batch": batch})
    row = await cursor.fetchone()
    assert row is not None
    return row[1], row[0]


async def _steer(connection: Connection, name: str, job_id: UUID) -> bool | None:
    try:
        cursor = await connection.execute(QUERIES[name], {"id": job_id})
    except errors.NoDataFound:
        return None
    row = await cursor.fetchone()
    assert row is not None
    return bool(row[0])


async def pause(connection: Connection, reason: str | None) -> None:
    """Stop all claims; running jobs go on."""
    await connection.execute(QUERIES["pause"], {"reason": reason})


async def resume(connection: Connection) -> None:
    """Let claims go on, and wake the workers."""
    await connection.execute(QUERIES["resume"])


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


# Id, version of the row, the job; the latter two are None where there is no such job.
Changed = tuple[str, str | None, Job | None]


async def find_changed(connection: Connection, seen: Mapping[str, str]) -> list[Changed]:
    """Of these jobs (id → version seen last, empty for none), those that are another version now.

    Each with its version and the job; both are None where there is no such job.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["find_changed"], {"seen": json.dumps(seen)})
        return [(row["watched"], row["version"], _job(row) if row["id"] else None) for row in await cursor.fetchall()]


async def find(connection: Connection, job_id: UUID) -> Job | None:
    """The job, or None where there is none of that id."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["find"], {"id": job_id})
        row = await cursor.fetchone()
    return _job(row) if row else None


async def list_jobs(
    connection: Connection,
    *,
    limit: int,
    offset: int = 0,
    status: JobStatus | None = None,
    type: JobType | None = None,  # noqa: A002 — the column's own name
    content_hash: str | None = None,
    after: Cursor | None = None,
) -> list[Job]:
    """Jobs that meet all given conditions, newest first, beginning right after ``after``."""
    name = "list_content" if content_hash else _LISTS.get(status, "list_newest")
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            QUERIES[name],
            {
                "status": status and status.value,
                "type": type and type.value,
                "content_hash": content_hash,
                "after_time": after and after.created_at,
                "after_id": after and after.id,
                "limit": limit,
                "offset": offset,
            },
            # A generic plan could not use the partial indexes.
            prepare=_PLANNED_EACH_TIME,
        )
        return [_job(row) for row in await cursor.fetchall()]


async def probe(connection: Connection) -> None:
    """Fail as all else would where the schema is not the one that this version needs."""
    await connection.execute(QUERIES["probe"])


async def is_read_only(connection: Connection) -> bool:
    """Whether this server refuses writes for now: it is a standby, or was told to."""
    row = await (await connection.execute(QUERIES["is_read_only"])).fetchone()
    assert row is not None
    return bool(row[0])


async def applied_migrations(connection: Connection) -> set[str]:
    """Names of the migrations that the database has seen, of this version and of any other."""
    cursor = await connection.execute(QUERIES["applied_migrations"])
    return {name for (name,) in await cursor.fetchall()}


async def count(connection: Connection) -> QueueCounts:
    """How many jobs stand in each state, and whether they move."""
    async with connection.cursor(row_factory=class_row(QueueCounts)) as cursor:
        await cursor.execute(QUERIES["count"])
        counts = await cursor.fetchone()
    assert counts is not None
    return counts


def _job(row: dict[str, Any]) -> Job:
    return Job(
        id=row["id"],
        type=JobType(row["type"]),
        status=JobStatus(row["status"]),
        progress=row["progress"],
        content_hash=row["contentHash"],
        manifest_uri=row["manifestUri"],
        registry_address=row["registryAddress"],
        rpc_url=row["rpcUrl"],
        chain_id=row["chainId"],
        file_name=row["fileName"],
        result=row["result"],
        error=row["error"],
        errors=row["errors"],
        retry_count=row["retryCount"],
        attempt=row["attempt"],
        max_attempts=row["maxAttempts"],
        priority=row["priority"],
        run_at=row["runAt"],
        started_at=row["startedAt"],
        completed_at=row["completedAt"],
        created_at=row["createdAt"],
        updated_at=row["updatedAt"],
        callback=row["callback"],
    )
