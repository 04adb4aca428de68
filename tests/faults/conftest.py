"""Worker processes, and a ledger of executions and ends in the database."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from iidq.database.migrate import migrate
from iidq.embedded.postgres import EmbeddedPostgres
from iidq.process import die_with_parent

_LEDGER = """
CREATE TABLE execution (job_id uuid, attempt int, pid int);
CREATE TABLE ending (job_id uuid, status text);
CREATE FUNCTION note_ending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO ending VALUES (NEW.id, NEW.status);
  RETURN NULL;
END $$;
CREATE TRIGGER note_ending AFTER UPDATE ON "VerificationJob" FOR EACH ROW
  WHEN (NEW."completedAt" IS NOT NULL) EXECUTE FUNCTION note_ending();
"""
_STOP_TIMEOUT_SECONDS = 20


def keep_ledger(database_url: str) -> None:
    """Count executions and ends in this database from now on. Any write to an ended job counts as one more end."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_LEDGER.encode())


class Worker:
    """One worker process and its log."""

    def __init__(self, module: str, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=Path(__file__).parent.parent.parent,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def says(self, event: str) -> bool:
        """Return whether the log has this event."""
        return event in self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the end, and return the exit code."""
        return self.process.wait(_STOP_TIMEOUT_SECONDS)


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Start worker processes on a database, with the environment as keyword arguments; kill all at the end."""
    started: list[Worker] = []

    def start(database_url: str, *, module: str = "tests.faults.worker_process", **environment: str) -> Worker:
        usual = {
            "DATABASE_URL": database_url,
            "RPC_URL": "http://127.0.0.1:9",
            "WORKER_CONCURRENCY": "5",
            "JOB_LEASE_SECONDS": "0.6",
            "POLL_INTERVAL_SECONDS": "1",
            "RETRY_BACKOFF_MS": "10",
            "LOG_FORMAT": "json",
        }
        worker = Worker(module, tmp_path / f"worker-{len(started)}.log", usual | environment)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.wait(_STOP_TIMEOUT_SECONDS)


@pytest.fixture
def ledger(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the test's database, with a ledger."""
    keep_ledger(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A migrated server for one test, free to be stopped and started."""
    with tempfile.TemporaryDirectory(prefix="iidq-test-") as folder:
        home = Path(folder)
        # Run by root, the server has another account, which must pass here.
        home.chmod(0o711)
        server = EmbeddedPostgres(home / "postgres")
        server.start()
        try:
            migrate(server.url)
            keep_ledger(server.url)
            yield server
        finally:
            server.close()
