"""What runs beside requests and jobs does not die in silence."""

import asyncio

from structlog.testing import capture_logs

from iidq.background import start_background


async def test_a_crash_is_told() -> None:
    """An error that nobody foresaw stands in the log, with the task's name, the moment it ends the task."""

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
    """Ending a background task in order says nothing."""
    with capture_logs() as told:
        task = start_background(asyncio.sleep(60), "watching")
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert told == []
