"""When a source that keeps failing is left alone."""

from iidq.concurrency.circuit_breaker import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    UNAVAILABLE_STRAIN,
    WRONG_ANSWER_STRAIN,
    CircuitBreaker,
)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    """A breaker that has just opened."""
    breaker = CircuitBreaker(clock)
    for _ in range(3):
        breaker.asked()
        breaker.failed(UNAVAILABLE_STRAIN)
    return breaker


def test_three_failures_in_a_row_open_it() -> None:
    """Two do not, and a success in between starts the count again."""
    breaker = CircuitBreaker(Clock())
    for _ in range(3):
        breaker.failed(UNAVAILABLE_STRAIN)
        breaker.failed(UNAVAILABLE_STRAIN)
        assert not breaker.rests()
        breaker.succeeded()
    assert opened(Clock()).rests()


def test_wrong_answers_weigh_less_than_waits() -> None:
    """Twelve lies in a row open it, eleven do not."""
    breaker = CircuitBreaker(Clock())
    for _ in range(11):
        breaker.failed(WRONG_ANSWER_STRAIN)
    assert not breaker.rests()
    breaker.failed(WRONG_ANSWER_STRAIN)
    assert breaker.rests()


def test_after_its_rest_one_probe_decides() -> None:
    """While the probe is out the others hold back; a failed one doubles the rest, a good one closes."""
    clock = Clock()
    breaker = opened(clock)
    rest = FIRST_REST_SECONDS
    for _ in range(10):
        clock.now += rest - 0.1
        assert breaker.rests()
        clock.now += 0.1
        assert not breaker.rests()
        breaker.asked()
        assert breaker.rests()
        breaker.failed(UNAVAILABLE_STRAIN)
        rest = min(rest * 2, LONGEST_REST_SECONDS)
    clock.now += rest
    breaker.asked()
    breaker.succeeded()
    assert not breaker.rests()


def test_failures_of_requests_that_were_already_out_do_not_lengthen_the_rest() -> None:
    """Sixty jobs that fail on the same dead source open it once."""
    clock = Clock()
    breaker = opened(clock)
    for _ in range(60):
        breaker.failed(UNAVAILABLE_STRAIN)
    clock.now += FIRST_REST_SECONDS
    assert not breaker.rests()


def test_patience_that_was_asked_for_is_kept() -> None:
    """The longest wish counts, also over a later success."""
    clock = Clock()
    breaker = CircuitBreaker(clock)
    breaker.failed(UNAVAILABLE_STRAIN, retry_after_seconds=60)
    breaker.failed(UNAVAILABLE_STRAIN, retry_after_seconds=5)
    assert breaker.patience_seconds == 60
    clock.now += 59
    assert breaker.patience_seconds == 1
    clock.now += 2
    assert breaker.patience_seconds == 0
