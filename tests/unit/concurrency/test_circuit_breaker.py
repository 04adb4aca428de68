"""The circuit breaker of a source: no requests after repeated failures."""

from iidq.concurrency.circuit_breaker import CircuitBreaker

FIRST_PAUSE_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 300.0


class Clock:
    """Seconds moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def is_open(breaker: CircuitBreaker) -> bool:
    """Read the state; a type checker would take a property's value for constant."""
    return breaker.is_open


def closed(clock: Clock) -> CircuitBreaker:
    """Return a breaker that opens after three failures of weight 4."""
    return CircuitBreaker(
        threshold=12,
        first_pause_seconds=FIRST_PAUSE_SECONDS,
        longest_pause_seconds=LONGEST_PAUSE_SECONDS,
        clock=clock,
    )


def opened(clock: Clock) -> CircuitBreaker:
    """Return a breaker that has just opened."""
    breaker = closed(clock)
    for _ in range(3):
        breaker.record_request()
        breaker.record_failure(4)
    return breaker


def test_three_failures_in_a_row_open_it() -> None:
    """Two failures do not open the breaker, and a success in between starts the count again."""
    breaker = closed(Clock())
    for _ in range(3):
        breaker.record_failure(4)
        breaker.record_failure(4)
        assert not is_open(breaker)
        breaker.record_success()
    assert is_open(opened(Clock()))


def test_light_failures_count_less() -> None:
    """Twelve failures of weight 1 open the breaker, eleven do not."""
    breaker = closed(Clock())
    for _ in range(11):
        breaker.record_failure()
    assert not is_open(breaker)
    breaker.record_failure()
    assert is_open(breaker)
    assert breaker.failures == 12


def test_after_the_pause_one_probe_decides() -> None:
    """During the probe the breaker stays open; a failed probe doubles the pause, a good one closes the breaker."""
    clock = Clock()
    breaker = opened(clock)
    pause = FIRST_PAUSE_SECONDS
    for _ in range(10):
        assert breaker.open_seconds == pause
        clock.now += pause - 0.1
        assert is_open(breaker)
        clock.now += 0.1
        assert not is_open(breaker)
        breaker.record_request()
        assert is_open(breaker)
        breaker.record_failure(4)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
    clock.now += pause
    breaker.record_request()
    breaker.record_success()
    assert not is_open(breaker)


def test_a_probe_may_end_without_a_result() -> None:
    """The next request is a probe again, without another pause; a failure of it doubles the pause."""
    clock = Clock()
    breaker = opened(clock)
    breaker.end_probe()
    assert is_open(breaker)
    clock.now += FIRST_PAUSE_SECONDS
    breaker.record_request()
    breaker.end_probe()
    assert not is_open(breaker)
    breaker.record_request()
    breaker.record_failure(4)
    assert breaker.open_seconds == 2 * FIRST_PAUSE_SECONDS


def test_failures_of_requests_in_flight_do_not_lengthen_the_pause() -> None:
    """Sixty failed jobs on the same dead source open the breaker once."""
    clock = Clock()
    breaker = opened(clock)
    for _ in range(60):
        breaker.record_failure(4)
    clock.now += FIRST_PAUSE_SECONDS
    assert not is_open(breaker)


def test_a_retry_after_is_kept() -> None:
    """The longest Retry-After counts, also after a later success."""
    clock = Clock()
    breaker = closed(clock)
    breaker.record_failure(4, retry_after_seconds=60)
    breaker.record_failure(4, retry_after_seconds=5)
    breaker.record_success()
    assert breaker.retry_after_seconds == 60
    clock.now += 59
    assert breaker.retry_after_seconds == 1
    clock.now += 2
    assert breaker.retry_after_seconds == 0
