"""How many jobs a worker claims before it has a slot for them. Pure; times are the event loop's, in seconds.

Between the end of one job and the start of the next lies a claim: 1.4 ms of an idle slot, of a job of 50 ms a
thirtieth; with Postgres a network away, a tenth. So while there is a backlog and jobs are short, a few claimed jobs
stand by for the next free slot. A few: what stands by here cannot be run by a worker that has just become idle.
"""

from math import inf

# One in so many slots, at least one: the last to stand by begins after a quarter of a job's time, or a whole one
# where there is one slot.
_SLOTS_PER_JOB = 4
# A claim is a hundredth of longer jobs, and nobody shall wait for them behind a full worker.
_LONGEST_MEAN_SECONDS = 0.2
# The mean is that of about so many last jobs.
_REMEMBERED_JOBS = 8
# Workers that are idle have been called by then, and have taken what they can.
_BACKLOG_SECONDS = 0.1


class ClaimAhead:
    """Watches how long jobs take and whether there are more than free slots."""

    def __init__(self, slots: int) -> None:
        self._most = max(1, slots // _SLOTS_PER_JOB)
        self._mean_seconds = inf
        self._backlog_since = inf

    def jobs(self, now: float) -> int:
        """How many jobs may stand by."""
        lasts = now - self._backlog_since >= _BACKLOG_SECONDS
        return self._most if lasts and self._mean_seconds <= _LONGEST_MEAN_SECONDS else 0

    def claimed(self, now: float, *, short: bool) -> None:
        """A claim has ended; short: there were fewer jobs than it asked for."""
        self._backlog_since = inf if short else min(self._backlog_since, now)

    def ended(self, seconds: float) -> None:
        """A job took that long, however it ended."""
        if self._mean_seconds == inf:
            self._mean_seconds = seconds
        else:
            self._mean_seconds += (seconds - self._mean_seconds) / _REMEMBERED_JOBS

    def gave_up(self) -> None:
        """A job stood by for too long: what is known of their durations does not hold."""
        self._mean_seconds = inf
