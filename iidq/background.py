"""Tasks that nobody awaits until the end: an error that nobody foresaw must at least be told."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from iidq import logs


def start_background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run ``work`` beside the caller, who keeps the task and cancels it; should it crash, the log says so at once."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_tell)
    return task


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logs.background_crashed(task.get_name(), error)
