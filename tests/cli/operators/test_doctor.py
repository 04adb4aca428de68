"""Test ``iidq doctor``: each part is really tried, and each fault is shown with a remedy."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from iidq.cli.operators.diagnosis import diagnose
from iidq.cli.operators.findings import Finding, Level
from iidq.embedded.manifests import serve_manifests
from iidq.settings import Settings
from tests.database.working import working
from tests.eventually import eventually
from tests.faults.database.pgbouncer import find_pgbouncer, pool_transactions
from tests.job_rows import insert, scalar
from tests.redis_server import RedisServer
from tests.restricted_role import restricted_role

CLOSED = "http://127.0.0.1:9"


@pytest.fixture
async def well(database_url: str, development_chain: str) -> AsyncIterator[dict[str, Any]]:
    """Settings of an installation without a fault, except for a missing worker."""
    async with serve_manifests() as manifests:
        yield {"database_url": database_url, "rpc_url": development_chain, "ipfs_gateways": (manifests.base_url,)}


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as the operator."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def look(hear_seconds: float = 3.0, **settings: Any) -> dict[str, list[Finding]]:
    """Return the findings by check."""
    found: dict[str, list[Finding]] = {}
    for finding in await diagnose(
        Settings(_env_file=None, **{"redis_url": None} | settings), hear_seconds=hear_seconds
    ):
        found.setdefault(finding.check, []).append(finding)
        assert finding.tried
        assert finding.came_back
        assert finding.to_do or finding.level is Level.OK
    return found


async def test_a_lacking_right_is_named(well: dict[str, Any]) -> None:
    """Doctor names the role, the object and the right, and shows the statement to grant the right."""
    with restricted_role(well["database_url"]) as role:
        role.revoke("INSERT, UPDATE", "iidq_queue_worker")
        [rights] = (await look(**well | {"database_url": role.url}))["rights"]
    assert rights.level is Level.BROKEN
    assert f"role {role.name} lacks INSERT, UPDATE on table iidq_queue_worker" in rights.came_back
    assert f'GRANT INSERT, UPDATE ON "public"."iidq_queue_worker" TO "{role.name}"' in rights.came_back


async def test_counts_that_are_not_those_of_the_jobs_are_named(
    well: dict[str, Any], sql: psycopg.Connection[Any]
) -> None:
    """After a load without the triggers, doctor names state, number and a working remedy."""
    insert(sql, copies=2)
    sql.execute("UPDATE iidq_queue_count SET waiting = 0")
    [queue] = (await look(**well))["queue"]
    assert (queue.level, queue.came_back) == (Level.WARNING, "2 jobs are waiting, and 0 are counted")
    assert "iidq_recount_queue()" in queue.to_do
    sql.execute("SELECT iidq_recount_queue()")
    assert (await look(**well))["queue"][0].level is Level.OK


async def test_a_workers_fault_is_shown(well: dict[str, Any], sql: psycopg.Connection[Any]) -> None:
    """A missing right of a live worker is a finding, even where doctor's own role has the right."""
    with restricted_role(well["database_url"]) as role:
        role.revoke("DELETE", "iidq_queue_count")
        async with working(role.url, _never, poll_interval_seconds=0.3):
            await eventually(lambda: scalar(sql, "SELECT cardinality(faults) FROM queue_health") == 1)
            found = await look(**well)
    assert found["rights"][0].level is Level.OK
    assert found["workers"][0].level is Level.BROKEN
    assert "lacks DELETE on table iidq_queue_count" in found["workers"][0].came_back


async def test_all_is_well(well: dict[str, Any], sql: psycopg.Connection[Any]) -> None:
    """With a live worker every check passes without a remedy."""
    async with working(well["database_url"], _never, poll_interval_seconds=0.3):
        await eventually(lambda: scalar(sql, "SELECT count(*) FROM queue_workers WHERE listening") == 1)
        found = await look(**well)
    assert list(found) == ["database", "migrations", "LISTEN", "rights", "workers", "queue", "chain", "gateway"]
    assert {finding.level for group in found.values() for finding in group} == {Level.OK}
    assert {finding.to_do for group in found.values() for finding in group} == {""}
    assert found["chain"][0].came_back.startswith("chain 31337, block ")


async def _never(*_: object) -> dict[str, Any]:
    raise AssertionError("no job was asked for")


async def test_missing_workers_and_a_pause_are_told(well: dict[str, Any], sql: psycopg.Connection[Any]) -> None:
    """Jobs without a worker are a fault; a pause is a warning with reason and remedy."""
    insert(sql, copies=3)
    sql.execute("SELECT pause_queue('maintenance')")
    found = await look(**well)
    [workers], [queue] = found["workers"], found["queue"]
    assert (workers.level, workers.came_back) == (Level.BROKEN, "no live worker, and 3 jobs wait")
    assert "iidq worker" in workers.to_do
    assert (queue.level, "maintenance" in queue.came_back) == (Level.WARNING, True)
    assert "iidq resume" in queue.to_do


async def test_jobs_that_wait_too_long_are_told(well: dict[str, Any], sql: psycopg.Connection[Any]) -> None:
    """Live workers behind the load are a warning."""
    sql.execute(
        'INSERT INTO iidq_queue_worker ("workerId", host, pid, version, concurrency, running, listening, "aliveUntil")'
        " VALUES ('w', 'h', 1, '0', 3, 3, false, now() + interval '1 minute')"
    )
    insert(sql, runAt="2024-01-01T00:00:00Z")
    found = await look(**well)
    assert [found[check][0].level for check in ("workers", "queue")] == [Level.WARNING, Level.WARNING]
    assert "start more workers" in found["queue"][0].to_do


