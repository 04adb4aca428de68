"""Tasks that nobody awaits until the end: a crash is logged when it happens, and what can begin again does."""

import asyncio
import os
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final

from iidq.observability import logs

END_SECONDS: Final = 15.0
"""What a process has for its end beyond the time that its requests or jobs get."""
_ASKED_AGAIN_SECONDS = 1.0
_FIRST_RESTART_SECONDS = 0.5
_LONGEST_RESTART_SECONDS = 30.0


def start_background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run ``work``, which ends by itself, beside the caller, who keeps the task. The log names a crash at once."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell)
    return task


def keep_running(begin: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    """Run ``begin()`` beside the caller until it returns or the task is cancelled.

    After a crash, which the log names at once, it is begun again: after half a second, and each time twice as late up
    to half a minute. A run that lasted longer than that begins the series again.
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
            # A cancellation that nobody asked this task for came out of something that it awaited.
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
    """End the process with exit code 1 after so long, whatever hangs: a task, a thread, the interpreter's own end."""
    timer = threading.Timer(seconds, _end_now, [seconds])
    timer.daemon = True
    timer.start()


def _end_now(seconds: float) -> None:
    logs.process_hangs(seconds)
    os._exit(1)


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
