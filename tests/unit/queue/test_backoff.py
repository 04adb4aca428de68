"""Delays between failed attempts."""

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.backoff import LONGEST_DELAY_SECONDS, RetryPolicy

draws = st.floats(0, 1, exclude_max=True)
retry_counts = st.integers(0, 10_000)
first_delays = st.floats(0, 300)
wishes = st.none() | st.floats(allow_infinity=True, allow_nan=True) | st.integers(-10, 10**6)


def delay(
    policy: RetryPolicy,
    *,
    retry_count: int = 0,
    max_attempts: int = 10**6,
    temporary: bool = True,
    draw: float = 0.5,
    wish_seconds: float | None = None,
) -> float | None:
    return policy.delay_seconds(
        retry_count=retry_count,
        max_attempts=max_attempts,
        temporary=temporary,
        draw=draw,
        wish_seconds=wish_seconds,
    )


@given(first_delays, retry_counts, draws, wishes)
def test_delay_stays_between_zero_and_the_cap(first: float, retry_count: int, draw: float, wish: float | None) -> None:
    """A delay is a float from 0 to 300 s, for any Retry-After and any number of retries."""
    seconds = delay(RetryPolicy(first), retry_count=retry_count, draw=draw, wish_seconds=wish)
    assert isinstance(seconds, float)
    assert 0 <= seconds <= LONGEST_DELAY_SECONDS


@given(first_delays, st.integers(0, 60), draws)
def test_jitter_is_full_under_a_doubling_ceiling(first: float, retry_count: int, draw: float) -> None:
    """The delay is the draw's share of first × 2^retries, so jobs with simultaneous failures return apart."""
    ceiling = min(LONGEST_DELAY_SECONDS, first * 2.0**retry_count)
    seconds = delay(RetryPolicy(first), retry_count=retry_count, draw=draw)
    assert seconds is not None
    assert math.isclose(seconds, draw * ceiling)


@given(first_delays, st.integers(0, 60), draws, st.floats(0, 1000))
def test_wish_of_the_far_side_is_a_lower_bound(first: float, retry_count: int, draw: float, wish: float) -> None:
    """Retry-After is a lower bound up to the cap, and never shortens the delay."""
    plain = delay(RetryPolicy(first), retry_count=retry_count, draw=draw)
    wished = delay(RetryPolicy(first), retry_count=retry_count, draw=draw, wish_seconds=wish)
    assert plain is not None
    assert wished == min(LONGEST_DELAY_SECONDS, max(plain, wish))


@given(retry_counts, st.integers(1, 100), draws)
def test_gives_up_exactly_at_the_last_attempt(retry_count: int, max_attempts: int, draw: float) -> None:
    """With N attempts in all, failure number N is the last."""
    seconds = delay(RetryPolicy(), retry_count=retry_count, max_attempts=max_attempts, draw=draw)
    assert (seconds is None) == (retry_count + 1 >= max_attempts)


@given(retry_counts, draws, wishes)
def test_permanent_fault_is_never_tried_again(retry_count: int, draw: float, wish: float | None) -> None:
    """A permanent fault has no next attempt, whatever the Retry-After."""
    assert delay(RetryPolicy(), retry_count=retry_count, temporary=False, draw=draw, wish_seconds=wish) is None


def test_defaults_are_the_contracts() -> None:
    """The first retry has a ceiling of 5 s, doubled for each further retry."""
    assert replace(RetryPolicy()).first_delay_seconds == 5.0
    ceilings = [delay(RetryPolicy(), retry_count=count, draw=1 - 2**-53) for count in range(8)]
    assert [round(ceiling or 0) for ceiling in ceilings] == [5, 10, 20, 40, 80, 160, 300, 300]
