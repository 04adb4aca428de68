"""The health of a remote source: when to stop requests to a source that keeps failing, and when to probe it."""

from collections.abc import Callable
from time import monotonic


class CircuitBreaker:
    """Counts failures in a row; opens at ``threshold``.

    An open breaker lets one request through after ``first_pause_seconds``, as a probe. Each failed probe doubles the
    pause, up to ``longest_pause_seconds``. A success closes the breaker. A ``Retry-After`` of the source is kept
    separately and outlasts a success.
    """

    def __init__(
        self,
        *,
        threshold: int,
        first_pause_seconds: float,
        longest_pause_seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.failures = 0
        """Weight of the failures since the last success."""
        self._threshold = threshold
        self._first_pause_seconds = first_pause_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._clock = clock
        self._pause_seconds = first_pause_seconds
        self._open_until: float | None = None
        self._probing = False
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether requests should go to another source for now."""
        return self.open_seconds > 0

    @property
    def open_seconds(self) -> float:
        """Seconds until a probe is due; 0 if the breaker is closed or a probe is due."""
        return 0.0 if self._open_until is None else max(self._open_until - self._clock(), 0.0)

    @property
    def retry_after_seconds(self) -> float:
        """Seconds that are left of the source's ``Retry-After``; 0 if none is left."""
        return max(self._retry_at - self._clock(), 0.0)

    def record_request(self) -> None:
        """Note a request. If a probe is due, this is the probe: the breaker stays open for others meanwhile."""
        if self._open_until is not None and not self.is_open:
            self._open_until = self._clock() + self._pause_seconds
            self._probing = True

    def record_success(self) -> None:
        """Close the breaker after a useful answer."""
        self.failures = 0
        self._pause_seconds = self._first_pause_seconds
        self._open_until = None
        self._probing = False

    def end_probe(self) -> None:
        """End a probe without a success or a failure: the next request is a probe again."""
        if self._probing:
            self._probing = False
            self._open_until = self._clock()

    def record_failure(self, weight: int = 1, *, retry_after_seconds: float | None = None) -> None:
        """Count a failure with its weight.

        While the breaker is open only the probe's failure counts: an outage that many requests meet opens it once.
        """
        now = self._clock()
        if retry_after_seconds:
            self._retry_at = max(self._retry_at, now + retry_after_seconds)
        self.failures += weight
        if self._probing:
            self._probing = False
            self._pause_seconds = min(self._pause_seconds * 2, self._longest_pause_seconds)
        elif self.failures < self._threshold or self._open_until is not None:
            return
        self._open_until = now + self._pause_seconds
