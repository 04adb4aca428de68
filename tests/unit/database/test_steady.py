"""A background loop's step that fails because of the database is tried again after a bounded pause."""

import asyncio

import psycopg
import pytest
from structlog.testing import capture_logs

from iidq.database.faults import Faults
from iidq.database.steady import try_step, wait_at_most
from iidq.errors import DatabaseRefusal, DatabaseUnavailable

LONG_SECONDS = 3600.0


async def fail(error: Exception) -> None:
    raise error


async def succeed() -> None:
    """A step without an error."""


async def test_loss_and_return_are_logged_once() -> None:
    """Two failures in a row and two successes give one event each."""
    faults = Faults()
    with capture_logs() as events:
        for _ in range(2):
            assert 0.3 <= await try_step(faults, "sweep", fail(DatabaseUnavailable("away")), 1.0, 5.0) <= 1.0
        for _ in range(2):
            assert await try_step(faults, "sweep", succeed(), 1.0, 5.0) == 0.0
    assert [event["event"] for event in events] == ["database.lost", "database.back"]


async def test_a_refusal_is_tried_more_rarely() -> None:
    """A refusal, which only an operator can end, has the longer of the two pauses."""
    assert 1.5 <= await try_step(Faults(), "sweep", fail(DatabaseRefusal("no right")), 1.0, 5.0) <= 5.0
    assert 0.3 <= await try_step(Faults(), "sweep", fail(DatabaseRefusal("no right")), 1.0) <= 1.0


async def test_other_errors_are_raised() -> None:
    """Other errors are raised: a bug is not taken for an outage."""
    with pytest.raises(ZeroDivisionError):
        await try_step(Faults(), "sweep", fail(ZeroDivisionError()), 1.0)
    assert await try_step(Faults(), "sweep", fail(psycopg.OperationalError()), 1.0) > 0


async def test_a_pause_ends_early_or_in_time() -> None:
    """A set event ends the pause at once; without an event the pause ends in time."""
    event = asyncio.Event()
    await wait_at_most(event, 0.001)
    event.set()
    await wait_at_most(event, LONG_SECONDS)
    await wait_at_most(event, None)
