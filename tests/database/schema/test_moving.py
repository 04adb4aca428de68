"""Moves of a queue to another database, server or version of Postgres, by the commands of docs/operations.md."""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from iidq.database.connections import connect
from iidq.database.migrate import migrate
from iidq.embedded.postgres import EmbeddedPostgres, PostgresNotStarted
from iidq.queue.outcome import Outcome
from iidq.settings import load_settings
from tests.conftest import postgres_binaries
from tests.database.attempts import claim_one, finish, sweep
from tests.database.schema.moving import BOTH_WAYS, HEALTH, LONG_RESULT, MOVED, NEWEST, OLDER, fill, run, works
from tests.document_pages import blocks
from tests.eventually import eventually
from tests.job_rows import COMPLETED, insert, scalar

MakeDatabase = Callable[..., str]
DUMP, RESTORE, RESTORE_OLDER, RESTORE_DATA, WITHOUT_TRIGGERS, FOLLOW, TAKE_OVER = [
    block for block in blocks("operations.md", "sh") if "$DATABASE_URL" in block or "NEW_DATABASE_URL" in block
]


@contextmanager
def owned_by_another(url: str) -> Iterator[str]:
    """Yield the URL of the same database for an owner without superuser rights."""
    name, database = f"owner_{secrets.token_hex(6)}", psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
        admin.execute(SQL("ALTER DATABASE {} OWNER TO {}").format(Identifier(str(database)), Identifier(name)))
        try:
            yield url.replace("//iidq@", f"//{name}@")
        finally:
            admin.execute(SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(Identifier(name)))
            admin.execute(SQL("DROP ROLE {}").format(Identifier(name)))


@pytest.mark.parametrize(("source", "target"), BOTH_WAYS)
async def test_a_dump_is_restored_on_another_version(
    make_database: MakeDatabase, source: str, target: str, tmp_path: Path
) -> None:
    """A dump restored on another version, for an owner without superuser rights, is a working queue."""
    old, new = make_database(source, migrated=True), make_database(target, migrated=False)
    fill(old)
    with owned_by_another(new) as owned:
        urls = {"DATABASE_URL": old, "NEW_DATABASE_URL": owned}
        run(DUMP, tmp_path, **urls)
        run(RESTORE_OLDER if target in OLDER else RESTORE, tmp_path, **urls)
        await works(owned)


@pytest.mark.parametrize(("source", "target"), BOTH_WAYS)
@pytest.mark.parametrize("options", ["--clean --if-exists --schema=public", "--inserts --create"])
def test_no_statement_of_a_dump_is_of_one_version(
    make_database: MakeDatabase, source: str, target: str, options: str, tmp_path: Path
) -> None:
    """A dump as text runs on another version to the last statement, for several options of pg_dump."""
    old, new = make_database(source, migrated=True), make_database(target, migrated=False)
    fill(old)
    # Another name than in the dump.
    name = psycopg.conninfo.conninfo_to_dict(old)["dbname"]
    copied = f"{name}_copy"
    rename = f"sed 's/{name}/{copied}/g'"
    try:
        run(
            f"pg_dump {options} '{old}' | sed '/^SET transaction_timeout/d' | {rename}"
            f" | psql --quiet --set=ON_ERROR_STOP=1 '{new}'",
            tmp_path,
        )
        if "--create" in options:
            new = new.replace(f"/{psycopg.conninfo.conninfo_to_dict(new)['dbname']}?", f"/{copied}?")
        with psycopg.connect(new, autocommit=True) as sql:
            assert sql.execute(HEALTH).fetchone() == MOVED
        assert migrate(new) == []
    finally:
        with psycopg.connect(make_database(target, migrated=False), autocommit=True) as admin:
            admin.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(copied)))


