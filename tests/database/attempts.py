"""The store's steps by a worker with a given name."""

from iidq.database.connections import Connection
from iidq.queue import store
from iidq.queue.job import ClaimedJob
from iidq.queue.outcome import Outcome
from iidq.queue.store import Fence, Sweep, WorkerSigns

WORKER = "a:1:0"
LEASE_SECONDS = 30.0


async def claim(connection: Connection, slots: int = 10, worker_id: str = WORKER) -> list[ClaimedJob]:
    """Claim with the usual lease."""
    taken = await store.claim(connection, worker_id=worker_id, slots=slots, lease_seconds=LEASE_SECONDS)
    return taken.jobs


async def claim_one(connection: Connection, worker_id: str = WORKER) -> ClaimedJob:
    """Claim the first job in line."""
    [job] = await claim(connection, 1, worker_id)
    return job


async def finish(connection: Connection, *outcomes: Outcome, worker_id: str = WORKER) -> set[Fence]:
    """Store outcomes; return the fences of the stored outcomes."""
    lost = await store.store_outcomes(connection, outcomes, worker_id=worker_id)
    return {(outcome.id, outcome.attempt) for outcome in outcomes} - lost


async def renew(connection: Connection, *held: Fence, worker_id: str = WORKER) -> set[Fence]:
    """Renew with the usual lease."""
    return await store.renew(connection, held, worker_id=worker_id, lease_seconds=LEASE_SECONDS)


async def report(connection: Connection, *progress: tuple[Fence, int], worker_id: str = WORKER) -> set[Fence]:
    """Report progress."""
    return await store.report_progress(connection, progress, worker_id=worker_id)


async def sweep(connection: Connection, *, batch: int = 1000, worker_id: str = WORKER, listening: bool = True) -> Sweep:
    """Sweep as a worker does at every poll."""
    signs = WorkerSigns(
        worker_id=worker_id,
        host="a",
        pid=1,
        version="0",
        concurrency=3,
        running=0,
        listening=listening,
        alive_seconds=60.0,
    )
    seen = await store.sweep(connection, signs, batch=batch)
    if seen.uncounted:
        await store.recount(connection)
    return seen


def fence(job: ClaimedJob) -> Fence:
    """Return the fence of a job: id and attempt."""
    return (job.id, job.attempt)
