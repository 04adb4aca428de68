"""Test the operators' commands against a running service, by ``--server``, by ``IIDQ_SERVER``, and without either."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from iidq.cli.operators import queue_access
from iidq.queue.identifiers import new_job_id
from tests.cli.conftest import Done, Playground
from tests.cli.sandbox import wait_until
from tests.cli.verification.strange_service import answering
from tests.job_rows import Sql, insert, read

Iidq = Callable[..., Done]
FAILED: dict[str, Any] = {"status": "failed", "error": "rpc.unavailable: no", "completedAt": Sql("now()")}
LATER: dict[str, Any] = {"runAt": Sql("now() + interval '1 day'")}


@pytest.fixture
def sql(playground: Playground) -> Iterator[psycopg.Connection[Any]]:
    """Connect to the database behind the service; cancel leftover jobs for tomorrow at the end."""
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        yield connection
        connection.execute(
            """SELECT cancel_job(id) FROM "VerificationJob" WHERE status = 'queued' AND "runAt" > now()"""
        )


def test_jobs_are_seen_and_steered(playground: Playground, iidq: Iidq, sql: psycopg.Connection[Any]) -> None:
    """List, show, cancel and retry work as in the database, also with several ids."""
    content_hash = "0x" + new_job_id().hex * 2
    ids = [str(insert(sql, contentHash=content_hash, **LATER)) for _ in range(2)]
    environment = {"IIDQ_SERVER": playground.api}
    listed = json.loads(iidq("jobs", "list", "--hash", content_hash.upper(), "--json", **environment).stdout)
    assert {job["id"] for job in listed} == set(ids)
    assert json.loads(iidq("jobs", "show", ids[0], "--json", **environment).stdout)["contentHash"] == content_hash
    unknown = str(new_job_id())
    cancelled = iidq("jobs", "cancel", *ids, unknown, "../stats", **environment)
    assert cancelled.returncode == 1
    assert cancelled.stdout.splitlines() == [f"{job_id}: cancelled" for job_id in ids]
    assert cancelled.stderr.splitlines() == [f"iidq: there is no job {unknown}", "iidq: there is no job ../stats"]
    again = iidq("jobs", "cancel", ids[0], **environment)
    assert (again.returncode, "has ended already" in again.stderr) == (1, True)
    assert [read(sql, UUID(job_id))["status"] for job_id in ids] == ["cancelled"] * 2
    assert iidq("jobs", "retry", ids[0], "--server", playground.api).returncode == 0
    assert read(sql, UUID(ids[0]))["status"] != "cancelled"
    assert iidq("jobs", "show", unknown, **environment).returncode == 1


def test_the_queue_is_counted_paused_and_resumed(
    playground: Playground, iidq: Iidq, sql: psycopg.Connection[Any]
) -> None:
    """Counts, pause and resume work as in the database, with the reason."""
    environment = {"IIDQ_SERVER": playground.api}
    try:
        assert iidq("pause", "a test", **environment).returncode == 0
        assert sql.execute("SELECT state, pause_reason FROM queue_health").fetchone() == ("paused", "a test")
        assert "paused (a test); " in iidq("stats", **environment).stdout
        assert "iidq resume" in iidq("doctor", **environment).stdout
    finally:
        assert iidq("resume", **environment).returncode == 0
    assert json.loads(iidq("stats", "--json", **environment).stdout)["pauseReason"] is None


def test_the_server_is_asked_before_the_database(
    playground: Playground, iidq: Iidq, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--server` wins over DATABASE_URL; without either, the local service is the default."""
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    assert iidq("stats", IIDQ_SERVER=playground.api, DATABASE_URL=nowhere).returncode == 0
    assert iidq("stats", DATABASE_URL=playground.database_url, IIDQ_SERVER="").returncode == 0
    monkeypatch.setattr(queue_access, "DEFAULT_SERVER", playground.api)
    assert iidq("stats").returncode == 0


def test_a_missing_key_is_not_possible(iidq: Iidq) -> None:
    """A 401 reply gives exit code 1 and a line with the variable to set; the key is never shown."""
    with answering(401, {"error": "Unauthorized"}) as url:
        for arguments in (("jobs", "list"), ("jobs", "retry", str(new_job_id())), ("stats",), ("pause",), ("resume",)):
            done = iidq(*arguments, IIDQ_SERVER=url, IIDQ_API_KEY="hidden")
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
            assert "does not take this key: set IIDQ_API_KEY" in done.stderr
            assert "hidden" not in done.stderr


@pytest.mark.parametrize("body", [{}, [], {"jobs": 7}, {"available": False}])
def test_a_service_that_is_none_of_ours_is_exit_code_2(iidq: Iidq, body: object) -> None:
    """A foreign server's replies give exit code 2 and one line, without a traceback."""
    with answering(200, body) as url:
        for arguments in (("jobs", "list"), ("stats",)):
            done = iidq(*arguments, IIDQ_SERVER=url)
            assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_a_service_is_examined_from_afar(playground: Playground, iidq: Iidq) -> None:
    """`iidq doctor --server` prints attempt and result; exit code 1 for an absent or foreign service."""
    ready = f"{playground.api}/readyz"
    wait_until(lambda: httpx.get(ready, trust_env=False).json()["queue"]["workers"] == 1, "the worker's sign of life")
    well = iidq("doctor", "--server", playground.api, "--json", IIDQ_API_KEY="any")
    findings = json.loads(well.stdout)
    assert (well.returncode, [finding["check"] for finding in findings]) == (
        0,
        ["service", "readiness", "queue", "key"],
    )
    assert all(finding["tried"] and finding["cameBack"] for finding in findings)
    away = iidq("doctor", "--server", "http://127.0.0.1:9")
    assert (away.returncode, "→ start `iidq serve` there" in away.stdout) == (1, True)
    with answering(200, {"hello": "world"}) as url:
        assert "not as iidq does" in iidq("doctor", "--server", url).stdout
    with answering(401, {"status": "ok", "database": "unreachable"}) as url:
        assert iidq("doctor", "--server", url).returncode == 1
