"""One function per transition of a job, and the readers. Every write is one statement from ``queries.sql``.

Functions take a connection and do not retry; :meth:`iidq.database.Database.run` does, for all of them bear
repetition: inserts by their id, outcomes by their attempt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.rows import class_row, dict_row, tuple_row

from iidq.database import Connection
from iidq.queue.job import ClaimedJob, Job, JobStatus, JobType, NewJob, QueueCounts
from iidq.queue.outcome import Outcome
from iidq.queue.paging import Cursor
from iidq.queue.queries import QUERIES

# One attempt of one job: what a write must present to be let through.
Fence = tuple[UUID, int]

_LOST = "attempt.lost: the worker fell silent and its lease ran out"
_UNFINISHED = frozenset({JobStatus.QUEUED, JobStatus.PROCESSING})


async def enqueue(connection: Connection, jobs: Sequence[NewJob], *, max_attempts: int) -> None:
    """Insert the jobs durably, all or none; a job whose id is there already is left as it is."""
    await connection.execute(
        QUERIES["enqueue"],
        {
            "ids": [job.id for job in jobs],
            "types": [job.type.value for job in jobs],
            "content_hashes": [job.content_hash for job in jobs],
            "manifest_uris": [job.manifest_uri for job in jobs],
            "registry_addresses": [job.registry_address for job in jobs],
            "rpc_urls": [job.rpc_url for job in jobs],
            "chain_ids": [job.chain_id for job in jobs],
            "file_names": [job.file_name for job in jobs],
            "max_attempts": max_attempts,
        },
    )


async def claim(connection: Connection, *, worker_id: str, slots: int, lease_seconds: float) -> list[ClaimedJob]:
    """Take up to ``slots`` ready jobs, first in line first; nobody else gets the same ones."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(QUERIES["claim"], {"worker_id": worker_id, "slots": slots, "lease_seconds": lease_seconds})
        return [ClaimedJob(row[0], row[1], JobType(row[2]), *row[3:]) for row in await cursor.fetchall()]


async def renew(connection: Connection, held: Sequence[Fence], *, lease_seconds: float) -> set[Fence]:
    """Extend the leases; those not in the answer are lost."""
    ids, attempts = _columns(held)
    cursor = await connection.execute(
        QUERIES["renew"], {"ids": ids, "attempts": attempts, "lease_seconds": lease_seconds}
    )
    return set(await cursor.fetchall())


async def report_progress(connection: Connection, progress: Sequence[tuple[Fence, int]]) -> set[Fence]:
    """Store how far running jobs are, 0 to 99; those not in the answer are lost."""
    ids, attempts = _columns([fence for fence, _ in progress])
    cursor = await connection.execute(
        QUERIES["report_progress"],
        {"ids": ids, "attempts": attempts, "progresses": [percent for _, percent in progress]},
    )
    return set(await cursor.fetchall())


async def store_outcomes(connection: Connection, outcomes: Sequence[Outcome]) -> set[Fence]:
    """End the attempts durably; those not in the answer had lost their lease, and nothing was written for them."""
    cursor = await connection.execute(
        QUERIES["store_outcomes"],
        {
            "ids": [outcome.id for outcome in outcomes],
            "attempts": [outcome.attempt for outcome in outcomes],
            "statuses": [outcome.status.value for outcome in outcomes],
            "results": [outcome.result for outcome in outcomes],
            "failures": [outcome.failure for outcome in outcomes],
            "delays_seconds": [outcome.delay_seconds for outcome in outcomes],
        },
    )
    return set(await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did, and what it saw. ``expired`` holds (id, attempt, status) of each job taken back."""

    expired: list[tuple[str, int, str]]
    promoted: int
    waiting: bool
    next_event_seconds: float | None


async def sweep(connection: Connection, *, batch: int) -> Sweep:
    """Take back jobs whose lease ran out, put due ones in line, at most ``batch`` of each."""
    cursor = await connection.execute(QUERIES["sweep"], {"batch": batch, "lost": _LOST})
    row = await cursor.fetchone()
    assert row is not None
    expired, promoted, waiting, next_event_seconds = row
    taken_back = [(job["id"], job["attempt"], job["status"]) for job in expired]
    return Sweep(taken_back, promoted, waiting, next_event_seconds)


async def purge(
    connection: Connection, *, completed_seconds: float | None, failed_seconds: float | None, batch: int
) -> int:
    """Delete up to ``batch`` jobs that ended longer ago than that; None keeps them for ever."""
    forever = float(100 * 365 * 86_400)
    cursor = await connection.execute(
        QUERIES["purge"],
        {
            "completed_seconds": forever if completed_seconds is None else completed_seconds,
            "failed_seconds": forever if failed_seconds is None else failed_seconds,
            "batch": batch,
        },
    )
    return cursor.rowcount


async def announce(connection: Connection) -> None:
    """Tell listening workers that there may be something to claim."""
    await connection.execute(QUERIES["announce"])


async def listen(connection: Connection) -> None:
    """Subscribe this connection to announcements."""
    await connection.execute(QUERIES["listen"])


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
    name = "list_content" if content_hash else "list_unfinished" if status in _UNFINISHED else "list_newest"
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
            # Planned anew with its values: a generic plan could not use the partial indexes.
            prepare=False,
        )
        return [_job(row) for row in await cursor.fetchall()]


async def count(connection: Connection) -> QueueCounts:
    """How many jobs stand in each state."""
    async with connection.cursor(row_factory=class_row(QueueCounts)) as cursor:
        await cursor.execute(QUERIES["count"])
        counts = await cursor.fetchone()
    assert counts is not None
    return counts


def _columns(fences: Iterable[Fence]) -> tuple[list[UUID], list[int]]:
    ids, attempts = zip(*fences, strict=True)
    return list(ids), list(attempts)


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
    )
