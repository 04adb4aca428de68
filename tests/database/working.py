"""A work loop inside the test's process."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from iidq.queue.processing.execution import Handler
from iidq.queue.processing.loop import WorkLoop, open_work_loop
from iidq.settings import load_settings

_numbers = itertools.count()
# Long enough that no result of a test comes from a poll.
NEVER_POLLS_SECONDS = 300.0


@asynccontextmanager
async def working(database_url: str, handler: Handler, **overrides: Any) -> AsyncIterator["Working"]:
    """Run a loop until the block ends, then drain; errors of the loop are raised."""
    usual: dict[str, Any] = {"poll_interval_seconds": NEVER_POLLS_SECONDS, "retry_backoff_ms": 20}
    settings = load_settings(database_url=database_url, **(usual | overrides))
    async with open_work_loop(settings, handler, f"test:{next(_numbers)}") as loop:
        work = Working(loop, asyncio.create_task(loop.run()))
        try:
            yield work
        finally:
            await work.stop()


class Working:
    """A running loop."""

    def __init__(self, loop: WorkLoop, run: asyncio.Task[int]) -> None:
        self.loop = loop
        self._run = run

    async def stop(self, *, hurry: bool = False) -> int:
        """Stop the loop, and return the number of released jobs."""
        if not self._run.done():
            self.loop.stop()
            if hurry:
                self.loop.stop()
        async with asyncio.timeout(30):
            return await self._run
