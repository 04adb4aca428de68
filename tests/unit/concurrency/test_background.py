"""Crashes of background tasks are logged, and endings complete."""

import asyncio

import pytest
from structlog.testing import capture_logs

from iidq.concurrency import background
from iidq.concurrency.background import end_tasks, keep_running, start_background


async def test_a_crash_is_told() -> None:
    """An unforeseen error is logged with the task's name at the end of the task."""

    async def crash() -> None:
        raise LookupError("unforeseen")

    with capture_logs() as told:
        task = start_background(crash(), "rate sharing")
        await asyncio.wait([task])
        await asyncio.sleep(0)
    [event] = told
    assert (event["event"], event["what"]) == ("background.crashed", "rate sharing")
    assert isinstance(event["exc_info"], LookupError)


async def test_a_cancelled_one_is_no_crash() -> None:
    """A background task ended in order logs nothing."""
    with capture_logs() as told:
        task = start_background(asyncio.sleep(60), "watching")
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert told == []


async def test_who_is_ended_while_ending_others_leaves_none_behind() -> None:
    """``end_tasks``, cancelled itself, continues until all of its tasks have ended, and then ends."""
    release = asyncio.Event()

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await release.wait()

    inner = asyncio.create_task(linger())
    await asyncio.sleep(0)
    outer = asyncio.create_task(end_tasks([inner]))
    await asyncio.sleep(0)
    outer.cancel()
    release.set()
    async with asyncio.timeout(10):
        await asyncio.wait([outer])
    assert inner.done()
    assert outer.cancelled()


async def test_a_lost_cancellation_is_repeated() -> None:
    """A task that misses the first cancellation is ended, also with a task that fails while ending; no wait lasts for
    ever.
    """
    cancellations = 0

    async def miss_one() -> None:
        nonlocal cancellations
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancellations += 1
                if cancellations == 2:
                    raise

    async def fail() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise LookupError("while ending")

    tasks = [asyncio.create_task(miss_one()), asyncio.create_task(fail())]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end_tasks(tasks)
    assert cancellations == 2
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].exception(), LookupError)


@pytest.mark.parametrize("crash", [LookupError("unforeseen"), asyncio.CancelledError()], ids=["error", "stray cancel"])
async def test_what_crashes_begins_again(crash: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each crash is logged at once, with the time until the restart, which doubles.

    A stray cancellation is a crash, too.
    """
    monkeypatch.setattr(background, "_FIRST_RESTART_SECONDS", 0.001)
    runs = 0

    async def crash_thrice() -> None:
        nonlocal runs
        runs += 1
        if runs <= 3:
            raise crash

    with capture_logs() as told:
        async with asyncio.timeout(10):
            await keep_running(crash_thrice, "retention")
    assert runs == 4
    assert [event["what"] for event in told] == ["retention"] * 3
    assert [event["restart_in_seconds"] for event in told] == [0.001, 0.002, 0.004]


async def test_a_task_that_loses_its_cancellation_does_not_begin_again() -> None:
    """A task that crashes while being ended does not start again."""
    begun = 0

    async def crash_in_ending() -> None:
        nonlocal begun
        begun += 1
        try:
            await asyncio.sleep(60)
        finally:
            raise LookupError("while ending")

    task = keep_running(crash_in_ending, "listener")
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end_tasks([task])
    assert begun == 1
