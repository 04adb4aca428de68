"""Workers with clocks wrong by days, ahead or behind, and a database with the right clock."""

import asyncio
import signal
import time
from typing import Any

import psycopg
import pytest

from iidq.database.pool import open_database
from iidq.queue import identifiers
from iidq.queue.enqueuer import open_enqueuer
from iidq.settings import load_settings
from tests.eventually import eventually
from tests.faults.conftest import StartWorker, Worker
from tests.job_rows import CANCELLED, Sql, insert, new_job, read, scalar, statuses

TEN_DAYS_SECONDS = 864_000
MODULE = "tests.faults.skewed_worker_process"


@pytest.fixture(params=[TEN_DAYS_SECONDS, -TEN_DAYS_SECONDS], ids=["ahead", "behind"])
def skew_seconds(request: pytest.FixtureRequest) -> int:
    """Error of the worker's clock, in seconds."""
    return int(request.param)


@pytest.fixture
def skewed_worker(database_url: str, start_worker: StartWorker, skew_seconds: int) -> Worker:
    """A worker with a wrong clock."""
    return start_worker(database_url, module=MODULE, CLOCK_SKEW_SECONDS=str(skew_seconds), POLL_INTERVAL_SECONDS="0.3")


async def test_a_wrong_clock_has_no_effect(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker, skewed_worker: Worker
) -> None:
    """Leases, delays of retries and retention follow the database's clock, however wrong the worker's clock."""
    # Retention: jobs ended nine and five days ago; the retention is seven days.
    old = insert(
        ledger, CANCELLED, createdAt=Sql("now() - interval '9 days'"), completedAt=Sql("now() - interval '9 days'")
    )
    kept = insert(
        ledger, CANCELLED, createdAt=Sql("now() - interval '5 days'"), completedAt=Sql("now() - interval '5 days'")
    )
    later = insert(ledger, manifestUri="test:quick:0", runAt=Sql("now() + interval '5 days'"))
    # A lease is renewed while its job runs three times as long.
    long = insert(ledger, manifestUri="test:quick:1.8")
    await eventually(lambda: read(ledger, long)["status"] == "completed")
    assert (read(ledger, long)["attempt"], read(ledger, long)["retryCount"]) == (1, 0)
    # The delay of a retry is by the database's clock.
    shaky = insert(ledger, manifestUri="test:nonsense:none", maxAttempts=3)
    await eventually(lambda: read(ledger, shaky)["status"] == "failed")
    row = read(ledger, shaky)
    assert (row["attempt"], row["retryCount"]) == (3, 2)
    assert row["startedAt"] >= row["runAt"]
    # A worker with the right clock takes over the job, and only after the other's death.
    held = insert(ledger, manifestUri="test:hold:60")
    await eventually(lambda: scalar(ledger, "SELECT count(*) FROM execution WHERE job_id = %s", held) == 1)
    start_worker(database_url)
    lease = read(ledger, held)["leaseUntil"]
    await eventually(lambda: read(ledger, held)["leaseUntil"] > lease)
    assert read(ledger, held)["attempt"] == 1
    skewed_worker.signal(signal.SIGKILL)
    await eventually(lambda: read(ledger, held)["status"] == "completed")
    assert (read(ledger, held)["attempt"], read(ledger, held)["retryCount"]) == (2, 1)
    await eventually(lambda: scalar(ledger, 'SELECT count(*) FROM "VerificationJob" WHERE id = %s', old) == 0)
    assert read(ledger, kept)["status"] == "cancelled"
    assert (read(ledger, later)["attempt"], read(ledger, later)["ready"]) == (0, False)


async def test_a_worker_with_a_wrong_clock_takes_over(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker, skew_seconds: int
) -> None:
    """A worker with a wrong clock takes over no lease too early, and takes over a lapsed lease."""
    healthy = start_worker(database_url)
    held = insert(ledger, manifestUri="test:hold:60")
    await eventually(lambda: scalar(ledger, "SELECT count(*) FROM execution") == 1)
    skewed = start_worker(
        database_url, module=MODULE, CLOCK_SKEW_SECONDS=str(skew_seconds), POLL_INTERVAL_SECONDS="0.1"
    )
    await eventually(lambda: scalar(ledger, "SELECT count(*) FROM iidq_queue_worker") == 2)
    insert(ledger, manifestUri="test:quick:0.1", copies=20)
    await eventually(lambda: statuses(ledger) == {"completed": 20, "processing": 1})
    assert read(ledger, held)["attempt"] == 1
    healthy.signal(signal.SIGKILL)
    await eventually(lambda: statuses(ledger) == {"completed": 21})
    assert read(ledger, held)["result"]["pid"] == skewed.pid
    skewed.signal(signal.SIGTERM)
    assert skewed.exit_code() == 0


async def test_an_enqueuer_with_a_wrong_clock_keeps_its_place_in_line(
    database_url: str, ledger: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, skew_seconds: int
) -> None:
    """A job of an enqueuer with a wrong clock keeps its place in line: the line is by the database's clock."""
    settings = load_settings(database_url=database_url)
    async with open_database(settings, pool_size=1) as database, open_enqueuer(database, settings) as enqueuer:
        first = await enqueuer.enqueue(new_job())
        wrong = time.time_ns() + skew_seconds * 1_000_000_000
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: wrong)
            patch.setattr(identifiers, "_last_ms", 0)
            job = new_job()
        assert (job.id < first) == (skew_seconds < 0)
        second = await enqueuer.enqueue(job)
        await asyncio.sleep(0)
        third = insert(ledger)
    in_line = ledger.execute(
        'SELECT id FROM "VerificationJob" ORDER BY iidq_claim_order("runAt", type, priority), id'
    ).fetchall()
    assert in_line == [(first,), (second,), (third,)]
    assert scalar(ledger, 'SELECT bool_and(abs(extract(epoch FROM now() - "createdAt")) < 3600) FROM "VerificationJob"')
