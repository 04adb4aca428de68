"""The parts of a steady background loop: a step, which may fail because of the database, and a pause."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable

import psycopg

from iidq.database.faults import Faults
from iidq.database.sqlstates import is_passing
from iidq.errors import IidqError


async def try_step(
    faults: Faults, part: str, step: Awaitable[None], retry_seconds: float, refused_seconds: float = 0.0
) -> float:
    """Await ``step``; return 0, or after an error of the database the seconds until the next try.

    The pause is a random 0.3 to 1.0 of ``retry_seconds``. An error that only an operator can end makes the longer of
    ``retry_seconds`` and ``refused_seconds`` the base. ``faults`` logs loss and return under the name ``part``. Any
    other error is raised.
    """
    try:
        await step
    except (IidqError, psycopg.Error) as error:
        longest_seconds = retry_seconds if is_passing(error) else max(retry_seconds, refused_seconds)
        pause_seconds = longest_seconds * random.uniform(0.3, 1.0)  # noqa: S311
        faults.failed(part, error, pause_seconds)
        return pause_seconds
    faults.succeeded(part)
    return 0.0


async def wait_at_most(event: asyncio.Event, seconds: float | None) -> None:
    """Return when ``event`` is set or after ``seconds``, whichever is first. None: without limit."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
