"""Test the operators' commands against a real database."""

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from iidq.cli.operators import operate
from iidq.queue.identifiers import new_job_id
from iidq.queue.read.readers import REACH
from tests.cli.conftest import Done
from tests.job_rows import PROCESSING, Sql, insert, read

Iidq = Callable[..., Done]
FAILED: dict[str, Any] = {"status": "failed", "error": "rpc.unavailable: no", "completedAt": "2024-01-01T00:00:00Z"}


@pytest.fixture
def sql(database_url: str) -> Any:
    """Connect to the database behind the commands."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def iidq(iidq: Callable[..., Done]) -> Iidq:
    """Run a command with this ``DATABASE_URL``, as an operator."""

    def run(database_url: str, *arguments: str) -> Done:
        return iidq(*arguments, DATABASE_URL=database_url, COLUMNS="200")

    return run


def test_jobs_are_listed_and_shown(iidq: Iidq, database_url: str, sql: psycopg.Connection[Any]) -> None:
    """The list has filters and a form for scripts; one job is shown as HTTP clients get it."""
    waiting, failed = insert(sql), insert(sql, **FAILED)
    listed = json.loads(iidq(database_url, "jobs", "list", "--json").stdout)
    assert {job["id"] for job in listed} == {str(waiting), str(failed)}
    table = iidq(database_url, "jobs", "list", "--status", "failed").stdout
    assert str(failed) in table
    assert str(waiting) not in table
    shown = json.loads(iidq(database_url, "jobs", "show", str(failed), "--json").stdout)
    assert (shown["id"], shown["error"]) == (str(failed), "rpc.unavailable: no")
    lines = iidq(database_url, "jobs", "show", str(failed)).stdout.splitlines()
    assert "status           failed" in lines
    assert "error            rpc.unavailable: no" in lines
    assert iidq(database_url, "jobs", "list", "--type", "proof").stdout == "no such jobs\n"


def test_the_list_fits_a_terminal(iidq: Iidq, database_url: str, sql: psycopg.Connection[Any]) -> None:
    """In 80 columns every id is complete, and ages are short."""
    insert(sql, **FAILED)
    insert(sql, PROCESSING, createdAt=Sql("now() - interval '90 minutes'"), progress=70)
    header, *lines = iidq(database_url, "jobs", "list").stdout.splitlines()
    assert all(len(line) <= 80 for line in (header, *lines))
    assert lines[1] == "    rpc.unavailable: no"
    assert lines[2].split()[2:] == ["processing", "70", "%", "0", "2", "h"]


def test_strangers_texts_cannot_steer_the_terminal(iidq: Iidq, database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Escape sequences and markup in errors and names have no effect on the terminal; credentials are not shown."""
    error = "fetch.x: \x1b[2J\x9b31m [red]http://me:hidden@x/"
    job_id = insert(sql, **{**FAILED, "error": error}, fileName="\x1b]0;title\x07.jpg")
    for arguments in (("list",), ("show", str(job_id)), ("list", "--json"), ("show", str(job_id), "--json")):
        done = iidq(database_url, "jobs", *arguments)
        assert done.returncode == 0
        assert not {"\x1b", "\x9b", "\x07"} & set(done.stdout)
        assert "[red]" in done.stdout
        assert "hidden" not in done.stdout


