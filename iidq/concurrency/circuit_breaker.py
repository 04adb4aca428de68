"""When to stop asking a source that keeps failing, and when to try it again."""

from collections.abc import Callable
from time import monotonic

FIRST_REST_SECONDS = 10.0
LONGEST_REST_SECONDS = 300.0
# An unavailable source costs a wait, a wrong answer only a round trip: three of the former or twelve of the
# latter in a row are too much.
UNAVAILABLE_STRAIN = 4
WRONG_ANSWER_STRAIN = 1
BREAKING_STRAIN = 12


class CircuitBreaker:
    """The health of one source.

    Closed, it is asked. After too much strain in a row the breaker opens and the source rests; when the rest is
    over it is asked once, as a probe, and rests twice as long (10 s up to 5 min) if that fails too. Apart from
    that, a source that asked for patience (``Retry-After``) is left alone until then.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._strain = 0
        self._rest_seconds = FIRST_REST_SECONDS
        self._open_until: float | None = None
        self._probing = False
        self._patience_until = 0.0

    @property
    def patience_seconds(self) -> float:
        """How long the source asked to be left alone from now on."""
        return max(self._patience_until - self._clock(), 0.0)

    def rests(self) -> bool:
        """Whether the breaker is open and the source should not be asked now."""
        return self._open_until is not None and self._clock() < self._open_until

    def asked(self) -> None:
        """A request goes out: if it is the probe, others hold back until its outcome is known."""
        if self._open_until is not None and not self.rests():
            self._open_until = self._clock() + self._rest_seconds
            self._probing = True

    def succeeded(self) -> None:
        """The source answered usefully: close."""
        self._strain = 0
        self._rest_seconds = FIRST_REST_SECONDS
        self._open_until = None
        self._probing = False

    def failed(self, strain: int, *, retry_after_seconds: float | None = None) -> None:
        """The source did not answer usefully."""
        now = self._clock()
        if retry_after_seconds:
            self._patience_until = max(self._patience_until, now + retry_after_seconds)
        self._strain += strain
        if self._probing:
            self._probing = False
            self._rest_seconds = min(self._rest_seconds * 2, LONGEST_REST_SECONDS)
        elif self._strain < BREAKING_STRAIN or self._open_until is not None:
            return
        self._open_until = now + self._rest_seconds
