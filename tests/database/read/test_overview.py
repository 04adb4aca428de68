"""Slots on the operations page: never more in use than exist, for any number of held jobs."""

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iidq.database.queries import load_queries
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Progress
from iidq.queue.read.queue_health import MOST_WORKERS, read_live_overview
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import PROCESSING, insert, scalar, statuses

QUERIES = load_queries("iidq.queue")

SLOTS = 3

WORKERS = st.lists(
    st.fixed_dictionaries(
        {"concurrency": st.integers(1, 4), "held": st.integers(0, 9), "alive": st.booleans(), "known": st.booleans()}
    ),
    max_size=4,
)


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version."""
    return "embedded"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workers=WORKERS)
def test_running_is_never_above_the_slots(sql: psycopg.Connection[Any], workers: list[dict[str, Any]]) -> None:
    """Running jobs never exceed the slots, per worker and in all, for any workers and any number of held jobs."""
    sql.execute('TRUNCATE iidq_queue_worker; TRUNCATE "VerificationJob"')
    for number, worker in enumerate(workers):
        if worker["held"]:
            insert(sql, PROCESSING, copies=worker["held"], workerId=f"w{number}")
        if worker["known"]:
            sql.execute(
                "INSERT INTO iidq_queue_worker"
                ' ("workerId", concurrency, "aliveUntil", host, pid, version, running, listening)'
                " VALUES (%s, %s, now() + make_interval(hours => %s), 'h', 1, '0', 0, true)",
                [f"w{number}", worker["concurrency"], 1 if worker["alive"] else -1],
            )
    with sql.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        head = cursor.execute(QUERIES["queue_health"]).fetchone()
        seen = cursor.execute(QUERIES["overview_workers"], {"most": MOST_WORKERS}).fetchall()
    assert head is not None
    assert head["running"] <= min(head["slots"], head["active"])
    assert head["running"] == sum(worker["running"] for worker in seen if worker["alive"])
    for worker in seen:
        if worker["concurrency"] is None:
            assert worker["running"] is None
        else:
            assert worker["running"] == min(worker["leases"], worker["concurrency"])


async def test_a_busy_worker_reports_no_more_than_its_slots(
    database_url: str, sql: psycopg.Connection[Any], connection: Any
) -> None:
    """A busy worker's row and the operations page stay within the slots through a whole backlog."""
    # A larger number would end the worker, and with it the test.
    sql.execute("ALTER TABLE iidq_queue_worker ADD CHECK (running BETWEEN 0 AND concurrency)")

    async def short(job: ClaimedJob, progress: Progress) -> dict[str, Any]:
        # Read the page in the middle of the backlog.
        now = await read_live_overview(connection)
        assert now.health.running <= SLOTS
        assert all(worker.running is None or worker.running <= SLOTS for worker in now.workers)
        return {"status": "OK"}

    insert(sql, copies=60)
    async with working(database_url, short, worker_concurrency=SLOTS, poll_interval_seconds=0.05):
        await eventually(lambda: statuses(sql) == {"completed": 60})
        assert scalar(sql, "SELECT max(running) <= max(concurrency) FROM queue_workers") is True
