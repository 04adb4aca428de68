"""Postgres refuses a right or object: the worker does not hang, other work goes on, and operators see the remedy."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from iidq.database.faults import Faults
from iidq.database.obstacles import find_obstacles
from iidq.database.pool import open_database
from iidq.database.sqlstates import concerns_one_row, is_passing, translate
from iidq.errors import NOT_MIGRATED, DatabaseRefusal, DatabaseUnavailable, RowRefused, TriggerFault
from iidq.queue.processing.loop import WorkLoop
from iidq.settings import load_settings
from tests.database.processing.test_work_loop import Executions
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import insert, scalar, statuses
from tests.restricted_role import RestrictedRole, restricted_role

RIGHTS = [
    # Needed by the sweep only: claims go on.
    ("UPDATE", "iidq_queue_worker", True),
    ("INSERT", "iidq_queue_worker", True),
    ("DELETE", "iidq_queue_worker", True),
    ("DELETE", "iidq_queue_count", True),
    ("UPDATE", "iidq_queue_control", True),
    ("DELETE", "iidq_idempotency_key", True),
    # Needed by retention only.
    ("DELETE", "VerificationJob", True),
    # Needed by claims and outcomes.
    ("UPDATE", "VerificationJob", False),
    ("INSERT", "iidq_queue_count", False),
    ("SELECT", "iidq_queue_control", False),
]


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version; test_publication.py reads the catalogs of each."""
    return "embedded"


@pytest.fixture
def role(database_url: str) -> Iterator[RestrictedRole]:
    """The worker's role."""
    with restricted_role(database_url) as role:
        yield role


@pytest.mark.parametrize(("privilege", "table", "works"), RIGHTS)
async def test_a_lacking_right_is_named_and_nothing_hangs(
    role: RestrictedRole, sql: psycopg.Connection[Any], privilege: str, table: str, works: bool
) -> None:
    """A worker without a right logs it once, shows it, goes on with other work, and works fully once it is granted."""
    role.revoke(privilege, table)
    lacks = f"role {role.name} lacks {privilege} on table {table}: "
    insert(sql)
    with capture_logs() as logged:
        async with working(role.url, Executions(), poll_interval_seconds=0.1) as work:
            faults = work.loop._database.faults
            await eventually(lambda: any(fault.startswith(lacks) for fault in faults.for_operators()))
            if works:
                await eventually(lambda: statuses(sql) == {"completed": 1})
            if table != "iidq_queue_worker" or privilege == "DELETE":
                shown = "SELECT EXISTS (SELECT FROM queue_health, unnest(faults) AS fault WHERE starts_with(fault, %s))"
                await eventually(lambda: scalar(sql, shown, lacks))
            refused = [line["what"] for line in logged if line["event"] == "database.refuses"]
            assert len(refused) == len(set(refused)) > 0
            role.grant(privilege, table)
            await eventually(lambda: statuses(sql) == {"completed": 1})
            await eventually(lambda: faults.for_operators() == [])
            await work.stop()
    assert [line["event"] for line in logged if line["event"] == "background.crashed"] == []


async def test_an_outcome_waits_for_its_right(role: RestrictedRole, sql: psycopg.Connection[Any]) -> None:
    """An outcome refused for a missing right is kept and stored once granted, without a failed attempt."""
    insert(sql)
    handler = Executions(waits=True)
    async with working(role.url, handler, poll_interval_seconds=0.1, drain_timeout_seconds=0.1) as work:
        await eventually(lambda: handler.running == 1)
        role.revoke("INSERT", "iidq_queue_count")
        handler.go_on.set()
        await eventually(lambda: any("iidq_queue_count" in fault for fault in _faults(work)))
        role.grant("INSERT", "iidq_queue_count")
        await eventually(lambda: statuses(sql) == {"completed": 1})
        assert scalar(sql, 'SELECT attempt FROM "VerificationJob"') == 1


def _faults(work: Any) -> list[str]:
    faults: Faults = work.loop._database.faults
    return faults.for_operators()


