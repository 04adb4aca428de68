"""A primary and its streaming standby, from the embedded binaries."""

import contextlib
import os
import signal
import time
from pathlib import Path

import psycopg

from iidq.embedded.postgres import EmbeddedPostgres, PostgresNotStarted, free_port

_TIMEOUT_SECONDS = 60


class Standby(EmbeddedPostgres):
    """A read-only copy of ``primary``, kept up to date until promoted."""

    def __init__(self, home: Path, primary: EmbeddedPostgres) -> None:
        super().__init__(home, port=free_port(), options=primary.options)
        self._primary = primary
        self._silent_pid: int | None = None

    def close(self) -> None:
        """Close the server; a stopped process is continued first, or the server would not end."""
        self.speak()
        super().close()

    def _initialise(self) -> None:
        self.data_path.mkdir(mode=0o700, exist_ok=True)
        self._account.owns(self.data_path)
        process = self._spawn(
            "pg_basebackup",
            "--pgdata", str(self.data_path),
            "--host", "127.0.0.1", "--port", str(self._primary.port), "--username", "iidq",
            "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
        )  # fmt: skip
        if process.wait(_TIMEOUT_SECONDS) != 0:
            raise PostgresNotStarted(f"pg_basebackup failed:\n{self._log_end()}")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            try:
                with psycopg.connect(self.url, connect_timeout=5):
                    return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise PostgresNotStarted(f"the standby did not come up:\n{self._log_end()}") from None
                time.sleep(0.02)

    def wait_until_synchronous(self) -> None:
        """Let the primary acknowledge only commits of this standby, and wait until the primary does."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        with psycopg.connect(self._primary.url, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            admin.execute("SELECT pg_reload_conf()")
            while admin.execute("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is None:
                if time.monotonic() > deadline:
                    raise PostgresNotStarted(f"the standby does not follow:\n{self._log_end()}")
                time.sleep(0.02)

    def fall_silent(self) -> None:
        """Stop the process receiving from the primary: the connection stays open and confirms nothing."""
        with psycopg.connect(self.url) as admin:
            row = admin.execute("SELECT pid FROM pg_stat_wal_receiver").fetchone()
        assert row is not None
        self._silent_pid = row[0]
        os.kill(row[0], signal.SIGSTOP)

    def speak(self) -> None:
        """Continue the stopped process."""
        self._end_silence(signal.SIGCONT)

    def forget(self) -> None:
        """Kill the stopped process: unread data from the primary is lost."""
        self._end_silence(signal.SIGKILL)
        self._wait_until_ready()

    def _end_silence(self, how: signal.Signals) -> None:
        pid, self._silent_pid = self._silent_pid, None
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)

    def promote(self) -> None:
        """Promote the standby to primary; return once writes are accepted."""
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute("SELECT pg_promote(wait => true)")


def tcp_url(*servers: EmbeddedPostgres) -> str:
    """Return one URL with all servers."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://iidq@{hosts}/iidq"
