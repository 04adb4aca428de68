"""What a worker with nothing to do costs: statements per poll interval, and its share of a core."""

import os
import time
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.server import STATEMENTS, execute

_POLL_SECONDS = 5.0
# The interval is drawn between three quarters and the whole of the setting.
_MEAN_POLL_SECONDS = 0.875 * _POLL_SECONDS
# A session tells its counts at most once a second, and an idle one within ten.
_FLUSH_SECONDS = 11.0


def idle(bench: Bench) -> dict[str, float]:
    """Counted as transactions of its database, asked from another one."""
    seconds = bench.options.idle_seconds
    with bench.server.migrated_database() as url:
        name = {"database": conninfo_to_dict(url)["dbname"]}
        environment = {"DATABASE_URL": url, "POLL_INTERVAL_SECONDS": str(_POLL_SECONDS)}
        with Child("worker", [], environment) as worker:
            worker.ready()
            worker.go()
            time.sleep(_FLUSH_SECONDS)
            [(before,)] = execute(bench.server.url, STATEMENTS["transactions"], name)
            cpu_before = _cpu_seconds(worker.process.pid)
            time.sleep(seconds)
            [(after,)] = execute(bench.server.url, STATEMENTS["transactions"], name)
            cpu_share = (_cpu_seconds(worker.process.pid) - cpu_before) / seconds
            worker.finish()
    return {
        "idle_statements_per_poll": float(after - before) / (seconds / _MEAN_POLL_SECONDS),
        "idle_cpu_percent": cpu_share * 100,
    }


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, by proc(5), to a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
