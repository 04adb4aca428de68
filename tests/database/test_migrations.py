"""``migrations/``: from nothing to the whole schema, and back."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlparse

from iidq import migrate as migration
from iidq.errors import DatabaseUnavailable
from iidq.migrate import migrate

NAMES = sorted(path.stem for path in (Path(migration.__file__).parent.parent / "migrations").glob("????_*[a-z].sql"))
NAMES = [name for name in NAMES if not name.endswith(".rollback")]


def objects(url: str) -> list[Any]:
    """Everything of ours in the database, and what it says: relations, indexes, views, functions."""
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
    """The first call applies all in order; the second finds nothing to do."""
    assert migrate(empty_database_url) == NAMES
    before = objects(empty_database_url)
    assert migrate(empty_database_url) == []
    assert objects(empty_database_url) == before


async def test_three_hosts_at_once(empty_database_url: str) -> None:
    """Three processes that start together all succeed, and each migration is applied once."""
    code = f"from iidq.migrate import migrate; print(len(migrate({empty_database_url!r})))"
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
    """Rolled back in reverse order, nothing is left; applied again, everything is there."""
    migrate(empty_database_url)
    complete = objects(empty_database_url)
    folder = Path(migration.__file__).parent.parent / "migrations"
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
    """Somebody with psql finds the meaning of every table, view and column in the database itself."""
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
    """After patient tries the command ends with our error, not a driver's."""
    monkeypatch.setattr(migration, "_TRIES", 1)
    with pytest.raises(DatabaseUnavailable, match="cannot be reached"):
        migrate("postgresql://iidq@/iidq?host=/nonexistent")
