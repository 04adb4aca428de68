"""When a failed attempt is tried again. Pure.

Exponential with full jitter: the delay is drawn evenly from 0 to ``first * 2**retries``, capped, so that jobs
that failed together do not come back together. The far side's own wish (``Retry-After``) is a lower bound.
"""

from dataclasses import dataclass

LONGEST_DELAY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a job is tried."""

    first_delay_seconds: float = 5.0

    def delay_seconds(
        self, *, retry_count: int, max_attempts: int, temporary: bool, draw: float, wish_seconds: float | None = None
    ) -> float | None:
        """Seconds until the next attempt, or None to give up.

        ``retry_count`` is the number of retries before this failure; ``draw`` is a random number in [0, 1).
        """
        if not temporary or retry_count + 1 >= max_attempts:
            return None
        # 2.0**64 seconds is past every cap; a larger exponent would only overflow.
        ceiling = min(LONGEST_DELAY_SECONDS, self.first_delay_seconds * 2.0 ** min(retry_count, 64))
        return min(LONGEST_DELAY_SECONDS, max(draw * ceiling, float(wish_seconds or 0.0)))
