"""A hedged request: order, head starts, failures and cancellation."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from iidq.concurrency.hedged import Race, race
from iidq.errors import GatewayFault, ManifestFault

LONG_HEAD_START_SECONDS = 30.0


async def answers(source: str) -> str:
    return source


async def fails(source: str) -> str:
    raise GatewayFault(source)


async def hangs(source: str) -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def run(
    *requests: Callable[[str], Coroutine[Any, Any, str]], head_start_seconds: float = LONG_HEAD_START_SECONDS
) -> Race[str, str]:
    """Race sources, named by position."""
    return await race(
        [str(number) for number in range(len(requests))],
        lambda source: requests[int(source)](source),
        head_start_seconds=head_start_seconds,
        losing=(GatewayFault,),
    )


async def test_a_good_first_source_is_the_only_one() -> None:
    """Within the head start the second source is not started."""
    course = await run(answers, answers)
    assert [attempt.source for attempt in course.attempts] == ["0"]
    assert course.winner is course.attempts[0]


async def test_a_failure_starts_the_next_source_at_once() -> None:
    """A failure ends the head start of a source."""
    course = await run(fails, fails, answers)
    assert [attempt.source for attempt in course.failed] == ["0", "1"]
    assert course.winner is not None
    assert course.winner.task.result() == "2"
    assert course.overtaken == []


async def test_a_slow_source_is_overtaken_and_cancelled() -> None:
    """After the head start the next source may win; only sources with an earlier start are overtaken."""
    third_began = asyncio.Event()

    async def third(source: str) -> str:
        third_began.set()
        return await hangs(source)

    async def second(source: str) -> str:
        await third_began.wait()
        return source

    course = await run(hangs, second, third, head_start_seconds=0.01)
    assert course.winner is course.attempts[1]
    assert course.overtaken == [course.attempts[0]]
    assert [attempt.task.cancelled() for attempt in course.attempts] == [True, False, True]


async def test_no_source_wins_if_all_fail() -> None:
    """If all sources fail, the faults are kept in the order of the failures."""
    second_failed = asyncio.Event()

    async def first(source: str) -> str:
        await second_failed.wait()
        return await fails(source)

    async def second(source: str) -> str:
        second_failed.set()
        return await fails(source)

    course = await run(first, second, head_start_seconds=0.01)
    assert course.winner is None
    assert course.overtaken == []
    assert [attempt.source for attempt in course.attempts] == ["0", "1"]
    assert {str(attempt.fault) for attempt in course.failed} == {"fetch.unavailable: 0", "fetch.unavailable: 1"}


async def test_another_error_ends_the_race() -> None:
    """An error other than a failure of the source is raised at once, and the other sources are cancelled."""
    cancelled = asyncio.Event()

    async def waits(source: str) -> str:
        try:
            return await hangs(source)
        finally:
            cancelled.set()

    async def proves(source: str) -> str:
        raise ManifestFault("there is no such file")

    with pytest.raises(ManifestFault):
        await run(waits, proves, answers, head_start_seconds=0.01)
    assert cancelled.is_set()
