"""Milliseconds from just before a job is enqueued to its handler's first line, in an idle worker."""

import time

from benchmarks.bench import Bench
from benchmarks.child import Child, call
from benchmarks.record import quantile

_SETTLE_SECONDS = 2.0
_LAST_SECONDS = 1.0


class LatencyFailed(Exception):
    """A job was not picked up."""


def latency(bench: Bench) -> dict[str, float]:
    """Enqueue jobs at an even pace from another process; both processes read the same clock (CLOCK_MONOTONIC)."""
    jobs, gap_ms = bench.options.latency_jobs, bench.options.latency_gap_ms
    with bench.server.migrated_database() as url, Child("worker", [], {"DATABASE_URL": url}) as worker:
        worker.ready()
        worker.go()
        time.sleep(_SETTLE_SECONDS)
        call("enqueuer", ["--jobs", jobs, "--gap-ms", gap_ms], {"DATABASE_URL": url}, timeout_seconds=120)
        time.sleep(_LAST_SECONDS)
        waited_ms = worker.finish()["latency_ms"]
    if len(waited_ms) != jobs:
        raise LatencyFailed(f"{len(waited_ms)} of {jobs} jobs were picked up")
    return {"latency_p50_ms": quantile(waited_ms, 0.50), "latency_p99_ms": quantile(waited_ms, 0.99)}
