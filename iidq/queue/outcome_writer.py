"""Stores the outcomes of all attempts of a worker: many in one statement, through flickers of the database."""

import asyncio
import random
from collections.abc import Sequence

import psycopg

from iidq import logs
from iidq.database import Database, is_passing
from iidq.errors import IidqError
from iidq.queue import store
from iidq.queue.batching import GroupCommit
from iidq.queue.job import JobStatus
from iidq.queue.outcome import Outcome

_FIRST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 2.0
# What Postgres finds wrong with one outcome, not with the database's state.
_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
_NOT_STORABLE = "internal: the result cannot be stored; see the worker's log"


class OutcomeWriter:
    """Writes until the database has answered; whoever waits for a store is told whether the lease still held."""

    def __init__(self, database: Database, worker_id: str) -> None:
        self._database = database
        self._worker_id = worker_id
        self._commits: GroupCommit[Outcome, bool] = GroupCommit(
            self._write,
            blames_one_item=(psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded),
        )

    async def store(self, outcome: Outcome) -> bool:
        """Return whether the outcome was stored; False: the lease was lost, and nothing was written."""
        try:
            return await self._commits.submit(outcome)
        except psycopg.Error as error:
            # Postgres refuses this very result; left alone, the job would come back when its lease runs out.
            logs.attempt_crashed(outcome.id, outcome.attempt, error)
            refused = Outcome(outcome.id, outcome.attempt, JobStatus.FAILED, failure=_NOT_STORABLE)
            return await self._commits.submit(refused)

    def abandon(self) -> None:
        """Write no more: the process ends, and what is not stored comes back when its lease runs out."""
        self._commits.abandon()

    async def _write(self, outcomes: Sequence[Outcome]) -> Sequence[bool]:
        delay_seconds, broken = _FIRST_RETRY_SECONDS, False
        while True:
            try:
                stored = await self._database.run(
                    lambda connection: store.store_outcomes(connection, outcomes, worker_id=self._worker_id)
                )
            except (IidqError, psycopg.Error) as error:
                if not is_passing(error):
                    raise
                if not broken:
                    logs.database_lost("outcomes", error, delay_seconds)
                broken = True
                await asyncio.sleep(delay_seconds * random.uniform(0.5, 1.0))  # noqa: S311
                delay_seconds = min(_LONGEST_RETRY_SECONDS, delay_seconds * 2)
            else:
                if broken:
                    logs.database_back("outcomes")
                return [(outcome.id, outcome.attempt) in stored for outcome in outcomes]
