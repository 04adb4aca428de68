"""Operators' pages cost the same for any history, and for any number of failed, waiting or equal jobs."""

from typing import Any

import psycopg
import pytest

from iidq.database.connections import Connection
from iidq.queue.read.browsing import JobState, Search, browse
from iidq.queue.read.queue_health import MOST_COUNTED, read_recent_overview
from tests.database.queue.test_cost import blocks, explain, nodes
from tests.job_rows import COMPLETED, CONTENT_HASH, FAILED, Sql, insert

HISTORY = 8_000
FAILURES = 3_000
WAITING = 2_000
PAGE = 50
AGE = Sql("now() - generate_series * interval '1 second'")


@pytest.fixture
def postgres_kind() -> str:
    """The Postgres version of the measured costs."""
    return "embedded"


@pytest.fixture
def history(sql: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Many finished jobs and many waiting and delayed jobs."""
    sql.execute("SET iidq.writer = 'on'")
    insert(sql, COMPLETED, copies=HISTORY, createdAt=AGE, contentHash="0x" + "1" * 64)
    insert(sql, FAILED, copies=FAILURES, createdAt=AGE, completedAt=AGE, contentHash="0x" + "1" * 64)
    insert(sql, FAILED, copies=FAILURES, createdAt=AGE, completedAt=AGE, error="rpc.unavailable: down")
    insert(sql, copies=WAITING)
    insert(sql, copies=WAITING, ready=False, runAt=Sql("now() + generate_series * interval '1 second'"))
    sql.execute("SELECT iidq_recount_queue()")
    sql.execute('VACUUM ANALYZE "VerificationJob"')
    return sql


async def plan_of(connection: Connection, name: str, **parameters: Any) -> dict[str, Any]:
    """Return the plan of one page."""
    place = {"after_place": None, "after_id": None, "limit": PAGE + 1}
    return await explain(connection, name, place | parameters)


async def test_a_page_follows_its_index(history: psycopg.Connection[Any], connection: Connection) -> None:
    """Each state and each cause is listed from one end of an index, without sorting other rows."""
    any_job = dict.fromkeys(("status", "ready", "type", "content_hash", "manifest", "registry", "ended"))
    history_of: dict[str, Any] = {**any_job, "after_time": None, "skip": 0, "reach": 5_000}
    for name, parameters in (
        ("browse_line", {}),
        ("browse_delayed", {}),
        ("browse_cause", {"cause": "rpc.unavailable"}),
        ("places_newest", history_of),
        ("places_newest", {**history_of, "ended": "failed"}),
    ):
        plan = await plan_of(connection, name, **parameters)
        assert blocks(plan) < 3 * PAGE, name


async def test_deep_pages_cost_as_much_as_the_first(history: psycopg.Connection[Any], connection: Connection) -> None:
    """A deep page by cursor costs as much as the first, in the line and in the failures of one cause."""
    for name, state, cause in (("browse_line", JobState.WAITING, None), ("browse_cause", None, "rpc.unavailable")):
        page = await browse(connection, limit=WAITING - 100, state=state, cause=cause)
        assert page.next is not None
        deep = {"after_place": page.next.created_at, "after_id": page.next.id, "cause": cause}
        plan = await plan_of(connection, name, **deep)
        assert blocks(plan) < 3 * PAGE


async def test_a_search_without_an_index_is_bounded(history: psycopg.Connection[Any], connection: Connection) -> None:
    """A search without an index reads at most ``reach`` rows."""
    conditions = dict.fromkeys(("status", "ready", "type", "content_hash", "registry", "ended", "after_time"))
    plan = await plan_of(connection, "places_newest", **conditions, manifest="nowhere", skip=0, reach=1_000)
    assert max(node["Actual Rows"] for node in nodes(plan)) <= 1_000


async def test_a_popular_content_is_not_searched_in_the_whole_table(
    history: psycopg.Connection[Any], connection: Connection
) -> None:
    """A search for a frequent content hash does not scan the table, though the planner would."""
    await connection.execute("SET enable_seqscan = off")
    conditions = dict.fromkeys(("status", "ready", "type", "after_time"))
    bounds = {"skip": 0, "reach": 500, "spans": 125}
    plan = await plan_of(connection, "places_content", content_hash=CONTENT_HASH, **conditions, **bounds)
    assert not any(node["Node Type"] == "Seq Scan" for node in nodes(plan))
    found = await browse(connection, limit=PAGE, search=Search(content_hash=CONTENT_HASH), reach=500)
    assert len(found.jobs) == PAGE


async def test_failures_are_counted_up_to_a_bound(history: psycopg.Connection[Any], connection: Connection) -> None:
    """Causes are found without a walk through the failures, and counted only up to the number shown."""
    lately = await read_recent_overview(connection)
    assert {cause.cause: cause.jobs for cause in lately.causes} == {
        "manifest.missing": MOST_COUNTED,
        "rpc.unavailable": MOST_COUNTED,
    }
    plan = await explain(connection, "overview_causes", {"causes": 50, "most": 101})
    assert max(node["Actual Rows"] for node in nodes(plan)) <= 101
