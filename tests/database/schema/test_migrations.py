"""``migrations/``: from an empty database to the whole schema, and back."""

import asyncio
import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlparse
from psycopg.sql import SQL, Identifier

from iidq.cli.operators.diagnosis import diagnose
from iidq.cli.operators.findings import Level
from iidq.database import connections
from iidq.database import migrate as migration
from iidq.database.connections import connect
from iidq.database.migrate import migrate
from iidq.database.obstacles import find_obstacles
from iidq.database.queries import in_schema, migrations_folder
from iidq.errors import DatabaseRefusal, DatabaseUnavailable, SettingsFault
from iidq.observability import logs
from iidq.settings import Settings, load_settings
from tests.database.connections.session_settings import run_core
from tests.eventually import eventually
from tests.job_rows import insert, scalar
from tests.restricted_role import restricted_role

NAMES = sorted(path.stem for path in (Path(migration.__file__).parents[2] / "migrations").glob("????_*[a-z].sql"))
NAMES = [name for name in NAMES if not name.endswith(".rollback")]


def objects(url: str) -> list[Any]:
    """Return all relations, views, indexes and functions of schema ``public``, with their definitions."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT 'relation', relname::text, '' FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " UNION ALL SELECT 'view', relname, pg_get_viewdef(oid) FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'"
            " UNION ALL SELECT 'index', indexrelid::regclass::text, indisvalid || pg_get_indexdef(indexrelid)"
            " FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = 'public'::regnamespace"
            " UNION ALL SELECT 'function', proname, pg_get_functiondef(oid)"
            " FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " ORDER BY 1, 2, 3"
        ).fetchall()


def test_applying_twice_changes_nothing(empty_database_url: str) -> None:
    """A first ``migrate`` applies all migrations in order; a second applies none."""
    assert migrate(empty_database_url) == NAMES
    before = objects(empty_database_url)
    assert migrate(empty_database_url) == []
    assert objects(empty_database_url) == before


async def test_three_hosts_at_once(empty_database_url: str) -> None:
    """Three processes with one database migrate at the same moment, and each migration is applied once."""
    code = f"from iidq.database.migrate import migrate; print(len(migrate({empty_database_url!r})))"
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
        for _ in range(3)
    ]
    async with asyncio.timeout(60):
        outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0]
    applied = sorted(int(output.split()[-1]) for output, _ in outputs)
    assert applied == [0, 0, len(NAMES)]


def test_rollbacks_undo_everything(empty_database_url: str) -> None:
    """Rollbacks in reverse order leave nothing; a new ``migrate`` makes everything again."""
    migrate(empty_database_url)
    complete = objects(empty_database_url)
    folder = Path(migration.__file__).parents[2] / "migrations"
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        for name in reversed(NAMES):
            for statement in sqlparse.split((folder / f"{name}.rollback.sql").read_text()):
                connection.execute(statement.encode())
        left = [found for found in objects(empty_database_url) if "yoyo" not in found[1]]
        assert left == []
        connection.execute("DELETE FROM _yoyo_migration")
    migrate(empty_database_url)
    assert objects(empty_database_url) == complete


def test_everything_is_commented(database_url: str) -> None:
    """Every table, every view and every column of a table has a comment in the database."""
    with psycopg.connect(database_url) as connection:
        silent = connection.execute(
            "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname !~ 'yoyo'"
            " AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL"
            " UNION ALL SELECT relname, '' FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname !~ 'yoyo'"
            " AND obj_description(oid, 'pg_class') IS NULL"
        ).fetchall()
    assert silent == []


def test_a_database_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database out of reach ends ``migrate`` with ``DatabaseUnavailable``."""
    monkeypatch.setattr(migration, "_TRIES", 1)
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        migrate("postgresql://iidq@/iidq?host=/nonexistent")


@pytest.fixture
def add_migration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """Return a function to add a statement as the last migration, with the migration's name as result."""

    def add(text: str) -> str:
        name = "9999_later"

        @contextmanager
        def folder(schema: str = "public") -> Iterator[Path]:
            with migrations_folder(schema) as shipped:
                shutil.copytree(shipped, tmp_path, dirs_exist_ok=True)
            (tmp_path / f"{name}.sql").write_bytes(in_schema(text.encode(), schema))
            yield tmp_path

        monkeypatch.setattr(migration, "migrations_folder", folder)
        return name

    return add


