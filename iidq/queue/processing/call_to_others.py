"""When a worker calls the others: there is more than it can take. Pure; times are the event loop's, in seconds.

Of all live workers the first responder alone answers announcements, so that one job does not wake everybody. Where it
has no room, passing them on is its part.
"""

# At most one call to the other workers per interval.
_INTERVAL_SECONDS = 0.05


class CallToOthers:
    """Remembers whether a call is due, and that a backlog was called out once."""

    def __init__(self) -> None:
        self.first_responder = True
        """Until a sweep tells: a worker that has just started answers, too."""
        self._wanted = self._backlog_called = False
        self._earliest = 0.0

    def due(self) -> float | None:
        """When the next call may go out; None: nobody is to be called."""
        return self._earliest if self._wanted else None

    def want(self) -> None:
        """There is a job that this worker cannot take."""
        self._wanted = True

    def claimed(self, *, short: bool, room: bool) -> None:
        """A claim has ended. Short: nothing was left; room: this worker could have taken more."""
        if short:
            self._backlog_called = False
        elif not room and self.first_responder and not self._backlog_called:
            self._backlog_called = self._wanted = True

    def sent(self, now: float) -> None:
        """A call goes out now."""
        self._wanted = False
        self._earliest = now + _INTERVAL_SECONDS
