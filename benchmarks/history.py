"""A long history: rows finished by the queue, or inserted as finished.

The two fill pages differently. A finished row is larger than a waiting row, so an import leaves a gap for a waiting row
or two in most pages. In a working queue the waiting rows of a burst lie together, in pages left by earlier rows.
"""

import contextlib
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.server import STATEMENTS, seed, seeding

_BURST_ROWS = 50_000
_ROWS_PER_VACUUM = 500_000


@contextlib.contextmanager
def lived_through(bench: Bench) -> Iterator[str]:
    """Yield a database with finished rows: inserted, claimed and completed in bursts, and vacuumed now and then."""
    rows = bench.options.history_rows
    with bench.server.migrated_database() as url:
        with seeding(url) as connection:
            for first in range(1, rows + 1, _BURST_ROWS):
                last = min(rows, first + _BURST_ROWS - 1)
                connection.execute(STATEMENTS["seed_waiting"], {"first": first, "last": last, "rows": rows})
                connection.execute(STATEMENTS["seed_claimed"])
                connection.execute(STATEMENTS["seed_completed"])
                if last % _ROWS_PER_VACUUM == 0:
                    connection.execute(STATEMENTS["vacuum"])
        yield url


@contextlib.contextmanager
def imported(bench: Bench) -> Iterator[str]:
    """Yield a database with as many rows, inserted as finished."""
    with bench.server.migrated_database() as url:
        seed(url, "seed_imported", bench.options.history_rows)
        yield url