@pytest.mark.parametrize(("source", "target"), BOTH_WAYS)
async def test_data_alone_is_counted_once(
    make_database: MakeDatabase, source: str, target: str, tmp_path: Path
) -> None:
    """A dump's rows go into a migrated database without an error, with the counts of the rows."""
    old, new = make_database(source, migrated=True), make_database(target, migrated=True)
    fill(old)
    urls = {"DATABASE_URL": old, "NEW_DATABASE_URL": new}
    run(DUMP, tmp_path, **urls)
    # Without a file pg_restore writes SQL without statements unknown to an older server.
    command = RESTORE_DATA
    if target in OLDER:
        into = '--exit-on-error --dbname="$NEW_DATABASE_URL" iidq.dump'
        assert into in command
        text = (
            "--file=- iidq.dump | sed '/^SET transaction_timeout/d' | psql --set=ON_ERROR_STOP=1 \"$NEW_DATABASE_URL\""
        )
        command = command.replace(into, text)
    run(command, tmp_path, **urls)
    await works(new)


TARGET = '"$DATABASE_URL" | psql --quiet --set=ON_ERROR_STOP=1 "$NEW_DATABASE_URL"'
# Loads with and without triggers, of all tables or of the jobs alone.
LOADS = {
    "all": f"pg_dump --data-only {TARGET}",
    "as inserts": f"pg_dump --data-only --inserts {TARGET}",
    "without triggers": WITHOUT_TRIGGERS,
    "jobs": f"pg_dump --data-only --table='\"VerificationJob\"' {TARGET}",
    "jobs without triggers": f"pg_dump --data-only --disable-triggers --table='\"VerificationJob\"' {TARGET}",
}


@pytest.mark.parametrize("load", LOADS)
async def test_whatever_is_loaded_a_worker_counts_it(make_database: MakeDatabase, load: str, tmp_path: Path) -> None:
    """Counts after any load into a migrated database are corrected by the first worker's sweep."""
    old, new = make_database(NEWEST, migrated=True), make_database(NEWEST, migrated=True)
    fill(old)
    run(LOADS[load], tmp_path, DATABASE_URL=old, NEW_DATABASE_URL=new)
    async with await connect(load_settings(database_url=new)) as connection:
        await sweep(connection)
    with psycopg.connect(new, autocommit=True) as sql:
        assert sql.execute(HEALTH).fetchone() == MOVED


async def test_a_schema_without_rows_is_a_queue(make_database: MakeDatabase, tmp_path: Path) -> None:
    """A copy of the schema without rows takes, pauses and runs jobs; workers insert the rows of the migrations."""
    old, new = make_database(NEWEST, migrated=True), make_database(NEWEST, migrated=False)
    run(f"pg_dump --schema-only '{old}' | psql --quiet --set=ON_ERROR_STOP=1 '{new}'", tmp_path)
    with psycopg.connect(new, autocommit=True) as sql:
        insert(sql)
        assert scalar(sql, "SELECT waiting FROM queue_health") == 1
        sql.execute("SELECT pause_queue('a reason')")
        assert scalar(sql, "SELECT pause_reason FROM queue_health") == "a reason"
        sql.execute("SELECT resume_queue()")
        sql.execute("DELETE FROM iidq_queue_control")
        async with await connect(load_settings(database_url=new)) as connection:
            await sweep(connection)
            job = await claim_one(connection)
            await finish(connection, Outcome.completed(job, LONG_RESULT))
        assert scalar(sql, "SELECT upkeep_at IS NOT NULL AND completed = 1 FROM queue_health")


