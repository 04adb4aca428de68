"""Who stands by, and in which order they leave."""

import asyncio

import pytest

from iidq.queue.identifiers import new_job_id
from iidq.queue.job import ClaimedJob, JobType
from iidq.queue.processing import standing_by
from iidq.queue.processing.attempt import Attempt
from iidq.queue.processing.standing_by import StandingBy
from iidq.subject import Subject
from tests.eventually import eventually

SUBJECT = Subject("0x" + "ab" * 32, "ipfs://x", "0x" + "cd" * 20)
JOB = ClaimedJob(new_job_id(), 1, JobType.VERIFY, SUBJECT, 0, 3, None, False)


def some(count: int) -> list[Attempt]:
    return [Attempt(JOB._replace(id=new_job_id())) for _ in range(count)]


async def test_first_come_first() -> None:
    """The one that came first gets the next slot; whoever was taken out meanwhile does not."""
    line = StandingBy(lambda _: None)
    first, second, third = some(3)
    for attempt in (first, second, third):
        line.add(attempt)
    line.take(second)
    assert line.all() == [first, third]
    assert [line.take_next() for _ in range(3)] == [first, third, None]
    assert len(line) == 0


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets no slot in time is told of, and nobody who got one."""
    monkeypatch.setattr(standing_by, "_PATIENCE_SECONDS", 0.01)
    told: list[Attempt] = []
    line = StandingBy(told.append)
    quick, slow = some(2)
    line.add(quick)
    line.add(slow)
    assert line.take_next() is quick
    await eventually(lambda: told)
    await asyncio.sleep(0)
    assert told == [slow]