async def test_a_long_reader_stops_nobody(
    database_url: str,
    sql: psycopg.Connection[Any],
    add_migration: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A migration behind a long reader lets the service go on, logs the reader's process, and is applied afterwards."""
    name = add_migration('ALTER TABLE public."VerificationJob" ADD COLUMN note text;')
    told: list[Any] = []
    monkeypatch.setattr(logs, "migration_waits", lambda *args, **_: told.append(args))
    monkeypatch.setattr(migration, "_LOCK_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(migration, "_PAUSE_SECONDS", 0.2)
    with psycopg.connect(database_url, application_name="their report") as reader:
        pid = reader.info.backend_pid
        reader.execute("SELECT 'secret' FROM \"VerificationJob\"")
        migrating = asyncio.create_task(asyncio.to_thread(migrate, database_url))
        await eventually(lambda: told)
        await run_core(database_url)
        await eventually(lambda: len(told) > 1)
        assert not migrating.done()
    assert await migrating == [name]
    assert (scalar(sql, "SELECT count(*) FROM pg_attribute WHERE attname = 'note'"), told[0][0]) == (1, name)
    shown = str(told)
    assert f"process {pid} of their report, since " in shown
    assert "secret" not in shown


def test_a_reader_that_never_ends(
    database_url: str, add_migration: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration behind an endless reader ends after a bounded time with one line: migration and process."""
    name = add_migration('ALTER TABLE public."VerificationJob" ADD COLUMN note text;')
    monkeypatch.setattr(migration, "_LOCK_TIMEOUT_SECONDS", 0)
    monkeypatch.setattr(migration, "_LOCK_WAIT_SECONDS", 0.1)
    with psycopg.connect(database_url) as reader:
        pid = reader.info.backend_pid
        reader.execute('SELECT FROM "VerificationJob"')
        with pytest.raises(DatabaseUnavailable) as caught:
            migrate(database_url)
    assert f"migration {name} was not applied" in caught.value.message
    assert f"process {pid}" in caught.value.message
    assert "\n" not in caught.value.message
    assert migrate(database_url) == [name]


@pytest.mark.parametrize("schema", ["public", "other"])
def test_an_index_made_concurrently(schema: str, database_url: str, add_migration: Callable[[str], str]) -> None:
    """A migration outside a transaction is recorded. After a failure it is named, and a new try succeeds."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        migrate(database_url, schema)
        sql.execute(SQL("SET search_path = {}").format(Identifier(schema)))
        insert(sql, copies=2)
        name = add_migration(
            "-- transactional: false\n"
            "DROP INDEX CONCURRENTLY IF EXISTS public.later;\n"
            'CREATE UNIQUE INDEX CONCURRENTLY later ON public."VerificationJob" (type);\n'
        )
        with pytest.raises(DatabaseRefusal, match=f"migration {name} was not applied"):
            migrate(database_url, schema)
        sql.execute('DELETE FROM "VerificationJob"')
        assert migrate(database_url, schema) == [name]
        assert migrate(database_url, schema) == []
        assert scalar(sql, "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid = 'later'::regclass")


YOYO = "CREATE TABLE public._yoyo_migration (migration_hash text, migration_id text, applied_at_utc timestamp);"
NOTE = "INSERT INTO public._yoyo_migration"
READ = "GRANT SELECT ON public._yoyo_migration TO app;"
GRANT = "GRANT CREATE ON SCHEMA public TO app;"
# Per fault: the database as the role "app" finds it, the requested schema, and the sentence.
FAULTS = {
    "no right to public": ("", "public", 'lacks CREATE on schema public: GRANT CREATE ON SCHEMA "public" TO "app'),
    "no right to make a schema": ("", "mine", 'there is no schema mine, .* CREATE SCHEMA "mine" AUTHORIZATION "app'),
    "no right to use the schema": ("CREATE SCHEMA mine;", "mine", "lacks USAGE, CREATE on schema mine: GRANT USAGE"),
    "the replaced system's table": (
        f'{GRANT} CREATE TABLE public."VerificationJob" (id text);',
        "public",
        'table "VerificationJob" of another application: .*docs/migration.md',
    ),
    "another's view": (
        f"{GRANT} CREATE VIEW public.queue_health AS SELECT 1;",
        "public",
        'migration 0006_views was not applied: relation "queue_health" already exists; .*DATABASE_SCHEMA',
    ),
    "another's type": (
        f"{GRANT} CREATE TYPE public.queue_errors AS ENUM ('a');",
        "public",
        '0006_views was not applied: type "queue_errors" already exists; .*DATABASE_SCHEMA',
    ),
    "another's function": (
        f"{GRANT} CREATE FUNCTION public.pause_queue(text) RETURNS int LANGUAGE sql AS 'SELECT 1';",
        "public",
        '0005_control was not applied: function "pause_queue" already exists.*DATABASE_SCHEMA',
    ),
    "an unreleased version": (
        f"{GRANT} {YOYO} {NOTE} VALUES ('', '0001_verification_job', now()); {READ}",
        "public",
        "made by an unreleased version of iidq: make a new one",
    ),
    "another's migrations": (
        f"{GRANT} {YOYO} {NOTE} VALUES ('', '0001_init', now()); {READ}",
        "public",
        "_yoyo_migration of another application: set DATABASE_SCHEMA",
    ),
    "an older yoyo's": (
        f"{GRANT} CREATE TABLE public._yoyo_migration (id varchar(191) PRIMARY KEY, ctime timestamp);",
        "public",
        "_yoyo_migration of another application: set DATABASE_SCHEMA",
    ),
    "an unreadable list": (f"{GRANT} {YOYO}", "public", "may not read table _yoyo_migration: .* as its owner, iidq"),
}


@pytest.fixture
def app(empty_database_url: str) -> Iterator[tuple[str, str, psycopg.Connection[Any]]]:
    """An application's role without any right in an empty database: its name, its URL, and the owner's session."""
    with (
        psycopg.connect(empty_database_url, autocommit=True) as owner,
        restricted_role(empty_database_url) as role,
    ):
        yield role.name, role.url, owner


def everything(sql: psycopg.Connection[Any]) -> list[Any]:
    """Return schemas, relations and functions, without the built-in objects."""
    return sql.execute(
        "SELECT nspname::text, '' FROM pg_namespace WHERE nspname !~ '^pg_' UNION ALL"
        " SELECT 'relation', relname FROM pg_class WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace"
        " UNION ALL SELECT 'function', proname FROM pg_proc WHERE oid >= 16384 ORDER BY 1, 2"
    ).fetchall()


@pytest.mark.parametrize("fault", FAULTS)
async def test_first_run_faults(fault: str, app: tuple[str, str, psycopg.Connection[Any]]) -> None:
    """A fault of a first run is one sentence with a remedy, and leaves nothing; doctor shows early faults, too."""
    name, url, owner = app
    preparation, schema, sentence = FAULTS[fault]
    owner.execute(re.sub(r"\bapp\b", name, preparation).encode())
    before = everything(owner)
    with pytest.raises(DatabaseRefusal) as caught:
        await asyncio.to_thread(migrate, url, schema)
    line = caught.value.message
    assert re.search(sentence, line), line
    assert "\n" not in line
    assert everything(owner) == before
    if "was not applied" not in line:
        where: dict[str, Any] = {
            "database_url": url,
            "database_schema": schema,
            "ipfs_gateways": ("http://127.0.0.1:9",),
        }
        found = await diagnose(Settings(_env_file=None, **where))
        [told] = [finding for finding in found if finding.check == "migrations"]
        assert (f"{told.came_back}: {told.to_do}", told.level) == (line, Level.BROKEN)
        async with await connect(load_settings(database_url=url, database_schema=schema)) as connection:
            assert (await find_obstacles(connection))[0] == line


def test_a_schema_that_the_role_makes(app: tuple[str, str, psycopg.Connection[Any]]) -> None:
    """A role with CREATE on the database makes the missing schema and owns it."""
    name, url, owner = app
    owner.execute(SQL("GRANT CREATE ON DATABASE {} TO {}").format(Identifier(owner.info.dbname), Identifier(name)))
    assert migrate(url, "mine") == NAMES
    assert scalar(owner, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'mine'") == name


def test_a_role_that_owns_nothing(database_url: str, add_migration: Callable[[str], str]) -> None:
    """A role without ownership has nothing to migrate in a migrated database, and gets advice for a new migration."""
    with restricted_role(database_url) as role:
        assert migrate(role.url) == []
        name = add_migration('ALTER TABLE public."VerificationJob" ADD COLUMN note text;')
        with pytest.raises(DatabaseRefusal, match=f"{name} was not applied: .*as the role that owns iidq's tables"):
            migrate(role.url)


def test_a_lock_row_that_was_left(empty_database_url: str) -> None:
    """A lock row left by a killed yoyo holds up no migration."""
    with psycopg.connect(empty_database_url, autocommit=True) as sql:
        sql.execute("CREATE TABLE yoyo_lock (locked int DEFAULT 1 PRIMARY KEY, ctime timestamp, pid int NOT NULL)")
        sql.execute("INSERT INTO yoyo_lock (ctime, pid) VALUES (now(), 1)")
    assert migrate(empty_database_url) == NAMES


def test_a_user_without_a_name(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrations run under a user id without a name, as in containers."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert migrate(empty_database_url) == NAMES


def test_a_server_that_is_too_old(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older server than the oldest supported version is refused before any change."""
    monkeypatch.setattr(connections, "OLDEST_POSTGRES", 99)
    with pytest.raises(SettingsFault, match=r"the server is PostgreSQL \d\d; expected 99 or later"):
        migrate(empty_database_url)
    assert objects(empty_database_url) == []


def test_the_command(empty_database_url: str, tmp_path: Path) -> None:
    """`iidq migrate` on a read-only database ends with one line, without a stack, and with exit code 2."""
    with psycopg.connect(empty_database_url, autocommit=True) as sql:
        name = Identifier(sql.info.dbname)
        sql.execute(SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from iidq.database import migrate; migrate._TRIES = 1\nfrom iidq.cli import main\nmain()",
            "migrate",
        ],
        env=os.environ | {"DATABASE_URL": empty_database_url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"iidq: no server of DATABASE_URL takes writes: .*\n", done.stderr), done.stderr
