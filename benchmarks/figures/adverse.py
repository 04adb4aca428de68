"""The drain by one worker when the table is not empty, or when an old snapshot holds back vacuum."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import psycopg
from psycopg import IsolationLevel

from benchmarks.bench import Bench
from benchmarks.figures.drain import drain, fill
from benchmarks.history import imported, lived_through
from benchmarks.server import STATEMENTS, seed, settle
from iidq.database.pool import open_database
from iidq.queue.upkeep import Retention
from iidq.settings import load_settings

_AN_HOUR_IN_DAYS = 1 / 24


def history(bench: Bench) -> dict[str, float]:
    """Drain behind rows finished by the queue; the rows are made once, the jobs in every round."""
    url = bench.once("history", lambda: lived_through(bench))
    return {"history": _drain_behind(bench, url)}


def history_imported(bench: Bench) -> dict[str, float]:
    """Drain behind rows inserted as finished."""
    url = bench.once("import", lambda: imported(bench))
    return {"history_imported": _drain_behind(bench, url)}


def _drain_behind(bench: Bench, url: str) -> float:
    fill(url, bench.options.jobs)
    settle(url)
    return drain(bench, url, workers=1)


def delayed(bench: Bench) -> dict[str, float]:
    """Drain with retries in their backoff."""
    with bench.server.migrated_database() as url:
        seed(url, "seed_delayed", bench.options.delayed_rows)
        fill(url, bench.options.jobs)
        settle(url)
        return {"delayed": drain(bench, url, workers=1)}


def proofs(bench: Bench) -> dict[str, float]:
    """Drain verifies with waiting proofs behind them; the clock stops with the last verify."""
    with bench.server.migrated_database() as url:
        fill(url, bench.options.jobs)
        seed(url, "seed_proofs", bench.options.proof_rows)
        settle(url)
        return {"proofs": drain(bench, url, workers=1)}


def horizon(bench: Bench) -> dict[str, float]:
    """Drain with an idle REPEATABLE READ transaction from before the enqueue."""
    with bench.server.migrated_database() as url, psycopg.connect(url) as holder:
        holder.isolation_level = IsolationLevel.REPEATABLE_READ
        holder.execute(STATEMENTS["hold_snapshot"])
        fill(url, bench.options.jobs)
        settle(url)
        return {"horizon": drain(bench, url, workers=1)}


def retention(bench: Bench) -> dict[str, float]:
    """Drain while rows older than an hour are removed, batch by batch as in a worker."""
    with bench.server.migrated_database() as url:
        seed(url, "seed_imported", bench.options.history_rows)
        fill(url, bench.options.jobs)
        settle(url)
        with removing_old_rows(url):
            return {"retention": drain(bench, url, workers=1)}


@contextlib.contextmanager
def removing_old_rows(url: str) -> Iterator[None]:
    """Run a worker's retention in a thread until the block ends."""
    end = threading.Event()
    settings = load_settings(database_url=url, retention_completed_days=_AN_HOUR_IN_DAYS)

    async def remove() -> None:
        old = Retention(settings)
        async with open_database(settings, pool_size=1, sorts=False) as database:
            # The step returns a minute when nothing is left.
            while not await asyncio.to_thread(end.wait, min(0.5, await old.purge(database))):
                continue

    thread = threading.Thread(target=lambda: asyncio.run(remove()), name="retention")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
