"""The window in which requests are counted, and the counts that API processes share. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

WINDOW_SECONDS: Final = 60
"""Length of the sliding window."""
BUCKET_SECONDS: Final = 10
"""Length of one bucket: the window moves on bucket by bucket."""
BUCKETS: Final = WINDOW_SECONDS // BUCKET_SECONDS


class KeyedCount(NamedTuple):
    """Requests of one client in one bucket."""

    key: bytes
    """Digest of the client, so that no address is stored."""
    bucket: int
    """Number of the bucket: seconds since 1970, divided by :data:`BUCKET_SECONDS`."""
    requests: int
    """Requests admitted in the bucket."""


class SharedCounts(Protocol):
    """Counts of all API processes. All methods raise :class:`IidqError` while the counts are unreachable."""

    async def add(self, additions: Sequence[KeyedCount], *, since_bucket: int) -> tuple[list[KeyedCount], float | None]:
        """Add counts; return the totals of these keys from ``since_bucket`` on, and the shared clock if known.

        The clock is in seconds since 1970.
        """

    async def purge(self, *, before_bucket: int) -> None:
        """Remove older counts."""