@pytest.mark.parametrize("kind", list(postgres_binaries()))
async def test_results_are_compressed_by_the_session(make_database: MakeDatabase, kind: str) -> None:
    """A result is compressed by lz4 where built in, without a compression method on any column."""
    url = make_database(kind, migrated=True)
    with psycopg.connect(url, autocommit=True) as sql:
        assert scalar(sql, "SELECT count(*) FROM pg_attribute WHERE attcompression <> ''") == 0
        methods = scalar(sql, "SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
        insert(sql)
        async with await connect(load_settings(database_url=url)) as connection:
            await finish(connection, Outcome.completed(await claim_one(connection), LONG_RESULT))
        used = scalar(sql, 'SELECT pg_column_compression(result) FROM "VerificationJob"')
    assert used == ("lz4" if "lz4" in methods else "pglz")


@contextmanager
def server(
    kind: str, of: type[EmbeddedPostgres] | Any = EmbeddedPostgres, **options: str
) -> Iterator[EmbeddedPostgres]:
    """A server for one test."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        home = Path(folder)
        # Run by root, the server has another account, which must pass here.
        home.chmod(0o711)
        made = of(home / "postgres", binaries=postgres_binaries()[kind], options={"fsync": "off", **options})
        try:
            made.start()
            yield made
        finally:
            made.close()


class Upgraded(EmbeddedPostgres):
    """A server with the data of the stopped server ``old``, upgraded by pg_upgrade."""

    def __init__(self, home: Path, *, old: EmbeddedPostgres, old_binaries: Path, **rest: Any) -> None:
        super().__init__(home, **rest)
        self._old, self._old_binaries = old, old_binaries

    def _initialise(self) -> None:
        self.data_path.mkdir(mode=0o700, exist_ok=True)
        self._account.owns(self.data_path)
        assert self._binaries is not None
        self._run(
            "initdb", "-D", str(self.data_path), "-U", "iidq", "--auth=trust", "--encoding=UTF8", "--locale=C",
            "--no-sync", "--no-data-checksums",
        )  # fmt: skip
        self._run(
            "pg_upgrade", "--old-bindir", str(self._old_binaries), "--new-bindir", str(self._binaries),
            "--old-datadir", str(self._old.data_path), "--new-datadir", str(self.data_path),
            "--username", "iidq", "--socketdir", str(self.home), "--no-sync", "--link",
        )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        if self._spawn(program, *arguments).wait(120) != 0:
            raise PostgresNotStarted(f"{program} failed:\n{self._log_end()}")


@pytest.mark.skipif(not OLDER, reason="no second version of Postgres in /usr/lib/postgresql")
async def test_pg_upgrade_takes_the_queue_along() -> None:
    """A cluster upgraded by pg_upgrade to the newest version has the same queue, and the queue works."""
    with server(OLDER[0]) as old:
        migrate(old.url)
        fill(old.url)
        old.stop()
        upgraded = partial(Upgraded, old=old, old_binaries=postgres_binaries()[OLDER[0]])
        with server(NEWEST, upgraded) as new:
            await works(new.url)


@pytest.mark.parametrize(("source", "target"), BOTH_WAYS)
async def test_a_subscriber_becomes_the_queue(
    make_database: MakeDatabase, source: str, target: str, tmp_path: Path
) -> None:
    """A migrated database of another version follows all tables, then takes over; jobs are counted once."""
    new = make_database(target, migrated=True)
    with server(source, wal_level="logical") as publisher, psycopg.connect(new, autocommit=True) as subscriber:
        migrate(publisher.url)
        fill(publisher.url)
        urls = {"DATABASE_URL": publisher.url, "NEW_DATABASE_URL": new}
        run(FOLLOW, tmp_path, **urls)
        try:
            copied = "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"
            await eventually(lambda: scalar(subscriber, copied), timeout_seconds=60)
            with psycopg.connect(publisher.url, autocommit=True) as sql:
                # As after two runs of a newer `iidq migrate`.
                for database in (subscriber, sql):
                    database.execute("INSERT INTO _yoyo_migration VALUES ('a hash', 'later', now())")
                sql.execute("DELETE FROM _yoyo_migration WHERE migration_id = 'later'")
                sql.execute("INSERT INTO iidq_rate_count VALUES ('x', 1, 1)")
                async with await connect(load_settings(database_url=publisher.url)) as connection:
                    await sweep(connection)
                insert(sql, COMPLETED)
            jobs = 'SELECT count(*) FROM "VerificationJob"'
            await eventually(lambda: scalar(subscriber, jobs) == sum(MOVED) + 1, timeout_seconds=60)
        finally:
            run(TAKE_OVER, tmp_path, **urls)
        assert scalar(subscriber, "SELECT count(*) FROM iidq_rate_count") == 0
        waiting, delayed, active, completed, failed, cancelled = MOVED
        await works(new, (waiting, delayed, active, completed + 1, failed, cancelled))
