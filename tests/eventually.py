"""Waiting for a condition instead of sleeping for luck."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(condition: Callable[[], T], timeout_seconds: float = 15.0) -> T:
    """Return the first true value of ``condition``; fail the test, with the last value, when none comes in time."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds:g} s; at last: {value!r}")
        await asyncio.sleep(0.01)
    return value
