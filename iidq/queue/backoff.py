"""The delay before a failed attempt is retried. Pure.

Exponential with full jitter: the delay is drawn evenly from 0 to ``first * 2**retries``, capped, so that
jobs with a common failure do not return together. A ``Retry-After`` of the upstream is a lower bound.
"""

from dataclasses import dataclass

LONGEST_DELAY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delays between the attempts of a job."""

    first_delay_seconds: float = 5.0
    """Upper bound of the first delay; doubles with each retry, up to ``LONGEST_DELAY_SECONDS``."""

    def delay_seconds(
        self, *, retry_count: int, max_attempts: int, temporary: bool, draw: float, wish_seconds: float | None = None
    ) -> float | None:
        """Return the seconds until the next attempt, or None to give up.

        ``retry_count`` is the number of retries before this failure; ``draw`` is a random number in [0, 1).
        """
        if not temporary or retry_count + 1 >= max_attempts:
            return None
        # 2.0**64 seconds is past every cap; a larger exponent would only overflow.
        ceiling = min(LONGEST_DELAY_SECONDS, self.first_delay_seconds * 2.0 ** min(retry_count, 64))
        return min(LONGEST_DELAY_SECONDS, max(draw * ceiling, float(wish_seconds or 0.0)))
