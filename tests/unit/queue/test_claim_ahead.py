"""How many jobs a worker claims before it has a slot for them."""

from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.processing.claim_ahead import ClaimAhead


def busy(slots: int, *, ends: int, seconds: float = 0.05, full_claims: int = 2) -> ClaimAhead:
    """A worker at time 10 s: so many jobs left their slots 50 ms ago, and claims 200 ms apart left none free."""
    ahead = ClaimAhead(slots)
    for number in reversed(range(full_claims)):
        ahead.claimed(9.95 - 0.2 * number, short=False)
    for _ in range(ends):
        ahead.ended(9.95, seconds)
    return ahead


def test_as_many_stand_by_as_slots_become_free() -> None:
    """In a tenth of a second; at most one for every four slots, and one where there are fewer."""
    assert [busy(slots, ends=6).jobs(10.0) for slots in (1, 3, 4, 11, 20, 64)] == [1, 1, 1, 2, 5, 6]


def test_nobody_waits_behind_long_jobs() -> None:
    """Where no short job has ended for a tenth of a second, nothing stands by, however many slots were left."""
    ahead = busy(64, ends=6)
    assert [ahead.jobs(now) for now in (10.04, 10.06)] == [6, 0]
    assert busy(64, ends=6, seconds=0.11).jobs(10.0) == 0


def test_who_waited_in_vain_is_a_lesson() -> None:
    """After a job stood by for too long, only what ends from then on counts."""
    ahead = busy(64, ends=6)
    ahead.waited_in_vain()
    assert ahead.jobs(10.0) == 0
    ahead.ended(10.0, 0.01)
    assert ahead.jobs(10.0) == 1


def test_a_worker_of_which_nothing_has_ended_claims_what_it_can_run() -> None:
    """Its first jobs may be long ones."""
    assert busy(64, ends=0).jobs(10.0) == 0


def test_one_full_claim_is_no_backlog() -> None:
    """There were just as many jobs as slots: the next one belongs to a worker that is idle, however late it comes."""
    ahead = busy(64, ends=6, full_claims=1)
    assert ahead.jobs(10.0) == 0


def test_the_end_of_the_backlog_ends_it() -> None:
    """A claim that got less than it asked for: the next jobs belong to whoever has a slot."""
    ahead = busy(64, ends=6)
    ahead.claimed(10.0, short=True)
    assert ahead.jobs(10.0) == 0
    ahead.claimed(10.01, short=False)
    assert ahead.jobs(10.02) == 0


EVENTS = st.lists(
    st.tuples(st.floats(0, 0.2), st.sampled_from(["full", "short", "ended", "ended late", "asked"])), max_size=60
)


@given(st.integers(1, 1000), EVENTS)
def test_who_stands_by_has_been_preceded(slots: int, events: list[tuple[float, str]]) -> None:
    """At any time no more than short jobs ended in the last tenth of a second, and none after a short claim."""
    ahead = ClaimAhead(slots)
    now, ends, short = 0.0, [], True
    for pause, event in events:
        now += pause
        match event:
            case "ended":
                ahead.ended(now, 0.1)
                ends.append(now)
            case "ended late":
                ahead.ended(now, 0.2)
            case "asked":
                recent = len([end for end in ends if end >= now - 0.1])
                assert ahead.jobs(now) in ((0,) if short else (0, min(recent, max(1, slots // 4))))
            case _:
                short = event == "short"
                ahead.claimed(now, short=short)
