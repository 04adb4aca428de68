"""Workers are killed, stopped and frozen; every job still ends, and ends exactly once."""

import signal
from typing import Any
from uuid import UUID

import psycopg

from tests.eventually import eventually
from tests.faults.conftest import StartWorker, Worker
from tests.job_rows import insert, read, scalar, statuses

QUICK = "test:quick:0.02"
HOLDS_ONCE = "test:hold:60"
KILLS = "test:kill:0"


def executions(ledger: psycopg.Connection[Any], job_id: UUID | None = None) -> int:
    """Return how often handlers were entered."""
    return int(scalar(ledger, "SELECT count(*) FROM execution WHERE %s::uuid IS NULL OR job_id = %s", job_id, job_id))


def most_endings(ledger: psycopg.Connection[Any]) -> int:
    """Return the largest number of ends of a single job."""
    return int(
        scalar(ledger, "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM ending GROUP BY job_id) AS e")
    )


async def test_a_killed_workers_jobs_are_finished_by_another(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker
) -> None:
    """After kill -9 of a busy worker, another worker runs each job once more, and each job ends exactly once."""
    victim = start_worker(database_url)
    held = [insert(ledger, manifestUri=HOLDS_ONCE) for _ in range(5)]
    await eventually(lambda: executions(ledger) == 5)
    insert(ledger, manifestUri=QUICK, copies=20)
    start_worker(database_url)
    victim.signal(signal.SIGKILL)
    await eventually(lambda: statuses(ledger) == {"completed": 25})
    for job_id in held:
        row = read(ledger, job_id)
        assert (row["attempt"], row["retryCount"], row["result"]["attempt"]) == (2, 1, 2)
        assert executions(ledger, job_id) == 2
    assert executions(ledger) == 30
    assert most_endings(ledger) == 1


async def test_sigterm_under_load_loses_and_repeats_nothing(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker
) -> None:
    """Workers are replaced one after the other while jobs run: all exit 0, and every job is run exactly once."""
    insert(ledger, manifestUri=QUICK, copies=300)
    workers = [start_worker(database_url), start_worker(database_url)]
    for number in range(2):
        await eventually(lambda: executions(ledger) > 40 * (number + 1))  # noqa: B023
        # Before the start is logged, the process is still importing and holds no job.
        await eventually(lambda: workers[number].says("worker.started"))  # noqa: B023
        workers.append(start_worker(database_url))
        workers[number].signal(signal.SIGTERM)
        assert workers[number].exit_code() == 0
    await eventually(lambda: statuses(ledger) == {"completed": 300})
    assert executions(ledger) == 300
    assert scalar(ledger, "SELECT count(DISTINCT job_id) FROM execution") == 300
    assert scalar(ledger, 'SELECT count(*) FROM "VerificationJob" WHERE attempt = 1 AND "retryCount" = 0') == 300
    assert most_endings(ledger) == 1
    for worker in workers[2:]:
        worker.signal(signal.SIGINT)
        assert worker.exit_code() == 0


async def test_jobs_that_outlast_the_drain_go_back_uncharged(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker
) -> None:
    """A worker stopped before its jobs end releases the jobs, exits 0, and another worker runs the jobs uncharged."""
    worker = start_worker(database_url, DRAIN_TIMEOUT_SECONDS="0.2")
    insert(ledger, manifestUri=HOLDS_ONCE, copies=5)
    await eventually(lambda: executions(ledger) == 5)
    worker.signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert statuses(ledger) == {"queued": 5}
    start_worker(database_url)
    await eventually(lambda: statuses(ledger) == {"completed": 5})
    assert scalar(ledger, 'SELECT max("retryCount") FROM "VerificationJob"') == 0
    assert most_endings(ledger) == 1


async def test_a_second_signal_does_not_wait(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker
) -> None:
    """After a second Ctrl-C a worker exits without the drain's wait, and no job is lost."""
    worker = start_worker(database_url, DRAIN_TIMEOUT_SECONDS="3600")
    insert(ledger, manifestUri=HOLDS_ONCE, copies=3)
    await eventually(lambda: executions(ledger) == 3)
    worker.signal(signal.SIGINT)
    await eventually(lambda: worker.says("worker.draining"))
    worker.signal(signal.SIGINT)
    assert worker.exit_code() in (0, 1)
    assert statuses(ledger) == {"queued": 3}
    assert scalar(ledger, 'SELECT max("retryCount") FROM "VerificationJob"') == 0


async def test_a_frozen_worker_that_wakes_up_changes_nothing(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker
) -> None:
    """A worker frozen for longer than its lease wakes up, finds the job done by another, and changes nothing."""
    late = start_worker(database_url)
    job_id = insert(ledger, manifestUri="test:hold:0.5")
    await eventually(lambda: executions(ledger) == 1)
    late.signal(signal.SIGSTOP)
    start_worker(database_url)
    await eventually(lambda: statuses(ledger) == {"completed": 1})
    before = read(ledger, job_id)
    late.signal(signal.SIGCONT)
    await eventually(lambda: late.says("lease.lost"))
    # The worker is well again and works on.
    await eventually(lambda: _done_by(ledger, late))
    assert read(ledger, job_id) == before
    assert (before["attempt"], before["result"]["attempt"]) == (2, 2)
    assert most_endings(ledger) == 1


def _done_by(ledger: psycopg.Connection[Any], worker: Worker) -> bool:
    insert(ledger, manifestUri=QUICK, copies=5)
    return bool(scalar(ledger, "SELECT count(*) FROM \"VerificationJob\" WHERE result ->> 'pid' = %s", str(worker.pid)))


async def test_a_job_that_kills_its_workers_ends(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker
) -> None:
    """A poisonous job fails after its last attempt, after several killed workers, and other jobs complete."""
    poison = insert(ledger, manifestUri=KILLS)
    insert(ledger, manifestUri=QUICK, copies=10)
    # One slot: other jobs of the same process would lose an attempt, too.
    workers = [start_worker(database_url, WORKER_CONCURRENCY="1")]

    def replaced_until_done() -> bool:
        if workers[-1].process.poll() is not None:
            workers.append(start_worker(database_url, WORKER_CONCURRENCY="1"))
        return statuses(ledger) == {"completed": 10, "failed": 1}

    await eventually(replaced_until_done, timeout_seconds=30)
    row = read(ledger, poison)
    assert row["error"].startswith("attempt.lost: ")
    assert (row["attempt"], row["retryCount"], executions(ledger, poison)) == (3, 2, 3)
    assert most_endings(ledger) == 1
