"""p99 milliseconds of the read endpoints behind a long history, one request at a time over a kept connection."""

import contextlib
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.child import call
from benchmarks.history import lived_through
from benchmarks.record import quantile
from benchmarks.server import STATEMENTS, execute
from benchmarks.service import Serving, api
from iidq.queue.read.paging import Cursor

_PAGE = 50
_DEEP_PAGE = 10_000


def readers(bench: Bench) -> dict[str, float]:
    """Measure /stats, page 1, page 10,000 by cursor (or the last page of a shorter history), and one job."""
    url = bench.once("history", lambda: lived_through(bench))
    skip = min(_DEEP_PAGE * _PAGE, bench.options.history_rows - _PAGE) - 1
    [(created_at, job_id)] = execute(url, STATEMENTS["row_at"], {"skip": skip})
    paths = {
        "read_stats_p99_ms": "/stats",
        "read_page1_p99_ms": f"?limit={_PAGE}",
        "read_page10000_p99_ms": f"?limit={_PAGE}&cursor={Cursor(created_at, job_id).encode()}",
        "read_job_p99_ms": f"/{job_id}",
    }
    with _api(bench, url) as server:
        return {name: _p99_ms(bench, f"{server.url}/api/verification-jobs{path}") for name, path in paths.items()}


def _p99_ms(bench: Bench, url: str) -> float:
    # At 100 requests per second the client's own time does not count.
    seconds = bench.options.reads / 100
    done = call("load", [url, "--connections", 1, "--seconds", seconds, "--per-second", 100], {}, timeout_seconds=600)
    return quantile(done["latency_ms"], 0.99)


@contextlib.contextmanager
def _api(bench: Bench, url: str) -> Iterator[Serving]:
    environment = {"DATABASE_URL": url, "RPC_URL": "http://127.0.0.1:9"}
    with api(environment, bench.server.scratch / "api.log") as server:
        yield server
