"""Results and limits of iidq are independent of the settings of an operator's role or database."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from iidq.cli.operators.diagnosis import diagnose
from iidq.cli.operators.findings import Level
from iidq.database.connections import connect
from iidq.database.migrate import migrate
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Progress
from iidq.settings import Settings, load_settings
from tests.database.connections.session_settings import HOSTILE, impose, run_core
from tests.database.working import working
from tests.eventually import eventually
from tests.faults.database.pgbouncer import find_pgbouncer, pool_transactions
from tests.job_rows import insert, scalar, statuses
from tests.web.conftest import serve_api  # noqa: F401 — a fixture
from tests.web.serving import JOBS, ServeApi

EXAMPLES = max(2, int(os.environ.get("IIDQ_EXAMPLES", "30")) // 10)
ALL_AT_ONCE = [
    {name: values[number % len(values)] for name, values in HOSTILE.items()}
    for number in range(max(map(len, HOSTILE.values())))
]


def test_each_setting_alone(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """The core works the same under each single setting, of the database or of the role."""
    for number, (name, values) in enumerate(HOSTILE.items()):
        impose(sql, {name: values[number % len(values)]}, role=number % 2 == 0)
        asyncio.run(run_core(database_url))


@given(
    imposed=st.dictionaries(st.sampled_from(list(HOSTILE)), st.integers(0, 2), min_size=1),
    role=st.booleans(),
)
@profile(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_settings_together(
    imposed: dict[str, int], role: bool, database_url: str, sql: psycopg.Connection[Any]
) -> None:
    """The core works the same under any combination of settings."""
    impose(sql, {name: HOSTILE[name][number % len(HOSTILE[name])] for name, number in imposed.items()}, role=role)
    asyncio.run(run_core(database_url))


async def _handle(_job: ClaimedJob, progress: Progress) -> dict[str, Any]:
    progress(50)
    return {"status": "OK"}


@pytest.mark.parametrize("imposed", ALL_AT_ONCE[:2])
async def test_the_whole_service(
    imposed: dict[str, str],
    database_url: str,
    sql: psycopg.Connection[Any],
    serve_api: ServeApi,  # noqa: F811
) -> None:
    """API, worker and doctor work under all settings together."""
    impose(sql, imposed)
    fields = {"registryAddress": "0x" + "ab" * 20, "contentHash": "0x" + "cd" * 32}
    async with (
        serve_api(database_url=database_url) as api,
        working(database_url, _handle, poll_interval_seconds=0.3),
    ):
        reply = await api.post(f"{JOBS}/verify", json={**fields, "manifestURI": "https://m.example/m.json"})
        assert reply.status_code == 200, reply.text
        await eventually(lambda: statuses(sql) == {"completed": 1})
        job = (await api.get(reply.headers["location"])).json()
        assert (job["status"], job["result"]) == ("completed", {"status": "OK"})
        assert job["completedAt"].endswith("Z")
        assert (await api.get(JOBS)).json()["jobs"][0]["jobId"] == job["jobId"]
        assert (await api.get(f"{JOBS}/stats")).json()["completed"] == 1
        assert (await api.get("/readyz")).status_code == 200
        await eventually(lambda: scalar(sql, "SELECT bool_and(listening) FROM queue_workers"))
        found = await diagnose(
            Settings(_env_file=None, database_url=database_url, ipfs_gateways=("http://127.0.0.1:9",))
        )
    ours = {finding.check: finding.level for finding in found if finding.check not in ("chain", "gateway")}
    assert set(ours.values()) == {Level.OK}, found


@pytest.mark.parametrize("imposed", ALL_AT_ONCE[:1])
def test_migrations(imposed: dict[str, str], empty_database_url: str) -> None:
    """An empty database with such settings is migrated into the schema ``public``, and works."""
    with psycopg.connect(empty_database_url, autocommit=True) as sql:
        impose(sql, imposed)
        assert migrate(empty_database_url)
        assert migrate(empty_database_url) == []
        assert statuses(sql) == {}
    asyncio.run(run_core(empty_database_url))


@pytest.mark.parametrize("imposed", ALL_AT_ONCE[:2])
async def test_operators_functions(imposed: dict[str, str], database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Operators' functions and views work in a session with such settings, apart from the path."""
    impose(sql, {**imposed, "search_path": "public"})
    with psycopg.connect(database_url, autocommit=True, client_encoding="utf8") as theirs:
        job_id = insert(theirs)
        theirs.execute("SELECT pause_queue('why'), resume_queue()")
        assert theirs.execute("SELECT cancel_job(%s), retry_job(%s)", [job_id, job_id]).fetchone() == (True, True)
        assert theirs.execute("SELECT state FROM queue_health").fetchone() == ("no workers",)
        theirs.execute(
            "INSERT INTO iidq_webhook_delivery (\"jobId\", url) VALUES (%s, 'https://a.example/h?k=1')", [job_id]
        )
        told = theirs.execute("SELECT iidq_callback_state(%s) ->> 'url'", [job_id]).fetchone()
        assert told == ("https://a.example/h?***",)


@pytest.fixture
def pooled_url(database_url: str, request: pytest.FixtureRequest, sql: psycopg.Connection[Any]) -> Iterator[str]:
    """The test's database with hostile settings, through a pooler with later connections."""
    if find_pgbouncer() is None:
        pytest.skip("pgbouncer is not installed")
    impose(sql, request.getfixturevalue("imposed"))
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        # Run by root, the pooler has another account, which must read the configuration.
        Path(folder).chmod(0o755)
        with pool_transactions(Path(folder), database_url) as url:
            yield url


@pytest.mark.parametrize("imposed", ALL_AT_ONCE[1:])
async def test_behind_a_transaction_pooler(
    imposed: dict[str, str], pooled_url: str, sql: psycopg.Connection[Any]
) -> None:
    """The core and a worker work on a pooler's shared connections, and leave no setting there."""
    await run_core(pooled_url)
    insert(sql, copies=5)
    async with working(pooled_url, _handle, poll_interval_seconds=0.3, job_lease_seconds=0.5):
        await eventually(lambda: statuses(sql).get("completed") == 5)
    with psycopg.connect(pooled_url, autocommit=True, client_encoding="utf8") as another:
        left = another.execute("SELECT current_setting('IntervalStyle'), current_setting('lock_timeout')")
        assert left.fetchone() == (imposed["IntervalStyle"], "1s")


async def test_connections_of_ones_own_have_them_too(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Connections of listeners and lease keepers have none of the operator's time-outs."""
    impose(sql, {"idle_session_timeout": "1s", "statement_timeout": "1s", "search_path": "pg_catalog"})
    async with await connect(load_settings(database_url=database_url)) as connection:
        for name in ("idle_session_timeout", "statement_timeout"):
            cursor = await connection.execute("SELECT current_setting(%s)", [name])
            assert await cursor.fetchone() == ("0",)
        await connection.execute('SELECT FROM public."VerificationJob"')
