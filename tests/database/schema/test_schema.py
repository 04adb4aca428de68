"""Tables of iidq in the configured schema, independent of the role's search_path and of other schemas."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from iidq.cli.operators.diagnosis import diagnose
from iidq.cli.operators.findings import Level
from iidq.database.connections import connect
from iidq.database.migrate import migrate
from iidq.database.queries import in_schema, load_queries, migrations_folder
from iidq.queue.job import ClaimedJob
from iidq.queue.processing.execution import Progress
from iidq.settings import Settings, load_settings
from tests.database.attempts import sweep
from tests.database.connections.session_settings import impose, run_core
from tests.database.working import working
from tests.eventually import eventually
from tests.job_rows import scalar, statuses
from tests.query_packages import QUERY_PACKAGES
from tests.restricted_role import restricted_role
from tests.web.conftest import serve_api  # noqa: F401 — a fixture
from tests.web.serving import JOBS, ServeApi

ODD = 'My "Queue"'
OWN_RELATIONS = (
    "SELECT nspname::text, count(*) FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace"
    " WHERE relkind IN ('r', 'v') AND nspname !~ '^pg_|^information_schema$' GROUP BY nspname"
)


@pytest.fixture
def empty_sql(empty_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the database without migrations."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        yield connection


def test_a_schema_of_the_roles_name(empty_database_url: str, empty_sql: psycopg.Connection[Any]) -> None:
    """Tables are made and found in ``public``, though "$user" is first in the path, yoyo's tables included."""
    empty_sql.execute(SQL("CREATE SCHEMA {}").format(Identifier(empty_sql.info.user)))
    assert migrate(empty_database_url)
    assert migrate(empty_database_url) == []
    [(schema, _)] = empty_sql.execute(OWN_RELATIONS.encode()).fetchall()
    assert schema == "public"
    asyncio.run(run_core(empty_database_url))


