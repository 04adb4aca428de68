"""A queue with published changes: no statement is refused, and a subscriber gets equal rows."""

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from iidq.database.connections import connect
from iidq.database.migrate import migrate
from iidq.database.obstacles import find_obstacles
from iidq.embedded.postgres import EmbeddedPostgres
from iidq.queue import store, upkeep
from iidq.queue.job import JobStatus
from iidq.queue.outcome import Outcome
from iidq.settings import load_settings
from tests.conftest import postgres_binaries
from tests.database.attempts import claim, finish, sweep
from tests.eventually import eventually
from tests.job_rows import FAILED, insert, new_job, scalar

# All tables are replicated but the unlogged counts of the API.
REPLICATED = (
    "VerificationJob",
    "iidq_queue_count",
    "iidq_queue_control",
    "iidq_idempotency_key",
    "iidq_webhook_delivery",
)


@pytest.fixture
def publisher(postgres_kind: str) -> Iterator[str]:
    """URL of a migrated queue on a server with logical decoding, with all tables published and copied to ``copy``."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        home = Path(folder)
        # Run by root, the server has another account, which must pass here.
        home.chmod(0o711)
        options = {"wal_level": "logical", "fsync": "off"}
        server = EmbeddedPostgres(home / "postgres", binaries=postgres_binaries()[postgres_kind], options=options)
        server.start()
        try:
            migrate(server.url)
            with psycopg.connect(_on(server.url, "template1"), autocommit=True) as owner:
                owner.execute(SQL("CREATE DATABASE copy TEMPLATE {}").format(Identifier(_name(server.url))))
            with psycopg.connect(server.url, autocommit=True) as owner:
                owner.execute("CREATE PUBLICATION everything FOR ALL TABLES")
                owner.execute("SELECT pg_create_logical_replication_slot('copying', 'pgoutput')")
            yield server.url
        finally:
            server.close()


@pytest.fixture
def subscriber(publisher: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the copy, with a subscription to all changes."""
    with psycopg.connect(_on(publisher, "copy"), autocommit=True) as copy:
        copy.execute(
            SQL(
                "CREATE SUBSCRIPTION copying CONNECTION {} PUBLICATION everything"
                " WITH (create_slot = false, slot_name = 'copying', copy_data = false)"
            ).format(publisher)
        )
        yield copy
        copy.execute("ALTER SUBSCRIPTION copying DISABLE")
        copy.execute("ALTER SUBSCRIPTION copying SET (slot_name = NONE)")
        copy.execute("DROP SUBSCRIPTION copying")


def _on(url: str, name: str) -> str:
    return url.replace(f"/{_name(url)}?", f"/{name}?")


def _name(url: str) -> str:
    return psycopg.conninfo.conninfo_to_dict(url)["dbname"]  # type: ignore[return-value]


async def test_every_table_can_be_published(publisher: str, subscriber: psycopg.Connection[Any]) -> None:
    """A job's life, upkeep and operators' functions work under FOR ALL TABLES, and a subscriber gets equal rows."""
    settings = load_settings(database_url=publisher)
    async with await connect(settings) as connection:
        with psycopg.connect(publisher, autocommit=True) as sql:
            await store.enqueue(connection, [new_job() for _ in range(5)], max_attempts=3, announce=False)
            ok, again, lost, _running, _spare = await claim(connection)
            await finish(
                connection,
                Outcome(ok.id, ok.attempt, JobStatus.COMPLETED, result='{"status": "OK"}'),
                Outcome(again.id, again.attempt, JobStatus.QUEUED, failure="rpc.unavailable: away", delay_seconds=0.0),
            )
            sql.execute('UPDATE "VerificationJob" SET "leaseUntil" = now() WHERE id = %s', [lost.id])
            old = insert(sql, **FAILED)
            insert(sql, copies=250)
            assert scalar(sql, "SELECT count(*) > 200 FROM iidq_queue_count")
            await sweep(connection)
            assert scalar(sql, "SELECT count(*) < 100 FROM iidq_queue_count")
            for call in ("cancel_job(%s)", "retry_job(%s)", "cancel_job(%s)"):
                assert scalar(sql, f"SELECT {call}", again.id)
            sql.execute("SELECT pause_queue('a reason'), iidq_recount_queue()")
            sql.execute("SELECT resume_queue()")
            removed, _ = await upkeep.purge(
                connection, completed_seconds=None, failed_seconds=timedelta(0).total_seconds(), batch=10
            )
            assert removed == 1
            assert scalar(sql, 'SELECT count(*) FROM "VerificationJob" WHERE id = %s', old) == 0
            await store.leave(connection, "a:1:0")
            assert await find_obstacles(connection) == []
            for table in REPLICATED:
                await eventually(lambda table=table: _rows(subscriber, table) == _rows(sql, table))  # type: ignore[misc]


def _rows(sql: psycopg.Connection[Any], table: str) -> list[str]:
    found = sql.execute(SQL("SELECT each_one::text FROM {} AS each_one ORDER BY 1").format(Identifier(table)))
    return [row for (row,) in found]


async def test_a_table_without_identity_is_named(database_url: str) -> None:
    """A published table without replica identity is reported with table, publication and remedy."""
    async with await connect(load_settings(database_url=database_url)) as connection:
        await connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        await connection.execute("ALTER TABLE iidq_idempotency_key REPLICA IDENTITY NOTHING")
        [obstacle] = await find_obstacles(connection)
        assert obstacle.startswith(
            "table iidq_idempotency_key has no replica identity, which publication everything needs: "
        )
        await connection.execute(obstacle.partition(": ")[2].encode())
        assert await find_obstacles(connection) == []