async def test_an_error_that_nobody_foresaw_ends_the_loop(
    database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unforeseen error ends the loop: logged at once, running jobs end, and the loop counts as crashed."""
    insert(sql)
    handler = Executions(waits=True)
    with capture_logs() as logged:
        async with working(database_url, handler, drain_timeout_seconds=3600) as work:
            await eventually(lambda: handler.running == 1)
            monkeypatch.setattr(work.loop, "_claim", lambda _slots: 1 / 0)
            insert(sql)
            await eventually(lambda: any(line["event"] == "background.crashed" for line in logged))
            handler.go_on.set()
            assert await work.stop() == 0
    assert work.loop.crashed
    [crash] = [line for line in logged if line["event"] == "background.crashed"]
    assert isinstance(crash["exc_info"], ZeroDivisionError)
    # A claim under way may have taken the second job, too.
    assert statuses(sql) in ({"completed": 1, "queued": 1}, {"completed": 2})


@pytest.mark.parametrize("moment", range(8))
async def test_a_crash_ends_whatever_waits_on_the_database(
    database_url: str, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """A crash of the loop at any moment of its start leaves no task behind."""
    turn, turns = WorkLoop._turn, 0

    async def crash(loop: WorkLoop) -> None:
        nonlocal turns
        turns += 1
        await turn(loop)
        await asyncio.sleep(moment / 2000)
        raise LookupError

    monkeypatch.setattr(WorkLoop, "_turn", crash)
    async with working(database_url, Executions(), poll_interval_seconds=0.1) as work:
        await eventually(lambda: work.loop.crashed)
        assert await work.stop() == 0
    assert turns == 1


STATES: dict[str, str] = {
    # Temporary: the database is away, busy, read-only for now, or not migrated yet.
    **dict.fromkeys(["08000", "08006", "57P01", "57P02", "57P03", "57P05", "25P03"], "database.unavailable"),
    **dict.fromkeys(["53100", "53200", "53300"], "database.exhausted"),
    **dict.fromkeys(["40001", "40P01"], "database.conflict"),
    "57014": "database.timeout",
    "55P03": "database.locked",
    "25006": "database.read_only",
    **dict.fromkeys(["42P01", "42703", "42883"], NOT_MIGRATED),
    # A fault with a remedy by operators only.
    **dict.fromkeys(["28000", "28P01", "3D000", "3F000", "57P04", "58030", "F0000", "XX000"], "database.refused"),
    **dict.fromkeys(["42501", "42601", "42704", "42P17", "428C9", "0A000", "25001", "26000"], "database.refused"),
    **dict.fromkeys(["55000", "55006", "XX001"], "database.refused"),
    # The fault of one row: its values, its constraints, or a raising trigger.
    **dict.fromkeys(["21000", "22003", "22008", "22P02", "27000", "2F003", "38000", "39P01"], "database.row_refused"),
    **dict.fromkeys(["23001", "23502", "23503", "23505", "23514", "23P01", "44000", "54000"], "database.row_refused"),
    **dict.fromkeys(["54001", "P0001", "P0002", "AB123", "45000", "HV000", "U0001"], "database.row_refused"),
}
CONFLICTS = ["23505", "23P01", "23503", "23001"]
CONNECTION_OF_A_TRIGGER = ["08000", "08006", "57P01", "57P02", "57P03", "57P05", "25P03"]
"""In an operator's trigger these states are of a connection of the trigger, such as dblink's."""


@pytest.mark.parametrize(("state", "code"), STATES.items())
def test_each_state_has_its_kind(state: str, code: str) -> None:
    """Only temporary states count as unavailable and are tried again without a report to operators."""
    error = raised(state)
    ours = translate(error)
    assert ours is not None
    assert ours.code == code
    assert isinstance(ours, DatabaseRefusal) == (code == "database.refused")
    passing = code not in ("database.refused", "database.row_refused")
    assert isinstance(ours, DatabaseUnavailable) == passing
    assert is_passing(error) == (passing and code != NOT_MIGRATED)
    assert concerns_one_row(error) == (code == "database.row_refused")
    if not passing:
        assert state in ours.message
    if isinstance(ours, RowRefused):
        assert ours.conflict == (state in CONFLICTS)


RULE = "PL/pgSQL function operators_rule() line 1 at PERFORM"
ENQUEUE = 'SQL statement "INSERT INTO x"\nPL/pgSQL function iidq_enqueue(json,integer,boolean) line 13 at SQL statement'


@pytest.mark.parametrize(
    "context",
    [
        RULE,
        "PL/pgSQL-Funktion audit.operators_rule(text,integer) Zeile 1 bei PERFORM",
        "fonction PL/pgSQL operators_rule(), ligne 3 à PERFORM",
        "PL/pgSQL関数operators_rule()の3行目のPERFORM",
        f'PL/pgSQL assignment "NEW.x := f(1)"\n{RULE}',
        f'SQL statement "SELECT f(\n  1)"\n{RULE}',
        'SQL function "operators_rule" during startup',
        "SQL-Funktion »operators_rule« Anweisung 1",
        "fonction SQL « operators_rule », instruction 1",
        'PL/Python function "operators_rule"',
    ],
)
def test_the_operators_function_is_named_in_any_language(context: str) -> None:
    """The innermost function of an error's context is found, in any language of the function and of the server."""
    ours = translate(raised("42P01", context=f"{context}\n{ENQUEUE}"))
    assert isinstance(ours, TriggerFault)
    assert "operators_rule in the database" in ours.message


@pytest.mark.parametrize("state", STATES)
def test_each_state_has_its_kind_in_a_trigger(state: str) -> None:
    """An error in an operator's code may be of one row, never counts as an outage, and names the code.

    Temporary states stay temporary there. A FATAL error in a trigger is of the server itself.
    """
    ours = translate(raised(state, context=f"{RULE}\n{ENQUEUE}"))
    ended = translate(raised(state, context=RULE, severity="FATAL"))
    assert ours is not None
    assert ended is not None
    assert ended.code == STATES[state]
    if STATES[state] in ("database.refused", NOT_MIGRATED) or state in CONNECTION_OF_A_TRIGGER:
        assert isinstance(ours, TriggerFault)
        assert concerns_one_row(ours)
    else:
        assert ours.code == STATES[state]
    if not isinstance(ours, DatabaseUnavailable):
        assert "operators_rule" in ours.message


@pytest.mark.parametrize("state", STATES)
def test_our_own_functions_are_no_triggers_of_the_operator(state: str) -> None:
    """An error in iidq's own functions is translated as an error of a statement."""
    for function in ("iidq_enqueue(json,integer,boolean)", "public.iidq_note_change()", "retry_job(uuid)"):
        context = f'SQL statement "INSERT INTO public.x"\nPL/pgSQL function {function} line 20 at SQL statement'
        ours = translate(raised(state, context=context))
        assert ours is not None
        assert ours.code == STATES[state]


class Raised(psycopg.Error):
    """An error with the fields of a server's message."""

    fields: dict[str, str]

    @property
    def diag(self) -> Any:
        """The fields of the server's message."""
        return SimpleNamespace(**dict.fromkeys(FIELDS), **self.fields)


FIELDS = ["constraint_name", "table_name", "column_name", "source_function", "message_primary"]


def raised(state: str, context: str = "", severity: str = "ERROR") -> psycopg.Error:
    """Return an error of this SQLSTATE, with context and severity."""
    try:
        known: type[psycopg.Error] = psycopg.errors.lookup(state)
    except KeyError:
        known = psycopg.DatabaseError
    error = type("Raised", (Raised, known), {"sqlstate": state})()
    error.fields = {"context": context, "severity_nonlocalized": severity}
    assert isinstance(error, psycopg.Error)
    return error


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda url, name: url.replace(f"/{name}?", "/no_such_database?"), "3D000"),
        (lambda url, name: url.replace("://", "://no_such_role:x@").replace("@iidq@", "@"), "28000"),
    ],
    ids=["database", "role"],
)
async def test_a_refused_login_is_no_outage(
    sql: psycopg.Connection[Any], database_url: str, change: Any, state: str
) -> None:
    """A refused login raises ``DatabaseRefusal`` with the SQLSTATE."""
    url = change(database_url, sql.info.dbname)
    async with open_database(load_settings(database_url=url), pool_size=1) as database:
        with pytest.raises(DatabaseRefusal, match=state):
            await database.run(find_obstacles)


@pytest.mark.parametrize(
    "text",
    [
        'connection failed: connection to server at "127.0.0.1", port 5432 failed: Connection refused',
        "connection failed: FATAL:  the database system is starting up",
        "connection failed: FATAL:  sorry, too many clients already",
        "connection timeout expired",
        "failed to resolve host 'db': Name or service not known",
        "connection failed: session is read-only",
    ],
)
def test_an_outage_is_no_refusal(text: str) -> None:
    """An error that a new connection may overcome stays temporary."""
    assert isinstance(translate(psycopg.OperationalError(text)), DatabaseUnavailable)


async def test_nothing_is_in_the_way_of_a_migrated_database(role: RestrictedRole) -> None:
    """A role with rights on all tables lacks nothing in a migrated database."""
    async with open_database(load_settings(database_url=role.url), pool_size=1) as database:
        assert await database.run(find_obstacles) == []