def test_a_schema_of_the_roles_name_that_came_later(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A later schema with the role's name hides no table of a migrated database."""
    sql.execute(SQL("CREATE SCHEMA {}").format(Identifier(sql.info.user)))
    assert migrate(database_url) == []
    asyncio.run(run_core(database_url))


def test_another_schema(empty_database_url: str, empty_sql: psycopg.Connection[Any]) -> None:
    """A schema with a name to be quoted is created and holds everything; ``public`` stays empty, and the core works."""
    assert migrate(empty_database_url, ODD)
    assert migrate(empty_database_url, ODD) == []
    [(schema, _)] = empty_sql.execute(OWN_RELATIONS.encode()).fetchall()
    assert schema == ODD
    assert scalar(empty_sql, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace") == 0
    asyncio.run(run_core(empty_database_url, database_schema=ODD))


async def test_two_schemas_beside_each_other(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """Two installations in one database and one process see only their own jobs, and wait for no lock of the other."""
    await asyncio.to_thread(migrate, database_url, ODD)
    await asyncio.gather(run_core(database_url), run_core(database_url, database_schema=ODD))
    with psycopg.connect(database_url) as holder:
        for name in ("upkeep", "retention", "migrate"):
            holder.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"iidq.{name} public"])
        assert await asyncio.to_thread(migrate, database_url, ODD) == []
        async with await connect(load_settings(database_url=database_url, database_schema=ODD)) as connection:
            sql.execute('UPDATE "My ""Queue""".iidq_queue_control SET "upkeepAt" = NULL')
            await sweep(connection)
    assert scalar(sql, 'SELECT "upkeepAt" IS NOT NULL FROM "My ""Queue""".iidq_queue_control')


async def _handle(_job: ClaimedJob, progress: Progress) -> dict[str, Any]:
    progress(50)
    return {"status": "OK"}


async def test_the_whole_service(
    database_url: str,
    sql: psycopg.Connection[Any],
    serve_api: ServeApi,  # noqa: F811
) -> None:
    """API, worker and doctor work in another schema for a role without ownership and without the schema in its path."""
    await asyncio.to_thread(migrate, database_url, ODD)
    fields = {
        "registryAddress": "0x" + "ab" * 20, "contentHash": "0x" + "cd" * 32, "manifestURI": "https://m.example/m"
    }  # fmt: skip
    with restricted_role(database_url, schema=ODD) as role:
        sql.execute(SQL("ALTER ROLE {} SET search_path = nowhere").format(Identifier(role.name)))
        where: dict[str, Any] = {"database_url": role.url, "database_schema": ODD}
        async with (
            serve_api(**where) as api,
            working(role.url, _handle, database_schema=ODD, poll_interval_seconds=0.3),
        ):
            key = {"Idempotency-Key": "k"}
            replies = [await api.post(f"{JOBS}/verify", json=fields, headers=key) for _ in range(2)]
            assert len({reply.json()["jobId"] for reply in replies}) == 1
            path = replies[0].headers["location"]
            waited = await api.post(f"{JOBS}/verify", json=fields, headers={"Prefer": "wait=20"})
            assert waited.json()["status"] == "completed"
            await eventually(lambda: scalar(sql, 'SELECT waiting + active FROM "My ""Queue""".queue_health') == 0)
            assert (await api.get(path)).json()["status"] == "completed"
            assert (await api.get(JOBS)).json()["count"] == 2
            assert (await api.get(f"{JOBS}/stats")).json()["completed"] == 2
            assert (await api.get("/readyz")).status_code == 200
            await eventually(lambda: scalar(sql, 'SELECT bool_and(listening) FROM "My ""Queue""".queue_workers'))
            found = await diagnose(Settings(_env_file=None, ipfs_gateways=("http://127.0.0.1:9",), **where))
            role.revoke("DELETE", "iidq_queue_count")
            lacking = await diagnose(Settings(_env_file=None, ipfs_gateways=("http://127.0.0.1:9",), **where))
    ours = {finding.check: finding.level for finding in found if finding.check not in ("chain", "gateway")}
    assert set(ours.values()) == {Level.OK}, found
    [rights] = [finding for finding in lacking if finding.check == "rights"]
    assert f'GRANT DELETE ON "My ""Queue"""."iidq_queue_count" TO "{role.name}"' in rights.came_back
    assert statuses(sql) == {}


def test_built_in_functions_are_not_shadowed(empty_database_url: str, empty_sql: psycopg.Connection[Any]) -> None:
    """A schema before pg_catalog in the path shadows no built-in function or operator for iidq."""
    sql = empty_sql
    texts = [statement.decode() for package in QUERY_PACKAGES for statement in load_queries(package).values()]
    with migrations_folder() as folder:
        texts += [path.read_text() for path in folder.glob("*.sql")]
    called = sorted(
        set(re.findall(r"\b([a-z_0-9]+)\(", "\n".join(texts))) | {"set_config", "current_setting", "concat"}
    )
    sql.execute("CREATE SCHEMA decoy")
    decoys = sql.execute(
        "SELECT proname::text, pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc"
        " WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND proname = ANY (%s)"
        " AND pg_get_function_arguments(oid) !~ '\\m(internal|any|cstring|any[a-z]+)\\M'"
        " AND pg_get_function_result(oid) !~ '^(internal|any|cstring|trigger)'",
        [called],
    ).fetchall()
    assert len(decoys) > 30
    for name, arguments, result in decoys:
        sql.execute(
            SQL("CREATE FUNCTION decoy.{}({}) RETURNS {} LANGUAGE plpgsql AS 'BEGIN RAISE ''decoy''; END'").format(
                Identifier(name), SQL(arguments), SQL(result)
            )
        )
    for kind in ("text", "integer"):
        sql.execute(
            SQL("CREATE FUNCTION decoy.never({0}, {0}) RETURNS boolean LANGUAGE plpgsql AS {1}").format(
                SQL(kind), Literal("BEGIN RAISE 'decoy'; END")
            )
        )
        for operator in ("=", "<>"):
            sql.execute(
                SQL("CREATE OPERATOR decoy.{0} (FUNCTION = decoy.never, LEFTARG = {1}, RIGHTARG = {1})").format(
                    SQL(operator), SQL(kind)
                )
            )
    sql.execute(SQL("ALTER DATABASE {} SET search_path = decoy, pg_catalog").format(Identifier(sql.info.dbname)))
    assert migrate(empty_database_url)
    asyncio.run(run_core(empty_database_url))


async def test_an_operators_trigger_keeps_its_path(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """An operator's trigger resolves names by the role's own search_path."""
    sql.execute("CREATE SCHEMA theirs")
    sql.execute("CREATE TABLE theirs.seen (id uuid)")
    sql.execute(
        "CREATE FUNCTION theirs.note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NEW; END'"
    )
    sql.execute('CREATE TRIGGER noted BEFORE INSERT ON "VerificationJob" FOR EACH ROW EXECUTE FUNCTION theirs.note()')
    impose(sql, {"search_path": "theirs"})
    await run_core(database_url)
    assert scalar(sql, "SELECT count(*) FROM theirs.seen") == 3


def test_our_sql_names_the_schema_everywhere() -> None:
    """Each relation and function in iidq's SQL is written with its schema, and ``public`` has no other use."""
    texts = {
        package: "\n".join(statement.decode() for statement in load_queries(package).values())
        for package in QUERY_PACKAGES
    }
    with migrations_folder() as folder:
        texts |= {path.name: path.read_text() for path in folder.glob("*.sql")}
    bodies = {name: re.sub(r"--.*", "", text) for name, text in texts.items()}
    made = re.findall(
        r"CREATE (?:UNLOGGED )?(?:TABLE|VIEW|FUNCTION|PROCEDURE) public\.(\"?\w+\"?)", "\n".join(bodies.values())
    )
    assert {'"VerificationJob"', "iidq_enqueue", "queue_health", "retry_job"} <= set(made)
    assert "CREATE TABLE" not in re.sub(r"CREATE (UNLOGGED )?TABLE public\.", "", "\n".join(bodies.values()))
    names = "|".join(map(re.escape, [*made, "_yoyo_migration"]))
    for name, body in bodies.items():
        # Names in literals are resolved with the schema given separately, or are texts for people.
        bare = re.sub(r"'(?:[^']|'')*'", "''", body)
        assert re.findall(rf"(?<!public\.)(?<![\w\".])(?:{names})(?![\w\"])(?!\()", bare) == [], name
        assert re.findall(rf"(?<!public\.)(?<![\w.])(?:{names})\(", bare) == [], name
        other = re.sub(r"public\.|SET search_path = pg_catalog, public, pg_temp|to_regnamespace\('public'\)", "", body)
        other = re.sub(r"hashtext\('iidq\.\w+ public'\)|CREATE SCHEMA public$", "", other, flags=re.MULTILINE)
        assert re.findall(r"\bpublic\b", other) == [], name


def test_the_word_is_replaced_whole() -> None:
    """The schema's name is replaced in names, literals and paths; longer words stay."""
    ours = b"SELECT public.a, 'public.\"B\"'::regclass, to_regnamespace('public'), publication, public_key"
    quoted = b'"My ""Queue"""'
    theirs = ours.replace(b"public.", quoted + b".").replace(b"('public')", b"('%s')" % quoted)
    assert in_schema(ours, "public") == ours
    assert in_schema(ours, ODD) == theirs
