"""A long history: rows that the queue itself has finished, or that came in as finished.

They lie in the table differently. A finished row is larger than a waiting one, so that an import leaves in most pages
a gap that takes a waiting row or two; where the queue was at work, the waiting rows of a burst lie side by side, for
their pages are those that their predecessors have left.
"""

import contextlib
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.server import STATEMENTS, seed, seeding

_BURST_ROWS = 50_000
_ROWS_PER_VACUUM = 500_000


@contextlib.contextmanager
def lived_through(bench: Bench) -> Iterator[str]:
    """A database with finished rows: inserted, claimed and completed burst by burst, and vacuumed now and then."""
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
    """A database with as many rows that were inserted as finished."""
    with bench.server.migrated_database() as url:
        seed(url, "seed_imported", bench.options.history_rows)
        yield url
