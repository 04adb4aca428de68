"""Test the live changes of ``iidq jobs watch`` and ``iidq stats --watch``."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from iidq.queue.identifiers import new_job_id
from tests.cli.conftest import Done, Playground
from tests.job_rows import Sql, insert

Iidq = Callable[..., Done]
LATER: dict[str, Any] = {"runAt": Sql("now() + interval '1 day'")}


@pytest.fixture
def sql(playground: Playground) -> Iterator[psycopg.Connection[Any]]:
    """Connect to the database behind the service; cancel leftover jobs for tomorrow at the end."""
    with psycopg.connect(playground.database_url, autocommit=True) as connection:
        yield connection
        connection.execute(
            """SELECT cancel_job(id) FROM "VerificationJob" WHERE status = 'queued' AND "runAt" > now()"""
        )


@pytest.fixture(params=["database", "http"])
def way(playground: Playground, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the environment for each way to the queue."""
    if request.param == "database":
        return {"DATABASE_URL": playground.database_url}
    return {"IIDQ_SERVER": playground.api}


def test_a_job_is_watched_to_its_end(playground: Playground, sql: psycopg.Connection[Any], way: dict[str, str]) -> None:
    """The command ends with the job, prints the result and has the exit code of `iidq verify`."""
    job_id = insert(sql, **LATER)
    watching = playground.sandbox.start("jobs", "watch", str(job_id), **way)
    watching.wait_until_says("queued, 0 %: waiting in line")
    sql.execute("SELECT cancel_job(%s)", [job_id])
    assert watching.wait() == 2
    assert "could not be found out: cancelled" in watching.output


def test_a_job_that_has_ended_is_told_at_once(iidq: Iidq, sql: psycopg.Connection[Any], way: dict[str, str]) -> None:
    """An ended job is printed with verdict, checks and inputs, or as JSON; an unknown id gives exit code 2."""
    result = {"status": "WARN", "checks": {"creatorOk": True, "manifestOk": False}}
    job_id = insert(sql, status="completed", result=json.dumps(result), completedAt=Sql("now()"), fileName="a.jpg")
    done = iidq("jobs", "watch", str(job_id), **way)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("WARN: ")
    for part in ("file      a.jpg", "✓ creatorOk", "✗ manifestOk"):
        assert part in done.stdout
    assert json.loads(iidq("jobs", "watch", str(job_id), "--json", **way).stdout)["id"] == str(job_id)
    assert iidq("jobs", "watch", str(new_job_id()), **way).returncode == 2


def test_watching_a_job_has_an_end(iidq: Iidq, sql: psycopg.Connection[Any], way: dict[str, str]) -> None:
    """After --timeout the command ends with exit code 2, and the job continues."""
    job_id = insert(sql, **LATER)
    done = iidq("jobs", "watch", str(job_id), "--timeout", "1", **way)
    assert (done.returncode, "the job goes on" in done.stderr) == (2, True)


def test_every_change_is_told(playground: Playground, sql: psycopg.Connection[Any], way: dict[str, str]) -> None:
    """Without an id, each new or changed job gives a line; Ctrl-C ends the command with 130 and no traceback."""
    old = insert(sql, **LATER)
    watching = playground.sandbox.start("jobs", "watch", "--interval", "0.2", **way)
    stats = playground.sandbox.start("stats", "--watch", "--interval", "0.2", **way)
    watching.wait_until_says("watching")
    stats.wait_until_says("jobs end per second")
    new = insert(sql, **LATER)
    watching.wait_until_says(f"{new}  verify  queued")
    sql.execute("SELECT cancel_job(%s)", [old])
    watching.wait_until_says(f"{old}  verify  cancelled")
    for running in (watching, stats):
        running.interrupt(whole_group=True)
        assert running.wait() == 130
        assert "Traceback" not in running.output
