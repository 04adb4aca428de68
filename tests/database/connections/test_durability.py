"""Durable commits: acknowledgements wait for the disk, other writes do not."""

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from iidq.queue import control, store
from iidq.queue.job import ClaimedJob, IdempotencyKey
from iidq.queue.outcome import Outcome
from tests.database.attempts import claim, claim_one, fence, finish, renew, report, sweep
from tests.job_rows import insert, new_job

Write = Callable[[Any, ClaimedJob], Awaitable[Any]]


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version."""
    return "embedded"


async def commits_durably(connection: Any, job: ClaimedJob, write: Write) -> bool:
    """Return whether the commit of ``write`` waits for the disk."""
    async with connection.transaction():
        await write(connection, job)
        [(setting,)] = await (await connection.execute("SHOW synchronous_commit")).fetchall()
    return bool(setting == "on")


ACKNOWLEDGEMENTS: dict[str, Write] = {
    "enqueue": lambda c, _: store.enqueue(c, [new_job()], max_attempts=3),
    "enqueue under a key": lambda c, _: store.enqueue_under_keys(
        c, [new_job(key=IdempotencyKey("s", "k", b"f"))], max_attempts=3, keep_seconds=60
    ),
    "completed": lambda c, job: finish(c, Outcome.completed(job, {"status": "OK"})),
    "failed": lambda c, job: finish(c, Outcome.failed(job, "a: b")),
    "cancel": lambda c, job: control.cancel(c, job.id),
    "pause": lambda c, _: control.pause(c, None),
}
HINTS: dict[str, Write] = {
    "claim": lambda c, _: claim(c),
    "renewal": lambda c, job: renew(c, fence(job)),
    "progress": lambda c, job: report(c, (fence(job), 30)),
    "sweep": lambda c, _: sweep(c),
}


@pytest.mark.parametrize("name", ACKNOWLEDGEMENTS)
async def test_what_is_acknowledged_is_on_the_disk(connection: Any, sql: psycopg.Connection[Any], name: str) -> None:
    """An acknowledged write waits for the disk: enqueued jobs, outcomes, cancellations and pauses."""
    insert(sql, copies=2)
    assert await commits_durably(connection, await claim_one(connection), ACKNOWLEDGEMENTS[name])


@pytest.mark.parametrize("name", HINTS)
async def test_what_may_be_repeated_does_not_wait(connection: Any, sql: psycopg.Connection[Any], name: str) -> None:
    """Claims, renewals, progress and sweeps wait for no flush: a crash loses no job by their loss."""
    insert(sql, copies=2)
    assert not await commits_durably(connection, await claim_one(connection), HINTS[name])
    # The setting ends with the transaction.
    insert(sql)
    assert await commits_durably(connection, await claim_one(connection), ACKNOWLEDGEMENTS["enqueue"])
