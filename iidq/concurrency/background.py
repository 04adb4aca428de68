"""Background tasks: a crash is logged at once, and a lasting task is started again."""

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final

from iidq.observability import logs

END_SECONDS: Final = 15.0
"""Time for the end of a process, beyond the time for its requests or jobs."""
_CANCEL_AGAIN_SECONDS = 1.0
_FIRST_RESTART_SECONDS = 0.5
_LONGEST_RESTART_SECONDS = 30.0


def start_background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task for ``work``, which ends by itself; log a crash at once. The caller keeps the task."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_crash)
    return task


def keep_running(begin: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    """Start a task that runs ``begin()`` until it returns or the task is cancelled.

    After a crash, log the error and run ``begin()`` again: after 0.5 s, doubled at each crash up to 30 s. A run of more
    than 30 s resets the pause.
    """
    return asyncio.create_task(_keep(begin, name), name=name)


async def _keep(begin: Callable[[], Awaitable[None]], name: str) -> None:
    clock, task = asyncio.get_running_loop().time, asyncio.current_task()
    pause_seconds = _FIRST_RESTART_SECONDS
    while True:
        began = clock()
        try:
            await begin()
        except (Exception, asyncio.CancelledError) as error:
            # A cancellation without a request for this task came from an awaited task: a crash.
            if task is None or task.cancelling():
                raise
            if clock() - began > _LONGEST_RESTART_SECONDS:
                pause_seconds = _FIRST_RESTART_SECONDS
            logs.background_crashed(name, error, pause_seconds)
        else:
            return
        await asyncio.sleep(pause_seconds * random.uniform(0.8, 1.0))  # noqa: S311
        pause_seconds = min(_LONGEST_RESTART_SECONDS, 2 * pause_seconds)


def end_within(seconds: float) -> None:
    """End the process with exit code 1 after ``seconds``, whichever task or thread hangs."""
    timer = threading.Timer(seconds, _end_now, [seconds])
    timer.daemon = True
    timer.start()


def _end_now(seconds: float) -> None:
    logs.process_hangs(seconds)
    os._exit(1)


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and return when all have ended, with any result.

    Python 3.11's wait_for, in which psycopg's pool waits, can lose a cancellation. Tasks are cancelled again each
    second.
    """
    waiting = ending = set(tasks)
    cancelled = False
    while waiting:
        for task in waiting:
            task.cancel()
        try:
            _, waiting = await asyncio.wait(waiting, timeout=_CANCEL_AGAIN_SECONDS)
        except asyncio.CancelledError:
            # A cancellation of the caller must not leave the tasks behind.
            cancelled = True
            waiting = {task for task in waiting if not task.done()}
    for task in ending:
        if not task.cancelled():
            # Retrieved, or asyncio would log that the exception never was.
            task.exception()
    if cancelled:
        raise asyncio.CancelledError


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logs.background_crashed(task.get_name(), error)
