"""One job and many idle workers: one worker wakes, and another if the first is dead."""

import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from iidq.database.connections import Connection
from iidq.queue import store
from iidq.queue.store import Claim, Sweep, WorkerSigns
from tests.database.processing.test_work_loop import Executions
from tests.database.working import NEVER_POLLS_SECONDS, Working, working
from tests.eventually import eventually
from tests.faults.conftest import StartWorker
from tests.job_rows import insert, scalar, statuses

WORKERS = 8


class Statements:
    """Counts the claims and sweeps of the workers of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.empty_claims = 0
        self.claims = 0
        self.sweeps: Counter[str] = Counter()
        claim, sweep = store.claim, store.sweep

        async def counted_claim(connection: Connection, **values: Any) -> Claim:
            taken = await claim(connection, **values)
            self.claims += 1
            self.empty_claims += not taken.jobs
            return taken

        async def counted_sweep(connection: Connection, signs: WorkerSigns, **values: Any) -> Sweep:
            seen = await sweep(connection, signs, **values)
            self.sweeps[signs.worker_id] += 1
            return seen

        monkeypatch.setattr(store, "claim", counted_claim)
        monkeypatch.setattr(store, "sweep", counted_sweep)

    def reset(self) -> None:
        """Reset all counts."""
        self.empty_claims = self.claims = 0
        self.sweeps.clear()


@pytest.fixture
def sql(database_url: str) -> Any:
    """A connection as in psql."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


async def test_one_job_wakes_few_of_many_idle_workers(
    database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job among eight idle workers runs once, with at most two empty claims, job after job."""
    statements = Statements(monkeypatch)
    handler = Executions()
    async with AsyncExitStack() as stack:
        workers: list[Working] = [
            await stack.enter_async_context(working(database_url, handler, poll_interval_seconds=1))
            for _ in range(WORKERS)
        ]
        # The workers agree on the first responder after two sweeps of each, once all listen.
        await eventually(lambda: all(worker.loop.listener.listening for worker in workers))
        for _ in range(2):
            statements.reset()
            await eventually(lambda: len(statements.sweeps) == WORKERS)
        for number in range(1, 4):
            statements.reset()
            insert(sql)
            await eventually(lambda: statuses(sql) == {"completed": number})  # noqa: B023
            # The other workers have swept since.
            await eventually(lambda: len(statements.sweeps) == WORKERS)
            assert statements.empty_claims <= 2
            assert statements.claims <= 3
    assert set(handler.begun.values()) == {1}


async def test_a_burst_is_shared(database_url: str, sql: psycopg.Connection[Any]) -> None:
    """A burst of jobs is taken by several workers at once, without a wait for the next poll."""
    handler = Executions(waits=True)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(working(database_url, handler, worker_concurrency=2)) for _ in range(4)
        ]
        await eventually(lambda: all(worker.loop.listener.listening for worker in workers))
        insert(sql, copies=8)
        await eventually(lambda: handler.running == 8)
        assert scalar(sql, 'SELECT count(DISTINCT "workerId") FROM "VerificationJob"') == 4
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": 8})


async def test_a_dead_first_responder_is_not_waited_for(
    database_url: str, ledger: psycopg.Connection[Any], start_worker: StartWorker
) -> None:
    """When the first responder was killed, another worker takes the job without polling."""
    victim = start_worker(database_url)
    await eventually(lambda: scalar(ledger, "SELECT coalesce(bool_or(listening), false) FROM iidq_queue_worker"))
    victim.signal(signal.SIGKILL)
    victim.exit_code()
    # First in the order of responders, and not yet missed.
    ledger.execute("UPDATE iidq_queue_worker SET \"workerId\" = '', \"aliveUntil\" = now() + interval '1 hour'")
    survivor = start_worker(database_url, POLL_INTERVAL_SECONDS=str(NEVER_POLLS_SECONDS))
    await eventually(lambda: survivor.says("listener.up"))
    for number in range(1, 4):
        insert(ledger, manifestUri="test:quick:0")
        await eventually(lambda: statuses(ledger) == {"completed": number})  # noqa: B023
    assert scalar(ledger, "SELECT count(*) FROM execution WHERE pid <> %s", survivor.pid) == 0
    assert scalar(ledger, "SELECT bool_and(listening) FROM iidq_queue_worker WHERE \"workerId\" = ''")


async def test_a_full_first_responder_passes_the_call_on(
    database_url: str, sql: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first responder has no free slot, an idle worker takes the job without polling."""
    handler = Executions(waits=True)
    async with (
        working(database_url, handler, worker_concurrency=1) as first,
        working(database_url, handler, worker_concurrency=1) as second,
    ):
        await eventually(lambda: first.loop.listener.listening and second.loop.listener.listening)
        for number in range(1, 3):
            insert(sql)
            await eventually(lambda: handler.running == number)  # noqa: B023
        handler.go_on.set()
        await eventually(lambda: statuses(sql) == {"completed": 2})