async def test_a_database_that_is_away_is_told_in_its_own_words() -> None:
    """The driver's reason is shown without credentials; checks on the database are skipped."""
    found = await look(database_url="postgresql://me:secret@127.0.0.1:9/none", rpc_url=CLOSED, ipfs_gateways=(CLOSED,))
    assert list(found) == ["database", "chain", "gateway"]
    [database] = found["database"]
    assert (database.level, "refused" in database.came_back) == (Level.BROKEN, True)
    assert "secret" not in str(found)


async def test_missing_migrations_are_named(empty_database_url: str, well: dict[str, Any]) -> None:
    """Before `iidq migrate` every migration is missing, and the remedy is named."""
    found = await look(**well | {"database_url": empty_database_url})
    [migrations] = found["migrations"]
    assert (migrations.level, migrations.to_do) == (Level.BROKEN, "run `iidq migrate`")
    assert "workers" not in found


async def test_half_done_and_foreign_migrations_are_told(well: dict[str, Any], sql: psycopg.Connection[Any]) -> None:
    """A missing migration is broken; a migration of a newer iidq is a warning."""
    sql.execute("UPDATE _yoyo_migration SET migration_id = '9999_future' WHERE migration_id ~ '^0005'")
    [migrations] = (await look(**well))["migrations"]
    assert (migrations.level, "0005_" in migrations.came_back) == (Level.BROKEN, True)
    sql.execute("INSERT INTO _yoyo_migration SELECT 'x', '0005_control', applied_at_utc FROM _yoyo_migration LIMIT 1")
    [migrations] = (await look(**well))["migrations"]
    assert (migrations.level, "9999_future" in migrations.came_back) == (Level.WARNING, True)


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """Return the URL of the same database through a pooler."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        # As root the pooler runs as an unprivileged user and must read the configuration.
        Path(folder).chmod(0o755)
        with pool_transactions(Path(folder), database_url) as url:
            yield url


@pytest.mark.skipif(find_pgbouncer() is None, reason="pgbouncer is not installed")
async def test_a_pooler_between_is_noticed(well: dict[str, Any], pooled_url: str) -> None:
    """Behind a transaction pooler LISTEN delivers nothing, which is only a warning because polling still works."""
    found = await look(hear_seconds=0.5, **well | {"database_url": pooled_url})
    [listening] = found["LISTEN"]
    assert (listening.level, "pooler" in listening.came_back) == (Level.WARNING, True)


async def test_one_endpoint_of_several_is_enough(well: dict[str, Any]) -> None:
    """A dead fallback is a warning while another endpoint or gateway answers; without any, the part is broken."""
    alive, gateway = well["rpc_url"], well["ipfs_gateways"][0]
    found = await look(**well | {"rpc_urls": {31337: (CLOSED, alive)}, "ipfs_gateways": (gateway, CLOSED)})
    assert [finding.level for finding in found["chain"]] == [Level.WARNING, Level.OK]
    assert [finding.level for finding in found["gateway"]] == [Level.OK, Level.WARNING]
    found = await look(**well | {"rpc_urls": {1: (alive,)}, "rpc_url": CLOSED, "ipfs_gateways": (CLOSED,)})
    assert [finding.level for finding in found["chain"]] == [Level.BROKEN, Level.BROKEN]
    assert "it serves chain 31337, not 1" in found["chain"][1].came_back
    assert found["gateway"][0].level is Level.BROKEN


async def test_what_is_not_set_is_told() -> None:
    """Doctor names every missing variable, instead of stopping at the first."""
    found = await look(ipfs_gateways=(CLOSED,))
    assert [found[check][0].came_back for check in ("database", "chain")] == ["it is not set"] * 2


def test_exit_codes_and_json(well: dict[str, Any], tmp_path: Path) -> None:
    """A broken part gives exit code 1; `--json` prints the same findings, with a key for each part of a finding."""
    environment = os.environ | {
        "DATABASE_URL": well["database_url"],
        "RPC_URL": "http://me:hidden@127.0.0.1:9/hidden-key",
        "IPFS_GATEWAYS": "http://me:hidden@127.0.0.1:9/hidden-key",
    }
    for option in ((), ("--json",)):
        done = subprocess.run(
            [sys.executable, "-m", "iidq", "doctor", *option],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")
        assert "hidden" not in done.stdout
    findings = json.loads(done.stdout)
    assert {finding["outcome"] for finding in findings} == {"ok", "broken"}
    assert findings[0].keys() == {"check", "outcome", "tried", "cameBack", "toDo"}


@pytest.fixture
def redis_url() -> Iterator[str]:
    """Start a Redis with a password; return the URL."""
    with RedisServer("--requirepass", "hidden") as server:
        yield server.url.replace("//", "//:hidden@")


async def test_redis_is_looked_at_where_it_is_set(redis_url: str) -> None:
    """Doctor writes and reads a key; a wrong password or a missing server is a warning, because Redis is optional."""
    outcomes = []
    for url in (redis_url, redis_url.replace("hidden", "wrong"), "redis://127.0.0.1:9/0"):
        [redis] = (await look(ipfs_gateways=(CLOSED,), redis_url=url))["Redis"]
        assert "hidden" not in str(redis)
        outcomes.append(redis.level)
    assert outcomes == [Level.OK, Level.WARNING, Level.WARNING]
