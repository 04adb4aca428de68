"""Every page of the list costs the same, at any depth and with any filter, and so do the counts."""

import itertools
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from iidq.bullmq.outline import outline_parameters
from iidq.database.connections import Connection
from iidq.database.queries import load_queries
from iidq.queue.job import JobStatus, JobType
from iidq.queue.read import queue_health, readers
from iidq.queue.read.readers import REACH
from tests.database.queue.test_cost import blocks, explain, nodes
from tests.job_rows import COMPLETED, CONTENT_HASH, FAILED, PROCESSING, Sql, insert

HISTORY = 40_000
FAILURES = 4_000
PAGE = 50
AGE = Sql("now() - generate_series * interval '1 second'")


@pytest.fixture
def postgres_kind() -> str:
    """The Postgres version of the measured costs."""
    return "embedded"


@pytest.fixture
def history(sql: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Many finished jobs, a tenth failed, some waiting."""
    sql.execute("SET iidq.writer = 'on'")
    insert(sql, COMPLETED, copies=HISTORY, createdAt=AGE, contentHash="0x" + "1" * 64)
    insert(sql, FAILED, copies=FAILURES, createdAt=AGE)
    insert(sql, copies=100)
    sql.execute("SELECT iidq_recount_queue()")
    sql.execute('VACUUM ANALYZE "VerificationJob"')
    return sql


class Plans:
    """The plans of all statements of a list, in order."""

    def __init__(self, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connection = connection
        self.taken: list[dict[str, Any]] = []
        fetch = readers._fetch

        async def explained(connection: Connection, places: str, around: bytes, parameters: dict[str, Any]) -> Any:
            query = around.replace(b"{places}", load_queries("iidq.queue")[places])
            told = await connection.execute(
                b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query, parameters, prepare=False
            )
            row = await told.fetchone()
            assert row is not None
            self.taken.append(row[0][0]["Plan"])
            return await fetch(connection, places, around, parameters)

        monkeypatch.setattr(readers, "_fetch", explained)

    async def page(self, **asked: Any) -> readers.ListedPage:
        """Return a page of 50 jobs, and keep the plans of its statements only."""
        self.taken.clear()
        return await readers.list_jobs(self.connection, limit=PAGE, **asked)

    def blocks(self) -> int:
        """Return the number of blocks read of tables and indexes."""
        return sum(blocks(plan) for plan in self.taken)

    def rows(self) -> float:
        """Return the number of rows of jobs, or entries of their indexes, read."""
        return sum(
            float(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * int(node["Actual Loops"])
            for plan in self.taken
            for node in nodes(plan)
            if node.get("Relation Name") == "VerificationJob"
        )


@pytest.fixture
async def plans(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Plans:
    """The plans on a connection with the settings of the pool's connections."""
    await connection.execute("SET enable_seqscan = off")
    return Plans(connection, monkeypatch)


@pytest.mark.parametrize(
    ("status", "depths"),
    [(None, (10_000, HISTORY)), (JobStatus.FAILED, (1_000, FAILURES - PAGE - 1))],
    ids=["all", "failed"],
)
async def test_deep_pages_cost_as_much_as_the_first(
    history: psycopg.Connection[Any], plans: Plans, status: JobStatus | None, depths: tuple[int, ...]
) -> None:
    """Page 1 and page 800 by cursor read the same few blocks, in the order of an index."""
    await plans.page(status=status)
    first = plans.blocks()
    for depth in depths:
        before = await readers.list_jobs(plans.connection, limit=1, offset=depth, status=status, reach=10 * HISTORY)
        assert before.next is not None
        assert len((await plans.page(status=status, after=before.next)).jobs) == PAGE
        assert plans.blocks() <= first + 40
        assert plans.blocks() < 7 * PAGE


async def test_what_has_not_ended_is_listed_past_the_history(history: psycopg.Connection[Any], plans: Plans) -> None:
    """Waiting jobs are listed by small indexes of their own, and running jobs without reading the waiting jobs."""
    assert len((await plans.page(status=JobStatus.QUEUED)).jobs) == PAGE
    assert plans.blocks() < 400
    insert(history, copies=5_000)
    insert(history, PROCESSING, copies=2)
    assert len((await plans.page(status=JobStatus.PROCESSING)).jobs) == 2
    assert plans.blocks() < 30


@pytest.mark.parametrize("unfinished", [0, 5_000])
async def test_no_filter_costs_more_than_a_bounded_number_of_rows(
    history: psycopg.Connection[Any], plans: Plans, unfinished: int
) -> None:
    """Each filter, alone and combined, reads a bounded number of rows: at the top, deep, and without any match."""
    insert(history, copies=unfinished or 1)
    history.execute('VACUUM ANALYZE "VerificationJob"')
    contents = (None, CONTENT_HASH, "0x" + "1" * 64, "0x" + "2" * 64)
    for status, kind, content_hash in itertools.product((None, *JobStatus), (None, *JobType), contents):
        for place in ({}, {"offset": HISTORY // 2}):
            page = await plans.page(status=status, type=kind, content_hash=content_hash, **place)
            # A small index, the history, and one span of the history; and the listed jobs.
            assert plans.rows() <= 5 * REACH + 2 * PAGE, (status, kind, content_hash)
            assert page.next is None or page.next.skip < 2**31


async def test_one_contents_jobs_are_found_past_all_others(history: psycopg.Connection[Any], plans: Plans) -> None:
    """A content hash leads to its own jobs without the history; an unknown hash costs under 300 blocks."""
    assert (await plans.page(content_hash="0x" + "2" * 64)).jobs == []
    assert plans.blocks() < 300
    page = await readers.list_jobs(plans.connection, limit=500, content_hash=CONTENT_HASH)
    assert len({job.id for job in page.jobs}) == 500


async def test_counts_do_not_count(history: psycopg.Connection[Any], connection: Connection) -> None:
    """The counts of `/stats` are read from fewer than 30 blocks, without counting."""
    assert (await queue_health.read_health(connection)).completed == HISTORY
    assert blocks(await explain(connection, "queue_health", {})) < 30


async def test_an_outline_costs_what_it_tells(history: psycopg.Connection[Any], connection: Connection) -> None:
    """The mirror of the queue in Redis reads unfinished and newest rows, never the whole history."""
    for since, most_rows in ((datetime.now(UTC), 1_000), (None, 11_000)):
        plan = await explain(connection, "outline", outline_parameters(since, most_failed=1_000), "iidq.bullmq")
        scanned = [node for node in nodes(plan) if node.get("Relation Name") == "VerificationJob"]
        assert {node["Node Type"] for node in scanned} <= {"Index Scan", "Index Only Scan"}
        # The line of 100 is read for its order and for the versions at both ends.
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scanned) <= most_rows + 3 * 100
