"""Jobs per second into the queue from one process; each call returns after its own commit."""

from benchmarks.bench import Bench
from benchmarks.child import call


def enqueue16(bench: Bench) -> dict[str, float]:
    """Enqueue with 16 tasks."""
    return {"enqueue16": _rate(bench, tasks=16)}


def enqueue256(bench: Bench) -> dict[str, float]:
    """Enqueue with 256 tasks."""
    return {"enqueue256": _rate(bench, tasks=256)}


def _rate(bench: Bench, *, tasks: int) -> float:
    with bench.server.migrated_database() as url:
        arguments = ["--jobs", bench.options.enqueue_jobs, "--tasks", tasks]
        done = call("enqueuer", arguments, {"DATABASE_URL": url}, timeout_seconds=bench.options.limit_seconds)
    return float(done["jobs"]) / float(done["seconds"])
