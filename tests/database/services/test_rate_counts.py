"""Counts shared between API processes through Postgres."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from iidq.database.pool import Database, open_database
from iidq.database.queries import load_queries
from iidq.errors import ObjectMissing
from iidq.rate_window import KeyedCount
from iidq.settings import Settings
from iidq.web.guard.rate_sharing import PostgresCounts

A, B = b"a" * 16, b"b" * 16


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """A pool as in an API process."""
    async with open_database(settings, pool_size=4) as opened:
        yield opened


async def test_additions_of_all_processes_add_up(database: Database) -> None:
    """Each process learns its clients' totals over all processes since a step, and the database's time."""
    counts = PostgresCounts(database)
    totals, now = await counts.add([KeyedCount(A, 7, 2), KeyedCount(B, 7, 1)], since_bucket=0)
    assert sorted(totals) == [KeyedCount(A, 7, 2), KeyedCount(B, 7, 1)]
    assert now is not None
    assert abs(now - time.time()) < 60
    await counts.add([KeyedCount(A, 8, 5)], since_bucket=0)
    totals, _ = await counts.add([KeyedCount(A, 7, 3)], since_bucket=0)
    assert sorted(totals) == [KeyedCount(A, 7, 5), KeyedCount(A, 8, 5)]
    totals, _ = await counts.add([KeyedCount(A, 9, 1)], since_bucket=7)
    assert sorted(totals) == [KeyedCount(A, 8, 5), KeyedCount(A, 9, 1)]


async def test_processes_do_not_lock_each_other_out(database: Database) -> None:
    """Processes with the same clients in opposite orders neither deadlock nor lose a count."""
    counts = PostgresCounts(database)
    clients = [KeyedCount(bytes([number]) * 16, 1, 1) for number in range(50)]
    await asyncio.gather(
        *(counts.add(clients if number % 2 else clients[::-1], since_bucket=0) for number in range(40))
    )
    totals, _ = await counts.add([client._replace(requests=0) for client in clients], since_bucket=0)
    assert {count.requests for count in totals} == {40}


async def test_old_counts_are_removed_in_bounded_batches(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All counts of steps before the given step are removed, in bounded batches; the others stay."""
    monkeypatch.setattr("iidq.web.guard.rate_sharing._PURGE_BATCH", 10)
    counts = PostgresCounts(database)
    await counts.add(
        [KeyedCount(bytes([number]) * 16, step, 1) for number in range(25) for step in (1, 2)], since_bucket=0
    )
    await counts.purge(before_bucket=2)
    with psycopg.connect(database_url) as connection:
        left = connection.execute("SELECT step, count(*) FROM iidq_rate_count GROUP BY step").fetchall()
    assert left == [(2, 25)]


async def test_a_database_without_the_table_is_unavailable(database: Database, database_url: str) -> None:
    """A database without the table raises ``ObjectMissing``, so each process goes on with its own counts."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE iidq_rate_count")
    with pytest.raises(ObjectMissing):
        await PostgresCounts(database).add([KeyedCount(A, 1, 1)], since_bucket=0)


def test_indexes_serve_both_statements(database_url: str) -> None:
    """Exchange and removal of counts use indexes, without a scan of the table."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO iidq_rate_count SELECT decode(md5(client::text), 'hex'), step, 1"
            " FROM generate_series(1, 5000) AS client, generate_series(1, 7) AS step"
        )
        connection.execute("ANALYZE iidq_rate_count")
        for name, parameters in (
            ("share_rates", {"keys": [A, B], "steps": [9, 9], "requests": [1, 1], "since_step": 3}),
            ("purge_rates", {"before_step": 1, "batch": 100}),
        ):
            plan: list[tuple[Any, ...]] = connection.execute(
                b"EXPLAIN " + load_queries("iidq.web.guard")[name], parameters
            ).fetchall()
            assert "Seq Scan on iidq_rate_count" not in "\n".join(line for (line,) in plan)
