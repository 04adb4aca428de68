"""Every page of the list costs the same, at whichever depth and by whichever filter, and so do the counts."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from iidq.accelerator.bull_outline import outline_parameters
from iidq.database import Connection
from iidq.queue import readers
from iidq.queue.job import JobStatus
from iidq.queue.paging import Cursor
from tests.database.test_cost import blocks, explain, nodes
from tests.job_rows import COMPLETED, CONTENT_HASH, FAILED, PROCESSING, Sql, insert

HISTORY = 40_000
FAILURES = 4_000
PAGE = 50
AGE = Sql("now() - generate_series * interval '1 second'")


@pytest.fixture
def postgres_kind() -> str:
    """The version that the costs were measured with."""
    return "embedded"


@pytest.fixture
def history(sql: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Many finished jobs, a tenth of them failed, some waiting."""
    sql.execute("SET iidq.writer = 'on'")
    insert(sql, COMPLETED, copies=HISTORY, createdAt=AGE, contentHash="0x" + "1" * 64)
    insert(sql, FAILED, copies=FAILURES, createdAt=AGE)
    insert(sql, copies=100)
    sql.execute("SELECT recount_queue()")
    sql.execute('VACUUM ANALYZE "VerificationJob"')
    return sql


async def page(connection: Connection, name: str, after: Cursor | None = None, **filters: Any) -> dict[str, Any]:
    """The plan of one page as the store asks for it."""
    asked = {"status": None, "type": None, "content_hash": None, **filters}
    place = {"after_time": after and after.created_at, "after_id": after and after.id}
    return await explain(connection, name, asked | place | {"limit": PAGE, "offset": 0})


async def cursor_at(connection: Connection, depth: int, status: JobStatus | None) -> Cursor:
    """The cursor that a reader has after so many jobs."""
    [job] = await readers.list_jobs(connection, limit=1, offset=depth, status=status)
    return Cursor.of(job)


@pytest.mark.parametrize(
    ("status", "depths"),
    [(None, (10_000, HISTORY)), (JobStatus.FAILED, (1_000, FAILURES - PAGE))],
    ids=["all", "failed"],
)
async def test_deep_pages_cost_as_much_as_the_first(
    history: psycopg.Connection[Any], connection: Connection, status: JobStatus | None, depths: tuple[int, ...]
) -> None:
    """By cursor, page 1 and page 800 touch the same few blocks, in the order of an index and without sorting."""
    filters: dict[str, Any] = {"status": status and status.value}
    first = await page(connection, "list_newest", **filters)
    for depth in depths:
        deep = await page(connection, "list_newest", await cursor_at(connection, depth, status), **filters)
        assert blocks(deep) <= blocks(first) + 20
        assert blocks(deep) < 3 * PAGE
        assert not any(node["Node Type"] == "Sort" for node in nodes(deep))


async def test_what_has_not_ended_is_listed_past_the_history(
    history: psycopg.Connection[Any], connection: Connection
) -> None:
    """The jobs that wait are found through their own small indexes, and those that run past all that wait."""
    waiting = await page(connection, "list_queued", status="queued")
    assert blocks(waiting) < 100
    insert(history, copies=5_000)
    insert(history, PROCESSING, copies=2)
    assert blocks(await page(connection, "list_running", status="processing")) < 10
    assert len(await readers.list_jobs(connection, limit=10, status=JobStatus.PROCESSING)) == 2


async def test_one_contents_jobs_are_found_past_all_others(
    history: psycopg.Connection[Any], connection: Connection
) -> None:
    """A content hash leads to its own jobs, not through the history; an unknown one costs next to nothing."""
    unknown = await page(connection, "list_content", content_hash="0x" + "2" * 64)
    assert blocks(unknown) < 100
    ids: set[UUID] = {job.id for job in await readers.list_jobs(connection, limit=500, content_hash=CONTENT_HASH)}
    assert len(ids) == 500


async def test_counts_do_not_count(history: psycopg.Connection[Any], connection: Connection) -> None:
    """The numbers of `/stats` are read, whatever they are, from a handful of blocks."""
    assert (await readers.count(connection)).completed == HISTORY
    assert blocks(await explain(connection, "count", {})) < 30


async def test_an_outline_costs_what_it_tells(history: psycopg.Connection[Any], connection: Connection) -> None:
    """Who shows the queue in Redis reads what is unfinished and the newest rows, never the whole history."""
    for since, most_rows in ((datetime.now(UTC), 1_000), (None, 11_000)):
        plan = await explain(connection, "outline", outline_parameters(since, most_failed=1_000))
        scanned = [node for node in nodes(plan) if node.get("Relation Name") == "VerificationJob"]
        assert {node["Node Type"] for node in scanned} <= {"Index Scan", "Index Only Scan"}
        # The line of 100 is read for its order and for the versions at both ends.
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scanned) <= most_rows + 3 * 100
