"""How many jobs a worker claims before it has a slot for them. Pure; times are of one clock, in seconds.

Between the end of one job and the start of the next lies a claim: 1.4 ms of an idle slot, of a job of 50 ms a
thirtieth; with Postgres a network away, a tenth. So where there is a backlog, a few claimed jobs stand by for the next
free slot: as many as short jobs left one in the last tenth of a second. Behind their like they wait no longer than
that. It matters, since what stands by here cannot be run by a worker that has just become idle; behind long jobs, where
a claim is nothing, nobody stands by.
"""

from collections import deque
from math import inf

# One in so many slots, at least one.
_SLOTS_PER_JOB = 4
# The longest that a short job takes, and how far back one counts.
_SHORT_SECONDS = 0.1
# Claims that left nothing free for so long make a backlog: workers that are idle have been called by then, and have
# taken what they can.
_BACKLOG_SECONDS = 0.1


class ClaimAhead:
    """Watches how often short jobs leave a slot, and whether claims find more jobs than slots."""

    def __init__(self, slots: int) -> None:
        self._ends: deque[float] = deque(maxlen=max(1, slots // _SLOTS_PER_JOB))
        self._first_full = self._last_full = inf

    def jobs(self, now: float) -> int:
        """How many jobs may stand by."""
        if not self._last_full - self._first_full >= _BACKLOG_SECONDS:
            return 0
        while self._ends and self._ends[0] < now - _SHORT_SECONDS:
            self._ends.popleft()
        return len(self._ends)

    def claimed(self, now: float, *, short: bool) -> None:
        """A claim has ended; short: there were fewer jobs than it asked for."""
        self._last_full = inf if short else now
        self._first_full = inf if short else min(self._first_full, now)

    def ended(self, now: float, seconds: float) -> None:
        """A job that ran so long has left its slot."""
        if seconds <= _SHORT_SECONDS:
            self._ends.append(now)

    def waited_in_vain(self) -> None:
        """A job stood by for too long: what ended before is no measure any more."""
        self._ends.clear()
