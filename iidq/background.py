"""Tasks that nobody awaits until the end: an error that nobody foresaw must at least be told."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from iidq import logs

_ASKED_AGAIN_SECONDS = 1.0


def start_background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run ``work`` beside the caller, who keeps the task and cancels it; should it crash, the log says so at once."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell)
    return task


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them and return when they have ended, however they did.

    Python 3.11's wait_for, in which psycopg's pool waits, loses a cancellation that comes while what it waits for ends:
    the task would go on, and whoever awaits it would for ever. So who is still there after a second is asked again.
    """
    waiting = ending = set(tasks)
    cancelled = False
    while waiting:
        for task in waiting:
            task.cancel()
        try:
            _, waiting = await asyncio.wait(waiting, timeout=_ASKED_AGAIN_SECONDS)
        except asyncio.CancelledError:
            # Who ends the caller asks again, too, and must not make it leave its own tasks behind.
            cancelled = True
            waiting = {task for task in waiting if not task.done()}
    for task in ending:
        if not task.cancelled():
            # Looked at, or asyncio would complain that nobody did.
            task.exception()
    if cancelled:
        raise asyncio.CancelledError


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logs.background_crashed(task.get_name(), error)
