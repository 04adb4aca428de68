"""When a delivery that failed is tried again. Pure."""

from typing import Final

# Seconds from each failed attempt to the next, as Standard Webhooks recommends: the last comes three days after the
# first.
_MINUTE, _HOUR = 60.0, 3600.0
_DELAYS_SECONDS = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
MAX_ATTEMPTS: Final = len(_DELAYS_SECONDS) + 1
LONGEST_PATIENCE_SECONDS: Final = 24 * _HOUR
"""The most that a receiver's ``Retry-After`` can ask for."""
_JITTER = 0.2


def delay_seconds(failed_attempts: int, *, draw: float, asked_seconds: float | None = None) -> float | None:
    """How long to wait after so many failed attempts (1 or more); None: give up.

    Up to a fifth longer than planned by ``draw``, a random number in [0, 1), so that what failed together does not
    come back together. A receiver that asks for more time gets it, up to a day.
    """
    if failed_attempts >= MAX_ATTEMPTS:
        return None
    planned = _DELAYS_SECONDS[failed_attempts - 1]
    if asked_seconds is not None:
        planned = max(planned, min(asked_seconds, LONGEST_PATIENCE_SECONDS))
    return planned * (1.0 + _JITTER * draw)
