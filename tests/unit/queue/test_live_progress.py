"""Steps from the hint bus, applied to rows: only progress, only forwards, only of the running attempt."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from iidq.queue.identifiers import new_job_id
from iidq.queue.job import Job, JobStatus, JobType
from iidq.queue.notify.hint_bus import progress_line, read_progress
from iidq.queue.notify.watching import LiveProgress
from iidq.subject import Subject

NOW = datetime(2026, 11, 24, tzinfo=UTC)
JOB = Job(
    id=new_job_id(),
    type=JobType.VERIFY,
    status=JobStatus.PROCESSING,
    progress=10,
    subject=Subject("0x", "ipfs://", "0x"),
    result=None,
    error=None,
    errors=[],
    retry_count=0,
    attempt=2,
    max_attempts=3,
    priority=0,
    run_at=NOW,
    started_at=NOW,
    completed_at=None,
    created_at=NOW,
    updated_at=NOW,
)
KEY = str(JOB.id)


def test_a_step_moves_the_progress_alone() -> None:
    """A step changes the progress alone, and a later read of the row does not reduce the progress."""
    live = LiveProgress()
    assert live.step(KEY, 2, 30) is None
    assert live.lacks(KEY, 2)
    assert live.seen(KEY, JOB) == replace(JOB, progress=30)
    assert live.step(KEY, 2, 50) == replace(JOB, progress=50)
    assert live.seen(KEY, JOB) == replace(JOB, progress=50)
    assert live.seen(KEY, replace(JOB, progress=70)).progress == 70


@given(
    st.sampled_from(JobStatus),
    st.integers(min_value=0, max_value=3),
    st.integers(min_value=0, max_value=100),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99))),
)
def test_states_come_from_the_database_alone(
    status: JobStatus, attempt: int, progress: int, steps: list[tuple[int, int]]
) -> None:
    """Any sequence of steps changes only the progress of the running attempt, and never backwards."""
    row = replace(JOB, status=status, attempt=attempt, progress=progress)
    live = LiveProgress()
    shown = live.seen(KEY, row)
    for number, percent in steps:
        later = live.step(KEY, number, percent) or shown
        assert replace(later, progress=progress) == row
        assert later.progress >= shown.progress
        if status is not JobStatus.PROCESSING:
            assert later == row
        shown = later


@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=0, max_value=99))
def test_a_line_is_read_as_it_was_written(attempt: int, percent: int) -> None:
    """A written line is read back: id, attempt, percent."""
    assert read_progress(progress_line(JOB.id, attempt, percent)) == (KEY, attempt, percent)


@given(st.text() | st.builds("{} {} {}".format, st.just(KEY), st.text(), st.text()))
def test_other_lines_are_nothing(line: str) -> None:
    """Any line is a step of a job or nothing, and raises no error."""
    read = read_progress(line)
    assert read is None or 0 <= read[2] < 100
