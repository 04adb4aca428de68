"""An open psql transaction on one running job, and the other jobs of its worker."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.database.processing.test_work_loop import Executions
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import insert, read, statuses


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as in psql."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def test_a_locked_row_holds_up_no_other_outcome(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A locked row delays only its own outcome: other jobs are stored at once, and each job runs once."""
    handler = Executions(waits=True)
    locked, *others = [insert(sql) for _ in range(4)]
    async with working(database_url, handler, worker_concurrency=4, job_lease_seconds=1.5):
        await eventually(lambda: handler.running == 4)
        with psycopg.connect(database_url) as forgotten:
            forgotten.execute('UPDATE "VerificationJob" SET priority = 1 WHERE id = %s', [locked])
            handler.go_on.set()
            await eventually(lambda: {read(sql, job)["status"] for job in others} == {"completed"})
            later = insert(sql)
            await eventually(lambda: read(sql, later)["status"] == "completed")
            assert read(sql, locked)["status"] == "processing"
            forgotten.rollback()
        await eventually(lambda: statuses(sql) == {"completed": 5})
    assert set(handler.begun.values()) == {1}
    assert read(sql, locked)["retryCount"] == 0
