"""How many jobs a worker claims before it has a slot for them."""

from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.claim_ahead import ClaimAhead


def busy(slots: int, job_seconds: float) -> ClaimAhead:
    """A worker at time 10 s that has had more jobs than slots since time 0."""
    ahead = ClaimAhead(slots)
    ahead.claimed(0.0, short=False)
    ahead.ended(job_seconds)
    return ahead


def test_short_jobs_of_a_backlog_stand_by() -> None:
    """One job for every four slots, and one where there are fewer."""
    assert [busy(slots, 0.05).jobs(10.0) for slots in (1, 3, 4, 11, 64)] == [1, 1, 1, 2, 16]


def test_a_worker_that_knows_no_durations_claims_what_it_can_run() -> None:
    """Nobody waits behind jobs of which nothing is known."""
    ahead = ClaimAhead(8)
    ahead.claimed(0.0, short=False)
    assert ahead.jobs(10.0) == 0


def test_nobody_waits_behind_long_jobs() -> None:
    """Where jobs take seconds, a claim between two of them does not matter; a job behind a full worker would."""
    ahead = busy(8, 0.05)
    for _ in range(8):
        ahead.ended(2.0)
    assert ahead.jobs(10.0) == 0


def test_idle_workers_come_first() -> None:
    """A backlog of a moment is left to workers that are idle, and were called."""
    assert [busy(8, 0.05).jobs(now) for now in (0.0, 0.09, 0.1)] == [0, 0, 2]


def test_the_end_of_the_backlog_ends_it() -> None:
    """A claim that got less than it asked for: the next jobs belong to whoever has a slot."""
    ahead = busy(8, 0.05)
    ahead.claimed(10.0, short=True)
    assert ahead.jobs(20.0) == 0
    ahead.claimed(20.0, short=False)
    assert [ahead.jobs(now) for now in (20.0, 20.2)] == [0, 2]


def test_who_waited_in_vain_is_a_lesson() -> None:
    """After a job stood by for too long, the durations are learnt anew."""
    ahead = busy(8, 0.05)
    ahead.gave_up()
    assert ahead.jobs(10.0) == 0
    ahead.ended(30.0)
    assert ahead.jobs(10.0) == 0


@given(st.integers(1, 1000), st.lists(st.one_of(st.booleans(), st.floats(0, 100)), max_size=30), st.floats(-1e6, 1e6))
def test_never_more_than_a_quarter_of_the_slots(slots: int, events: list[bool | float], now: float) -> None:
    """Whatever happened: none, or one for every four slots; none right after a claim that was short."""
    ahead = ClaimAhead(slots)
    for event in events:
        if isinstance(event, bool):
            ahead.claimed(now, short=event)
        else:
            ahead.ended(event)
    assert ahead.jobs(now + 1) in (0, max(1, slots // 4))
    ahead.claimed(now, short=True)
    assert ahead.jobs(now + 1) == 0
