"""A real PgBouncer in transaction mode, where one is installed."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from iidq.embedded.postgres import free_port
from iidq.process import die_with_parent

_CONFIGURATION = """
[databases]
* = host={host} port={port} user=iidq
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
reserve_pool_size = 0
server_idle_timeout = 60
logfile =
pidfile =
"""
_START_TIMEOUT_SECONDS = 15


def find_pgbouncer() -> str | None:
    """Return the path of the program, or None; Debian keeps the program in /usr/sbin."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def pool_transactions(folder: Path, database_url: str) -> Iterator[str]:
    """Yield the URL of the same database through a pooler with four server connections, one per transaction."""
    program = find_pgbouncer()
    assert program is not None
    server = conninfo_to_dict(database_url)
    port = free_port()
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        _CONFIGURATION.format(host=server["host"], port=server.get("port", 5432), listen_port=port)
    )
    log = folder / "pgbouncer.log"
    # PgBouncer refuses to run as root, and Postgres then runs under this account.
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [program, str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            user=nobody and nobody.pw_uid,
            group=nobody and nobody.pw_gid,
            extra_groups=[] if nobody else None,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        _wait_until_open(process, port, log)
        yield f"postgresql://iidq@127.0.0.1:{port}/{server['dbname']}"
    finally:
        process.kill()
        process.wait()


def _wait_until_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"PgBouncer did not come up:\n{log.read_text()}")
        time.sleep(0.02)