def test_a_long_search_ends_and_goes_on(
    iidq: Iidq, database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search with few hits among many jobs stops with a cursor, and a search from the cursor finds the rest."""
    monkeypatch.setattr(operate, "_MOST_PAGES", 1)
    wanted = insert(sql, type="proof", status="completed", result="{}", completedAt=Sql("now()"))
    insert(sql, type="verify", status="completed", result="{}", completedAt=Sql("now()"), copies=REACH + 1)
    done = iidq(database_url, "jobs", "list", "--type", "proof", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    named = re.search(r"to go on, add --cursor (\S+)$", done.stderr)
    assert named is not None
    [found] = json.loads(iidq(database_url, "jobs", "list", "--type", "proof", "--json", "--cursor", named[1]).stdout)
    assert found["id"] == str(wanted)
    assert iidq(database_url, "jobs", "list", "--cursor", "nonsense").returncode == 2


def test_a_role_that_may_not_is_told(iidq: Iidq, database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A read-only role can list and count; a change gives exit code 1 and one line."""
    job_id = insert(sql)
    sql.execute("CREATE ROLE operate_reader LOGIN")
    try:
        sql.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO operate_reader")
        url = database_url.replace("//iidq@", "//operate_reader@")
        assert iidq(url, "jobs", "list").returncode == 0
        assert iidq(url, "stats").returncode == 0
        for arguments in (("pause",), ("resume",), ("jobs", "cancel", str(job_id)), ("jobs", "retry", str(job_id))):
            done = iidq(url, *arguments)
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
            assert "may not" in done.stderr
    finally:
        sql.execute("DROP OWNED BY operate_reader")
        sql.execute("DROP ROLE operate_reader")


def test_jobs_are_retried_and_cancelled(iidq: Iidq, database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Retry and cancel give exit code 0, or 1 with the reason for a wrong state or an unknown job."""
    job_id = insert(sql, **FAILED)
    assert iidq(database_url, "jobs", "retry", str(job_id)).returncode == 0
    assert read(sql, job_id)["status"] == "queued"
    refused = iidq(database_url, "jobs", "retry", str(job_id))
    assert (refused.returncode, "has not ended" in refused.stderr) == (1, True)
    assert iidq(database_url, "jobs", "cancel", str(job_id)).returncode == 0
    assert read(sql, job_id)["status"] == "cancelled"
    for unknown in (str(new_job_id()), "7"):
        assert iidq(database_url, "jobs", "cancel", unknown).returncode == 1


def test_the_queue_is_counted_paused_and_resumed(iidq: Iidq, database_url: str, sql: psycopg.Connection[Any]) -> None:
    """`stats` prints the counts, `pause` stores the reason, `resume` ends the pause."""
    insert(sql, copies=3)
    counts = json.loads(iidq(database_url, "stats", "--json").stdout)
    assert (counts["available"], counts["waiting"], counts["state"]) == (True, 3, "no workers")
    told = iidq(database_url, "stats").stdout
    assert "waiting       3" in told
    assert re.search(r"^no workers; the first in line has waited \d+ s; live workers: 0$", told, re.MULTILINE)
    assert iidq(database_url, "pause", "maintenance").returncode == 0
    assert sql.execute("SELECT state, pause_reason FROM queue_health").fetchone() == ("paused", "maintenance")
    assert "paused (maintenance); " in iidq(database_url, "stats").stdout
    assert iidq(database_url, "resume").returncode == 0
    assert sql.execute("SELECT state FROM queue_health").fetchone() == ("no workers",)


def test_what_cannot_be_found_out_is_exit_code_2(iidq: Iidq, database_url: str) -> None:
    """An unavailable database gives one line and exit code 2; an unknown option value gives exit code 2."""
    away = iidq("postgresql://nobody@127.0.0.1:1/none", "stats")
    assert (away.returncode, len(away.stderr.strip().splitlines())) == (2, 1)
    assert iidq(database_url, "jobs", "list", "--status", "done").returncode == 2


@pytest.mark.parametrize("arguments", [("pause", "a\udcff"), ("jobs", "list", "--hash", "\udcff")], ids=str)
@pytest.mark.parametrize("way", ["database", "http"])
def test_bytes_that_are_no_text_get_one_line(
    iidq: Iidq, database_url: str, arguments: tuple[str, ...], way: str
) -> None:
    """Arguments with bytes outside UTF-8 give one line with the cause, without a traceback."""
    asked = arguments if way == "database" else (*arguments, "--server", "http://127.0.0.1:9")
    refused = iidq(database_url, *asked)
    assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (2, 1)
    assert "UTF-8" in refused.stderr
