"""The start of claims' scans, wake-ups of other workers, and the next action of a worker's loop."""

from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.processing.claiming import FROM_HEAD, ScanCursor, Schedule, WakeOthers


def test_the_first_claim_is_a_full_scan() -> None:
    """The first claim of a worker is a full scan."""
    assert ScanCursor().start(100.0) == FROM_HEAD


def test_claims_go_on_where_the_last_claim_ended() -> None:
    """Until the next full scan is due, a claim starts at the end of the last claim."""
    cursor = ScanCursor()
    cursor.finish(100.0, 100.01, cursor.start(100.0), 5000.0, short=False)
    assert cursor.start(100.5) == 5000.0
    cursor.finish(100.5, 100.51, 5000.0, 5100.0, short=False)
    assert cursor.start(100.9) == 5100.0
    assert cursor.start(101.1) == FROM_HEAD


def test_a_short_claim_is_followed_by_a_full_scan() -> None:
    """When a claim from the cursor leaves slots free, a full scan follows soon, without an announcement."""
    cursor = ScanCursor()
    cursor.finish(100.0, 100.0, cursor.start(100.0), 5000.0, short=True)
    scans = [cursor.full_scan_at]
    cursor.finish(100.5, 100.5, cursor.start(100.5), None, short=True)
    scans.append(cursor.full_scan_at)
    assert cursor.start(101.0) == FROM_HEAD
    cursor.finish(101.0, 101.0, FROM_HEAD, None, short=True)
    scans.append(cursor.full_scan_at)
    assert scans == [None, 101.0, None]


def test_a_reset_makes_the_next_claim_a_full_scan() -> None:
    """Released and retried jobs are found by the very next claim."""
    cursor = ScanCursor()
    cursor.finish(100.0, 100.0, cursor.start(100.0), 5000.0, short=False)
    cursor.reset()
    assert cursor.start(100.1) == FROM_HEAD


@given(st.floats(0.0, 30.0), st.floats(0.0, 1.0))
def test_full_scans_take_a_small_share_of_the_time(took_seconds: float, gap_seconds: float) -> None:
    """Full scans take at most a twentieth of the time, however long a scan takes."""
    cursor = ScanCursor()
    cursor.finish(100.0, 100.0 + took_seconds, cursor.start(100.0), 5000.0, short=False)
    next_scan = 100.0 + took_seconds
    while cursor.start(next_scan) != FROM_HEAD:
        next_scan += 0.25 + gap_seconds
    assert next_scan - 100.0 >= 20 * took_seconds


def test_the_others_are_not_woken_without_need() -> None:
    """A worker with room for all jobs wakes no other worker."""
    others = WakeOthers()
    others.claimed(short=True, room=True)
    others.claimed(short=False, room=True)
    assert others.due_at() is None


def test_the_others_are_woken_twenty_times_a_second_at_most() -> None:
    """The others are woken at most twenty times a second, however many jobs are announced to a full worker."""
    others = WakeOthers()
    others.request()
    assert others.due_at() == 0.0
    others.sent(10.0)
    assert others.due_at() is None
    others.request()
    assert others.due_at() == 10.05


def test_a_backlog_wakes_the_others_once() -> None:
    """The first full claim of a backlog wakes the others once; a new backlog wakes the others again."""
    others = WakeOthers()
    woken = []
    for short in (False, False, True, False):
        others.claimed(short=short, room=False)
        woken.append(others.due_at() is not None)
        others.sent(0.0)
    assert woken == [True, False, False, True]


def test_only_the_designated_worker_wakes_the_others_for_a_backlog() -> None:
    """Only the designated worker wakes the others for a backlog."""
    others = WakeOthers()
    others.designated = False
    others.claimed(short=False, room=False)
    assert others.due_at() is None
    others.designated = True
    others.claimed(short=False, room=False)
    assert others.due_at() is not None


def test_a_loop_whose_claims_fail_rests() -> None:
    """Between two failing claims the loop sleeps, although a full scan is due."""
    schedule = Schedule()
    schedule.work_may_wait = False
    schedule.cursor.full_scan_at = 100.0
    schedule.next_sweep = 200.0
    schedule.claim_failed(160.0)
    assert schedule.next_event(room=True) == 160.0
    assert not schedule.claim_due(159.0)
    assert schedule.claim_due(160.0)


def test_a_full_worker_sleeps_until_the_next_sweep() -> None:
    """Without a free slot neither waiting jobs nor a full scan wake the loop."""
    schedule = Schedule()
    schedule.cursor.full_scan_at = 100.0
    schedule.next_sweep = 200.0
    assert schedule.next_event(room=False) == 200.0
    assert schedule.next_event(room=True) == 0.0
