"""Claimed jobs that have no slot yet: first come first, and each for a short while only."""

import asyncio
from collections.abc import Callable

from iidq.queue.processing.attempt import Attempt

# Another worker may be idle.
_PATIENCE_SECONDS = 0.5


class StandingBy:
    """``too_long`` is called with an attempt for which no slot became free in time; it is still here then."""

    def __init__(self, too_long: Callable[[Attempt], None]) -> None:
        self._too_long = too_long
        self._patience: dict[Attempt, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._patience)

    def add(self, attempt: Attempt) -> None:
        """It stands by from now on, behind the others."""
        timer = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._too_long, attempt)
        self._patience[attempt] = timer

    def take(self, attempt: Attempt) -> None:
        """It does no longer stand by."""
        self._patience.pop(attempt).cancel()

    def take_next(self) -> Attempt | None:
        """The first in line, which does no longer stand by; None where nobody does."""
        attempt = next(iter(self._patience), None)
        if attempt is not None:
            self.take(attempt)
        return attempt

    def all(self) -> list[Attempt]:
        """Those that stand by now."""
        return list(self._patience)
