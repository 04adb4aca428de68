"""Four workers of three slots each on jobs of 50 ms: the share of the ideal 240 jobs/s."""

from benchmarks.bench import Bench
from benchmarks.figures.drain import filled, timed_drain

WORKERS, CONCURRENCY, PAUSE_MS = 4, 3, 50
IDEAL_PER_SECOND = WORKERS * CONCURRENCY * 1000 / PAUSE_MS


def mixed(bench: Bench) -> dict[str, float]:
    """Measure from ``go`` until the last job is stored."""
    jobs = bench.options.mixed_jobs
    with filled(bench, jobs) as url:
        rate = timed_drain(
            url,
            jobs=jobs,
            workers=WORKERS,
            concurrency=CONCURRENCY,
            pause_ms=PAUSE_MS,
            limit_seconds=bench.options.limit_seconds,
        )
    return {"mixed": rate}
