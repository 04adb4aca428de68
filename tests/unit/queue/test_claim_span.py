"""Where claims begin to look: behind what is done, and now and then from the head of the line."""

from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.processing.claim_span import WHOLE, ClaimSpan


def test_the_first_claim_looks_at_the_whole_line() -> None:
    """A worker that has just started knows nothing."""
    assert ClaimSpan().begin(100.0) == WHOLE


def test_claims_go_on_where_the_last_one_came_to() -> None:
    """Until the whole line is due again, a claim does not walk over what the ones before have taken."""
    span = ClaimSpan()
    span.end(100.0, 100.01, span.begin(100.0), 5000.0, short=False)
    assert span.begin(100.5) == 5000.0
    span.end(100.5, 100.51, 5000.0, 5100.0, short=False)
    assert span.begin(100.9) == 5100.0
    assert span.begin(101.1) == WHOLE


def test_a_short_claim_is_followed_by_a_look_at_the_whole_line() -> None:
    """When a claim from the middle leaves slots free, the worker looks from the head soon, though nobody calls it."""
    span = ClaimSpan()
    span.end(100.0, 100.0, span.begin(100.0), 5000.0, short=True)
    looks = [span.look_at]
    span.end(100.5, 100.5, span.begin(100.5), None, short=True)
    looks.append(span.look_at)
    assert span.begin(101.0) == WHOLE
    span.end(101.0, 101.0, WHOLE, None, short=True)
    looks.append(span.look_at)
    assert looks == [None, 101.0, None]


def test_whoever_knows_of_something_earlier_widens_the_look() -> None:
    """Given-back and retried jobs are found by the very next claim."""
    span = ClaimSpan()
    span.end(100.0, 100.0, span.begin(100.0), 5000.0, short=False)
    span.widen()
    assert span.begin(100.1) == WHOLE


@given(st.floats(0.0, 30.0), st.floats(0.0, 1.0))
def test_looking_at_the_whole_line_takes_a_small_share(took_seconds: float, gap_seconds: float) -> None:
    """However long the walk over dead entries takes, it is done for at most a twentieth of the time."""
    span = ClaimSpan()
    span.end(100.0, 100.0 + took_seconds, span.begin(100.0), 5000.0, short=False)
    next_whole = 100.0 + took_seconds
    while span.begin(next_whole) != WHOLE:
        next_whole += 0.25 + gap_seconds
    assert next_whole - 100.0 >= 20 * took_seconds
