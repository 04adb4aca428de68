"""Cost of an idle worker: transactions per poll interval, and share of a core."""

import os
import time
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from benchmarks.bench import Bench
from benchmarks.server import STATEMENTS, execute
from benchmarks.service import program

_POLL_SECONDS = 5.0
# The interval is drawn between three quarters and the whole of the setting.
_MEAN_POLL_SECONDS = 0.875 * _POLL_SECONDS
# Wait for the start, then for statistics: a busy session reports its counts once a second, an idle one within ten.
_SETTLE_SECONDS = 15.0


def idle(bench: Bench) -> dict[str, float]:
    """Run ``python -m iidq.worker``; count all transactions of its database, autovacuum and notifications included."""
    seconds = bench.options.idle_seconds
    with bench.server.migrated_database() as url:
        name = {"database": conninfo_to_dict(url)["dbname"]}
        environment = {
            "DATABASE_URL": url,
            "RPC_URL": "http://127.0.0.1:9",
            "POLL_INTERVAL_SECONDS": str(_POLL_SECONDS),
        }
        with program(["iidq.worker"], environment, bench.server.scratch / "worker.log") as worker:
            time.sleep(_SETTLE_SECONDS)
            [(before,)] = execute(bench.server.url, STATEMENTS["transactions"], name)
            cpu_before = _cpu_seconds(worker.pid)
            time.sleep(seconds)
            [(after,)] = execute(bench.server.url, STATEMENTS["transactions"], name)
            cpu_share = (_cpu_seconds(worker.pid) - cpu_before) / seconds
    return {
        "idle_transactions_per_poll": float(after - before) / (seconds / _MEAN_POLL_SECONDS),
        "idle_cpu_percent": cpu_share * 100,
    }


def _cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, from proc(5), to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
