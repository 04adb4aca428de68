"""Random interleavings of all events of jobs, against real Postgres and a short model."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from psycopg.rows import dict_row

from iidq.database.connections import Connection, connect
from iidq.queue import control, store
from iidq.queue.job import FINAL, LEGAL, ClaimedJob, JobStatus, NewJob
from iidq.queue.outcome import Outcome
from iidq.settings import load_settings
from tests.database.attempts import claim, fence, finish, renew, report, sweep
from tests.job_rows import new_job, scalar

T = TypeVar("T")

QUEUED, PROCESSING, COMPLETED, FAILED, CANCELLED = JobStatus

# The database's own ledger: a second end of one attempt violates the primary key.
_LEDGER = """
CREATE TABLE attempt_end (id uuid, attempt int, PRIMARY KEY (id, attempt));
CREATE FUNCTION note_attempt_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO attempt_end VALUES (OLD.id, OLD.attempt);
  RETURN NULL;
END $$;
CREATE TRIGGER note_attempt_end AFTER UPDATE ON "VerificationJob" FOR EACH ROW
  WHEN (OLD.status = 'processing' AND NEW.status <> 'processing') EXECUTE FUNCTION note_attempt_end();
"""
_RESET = 'TRUNCATE "VerificationJob", attempt_end, iidq_queue_worker; SELECT resume_queue()'
_ROWS = """
SELECT id, status, attempt, ready, progress, "retryCount", "maxAttempts", "workerId", "leaseUntil", "completedAt",
       error, result, jsonb_array_length(errors) AS errors
FROM "VerificationJob"
"""
_COUNTS = """
SELECT (SELECT jsonb_object_agg(state, n) FROM
         (SELECT iidq_queue_state(status, ready) AS state, count(*) AS n FROM "VerificationJob" GROUP BY 1) AS jobs),
       to_jsonb(health)
FROM queue_health AS health
"""
_FORGET = """
UPDATE "VerificationJob"
SET status = 'queued', ready = true, attempt = attempt - 1, "workerId" = NULL, "leaseUntil" = NULL WHERE id = %s
"""
_IN_LINE = """
SELECT id FROM "VerificationJob" WHERE status = 'queued' AND ready
ORDER BY iidq_claim_order("runAt", type, priority), id LIMIT %s
"""

# Each end of an attempt: outcome, status of the row, and whether a retry is charged.
ENDS: dict[str, tuple[Callable[[ClaimedJob], Outcome], JobStatus, bool]] = {
    "complete": (lambda job: Outcome.completed(job, {"status": "OK", "attempt": job.attempt}), COMPLETED, False),
    "fail": (lambda job: Outcome.failed(job, "manifest.missing: 404"), FAILED, False),
    "retry at once": (lambda job: Outcome.retried(job, "fetch.unavailable: 503", 0.0), QUEUED, True),
    "retry later": (lambda job: Outcome.retried(job, "fetch.unavailable: 503", 3600.0), QUEUED, True),
    "release": (Outcome.released, QUEUED, False),
}

# Choices are drawn as numbers, independent of the present jobs: the result of a race must not change later choices.
SOME = st.integers(0, 1000)
WORKER = st.integers(0, 2)
HOW = st.sampled_from(sorted(ENDS))


@dataclass
class Expected:
    """The model of one job."""

    max_attempts: int
    status: JobStatus = QUEUED
    ready: bool = True
    attempt: int = 0
    retry_count: int = 0
    worker: str | None = None

    def end(self, status: JobStatus, *, charged: bool = False, ready: bool = False) -> None:
        """End the attempt, or the job with it."""
        self.status, self.worker, self.ready = status, None, ready
        self.retry_count += charged

    def expire(self) -> None:
        """Apply the sweep of a lapsed lease."""
        last = self.retry_count + 1 >= self.max_attempts
        # Ready at once the first time; with a growing delay afterwards.
        self.end(FAILED if last else QUEUED, charged=not last, ready=not last and self.retry_count == 0)


@dataclass
class Actor:
    """A worker: its name, its connection, and every claimed attempt, held or lost."""

    name: str
    connection: Connection
    heard_of: list[ClaimedJob] = field(default_factory=list)


class Queue(RuleBasedStateMachine):
    """Three workers, an operator and a clock at one table."""

    runner: asyncio.Runner
    sql: psycopg.Connection[Any]
    connections: list[Connection]

    def __init__(self) -> None:
        super().__init__()
        self.sql.execute(_RESET)
        self.jobs: dict[UUID, Expected] = {}
        self.asked: list[NewJob] = []
        self.paused = False
        self.boots = 0
        self.workers = [Actor("", connection) for connection in self.connections]
        for worker in self.workers:
            self._boot(worker)
        self.before: dict[UUID, dict[str, Any]] = {}

    def _boot(self, worker: Actor) -> None:
        self.boots += 1
        worker.name, worker.heard_of = f"worker-{self.boots}", []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for one step."""
        return self.runner.run(work)

    def holds(self, worker: Actor, job: ClaimedJob) -> bool:
        """Return whether the worker holds this attempt by the model."""
        known = self.jobs[job.id]
        return known.status is PROCESSING and known.attempt == job.attempt and known.worker == worker.name

    def pick(self, number: int, *wanted: JobStatus) -> UUID | None:
        """Return a job in one of the ``wanted`` states, in any state without ``wanted``, or None without such a job."""
        fitting = [job_id for job_id, job in self.jobs.items() if not wanted or job.status in wanted]
        return fitting[number % len(fitting)] if fitting else None

    # Enqueueing

    @rule(count=st.integers(1, 4), max_attempts=st.integers(1, 3), worker=WORKER)
    def enqueue(self, count: int, max_attempts: int, worker: int) -> None:
        jobs = [new_job() for _ in range(count)]
        self.run(store.enqueue(self.workers[worker].connection, jobs, max_attempts=max_attempts))
        self.asked += jobs
        self.jobs |= {job.id: Expected(max_attempts) for job in jobs}

    @rule(number=SOME)
    def enqueue_again(self, number: int) -> None:
        """Enqueue a known job again, as after a commit with a lost answer."""
        if self.asked:
            again = self.asked[number % len(self.asked)]
            self.run(store.enqueue(self.connections[0], [again], max_attempts=9))

    # Working

    @rule(worker=WORKER, slots=st.integers(1, 4), hears=st.sampled_from([True, True, True, False]))
    def claim(self, worker: int, slots: int, hears: bool) -> None:
        """Claim jobs; after a lost answer the worker releases unknown jobs before its next claim."""
        actor = self.workers[worker]
        in_line = [] if self.paused else [row[0] for row in self.sql.execute(_IN_LINE.encode(), [slots])]
        jobs = self.run(claim(actor.connection, slots, actor.name))
        assert {job.id for job in jobs} == set(in_line)
        assert len(jobs) == len(in_line)
        knew = list(actor.heard_of)
        self._claimed(actor, jobs)
        if hears:
            return
        actor.heard_of = knew
        knows = [fence(job) for job in actor.heard_of if self.holds(actor, job)]
        self.run(store.release_unknown(actor.connection, worker_id=actor.name, known=knows))
        for job in jobs:
            self.jobs[job.id].end(QUEUED, ready=True)

    def _claimed(self, actor: Actor, jobs: list[ClaimedJob]) -> None:
        for job in jobs:
            known = self.jobs[job.id]
            assert (known.status, known.ready) == (QUEUED, True)
            known.status, known.ready, known.worker = PROCESSING, False, actor.name
            known.attempt += 1
            assert (job.attempt, job.retry_count) == (known.attempt, known.retry_count)
        actor.heard_of += jobs

    @rule(worker=WORKER, picks=st.lists(st.tuples(SOME, HOW), min_size=1, max_size=4))
    def end_attempts(self, worker: int, picks: list[tuple[int, str]]) -> None:
        """Store a batch of outcomes of one worker, among them attempts lost long ago."""
        actor = self.workers[worker]
        if not actor.heard_of:
            return
        chosen = [(actor.heard_of[number % len(actor.heard_of)], how) for number, how in picks]
        ends = {job.id: (job, how) for job, how in chosen}.values()
        stored = self.run(finish(actor.connection, *(ENDS[how][0](job) for job, how in ends), worker_id=actor.name))
        assert stored == {fence(job) for job, _ in ends if self.holds(actor, job)}
        for job, how in ends:
            if fence(job) in stored:
                self._ended(job, how)

    @rule(worker=WORKER, number=SOME, how=HOW)
    def come_late(self, worker: int, number: int, how: str) -> None:
        """Release a job and claim it again; the outcome of the first attempt comes too late."""
        actor = self.workers[worker]
        held = [job for job in actor.heard_of if self.holds(actor, job)]
        if not held or self.paused:
            return
        first = held[number % len(held)]
        assert self.run(finish(actor.connection, Outcome.released(first), worker_id=actor.name))
        self._ended(first, "release")
        self._claimed(actor, self.run(claim(actor.connection, 1000, actor.name)))
        assert self.jobs[first.id].attempt == first.attempt + 1
        assert self.run(finish(actor.connection, ENDS[how][0](first), worker_id=actor.name)) == set()

    @rule(number=SOME, how=HOW, worker=WORKER)
    def forget_a_claim(self, number: int, how: str, worker: int) -> None:
        """Undo a claim as a crash of Postgres does: another worker claims the attempt, and the first comes too late."""
        held = [(actor, job) for actor in self.workers for job in actor.heard_of if self.holds(actor, job)]
        if not held or self.paused:
            return
        first, job = held[number % len(held)]
        known = self.jobs[job.id]
        self.sql.execute(_FORGET.encode(), [job.id])
        self.sql.execute("DELETE FROM attempt_end WHERE id = %s AND attempt = %s", [job.id, job.attempt])
        known.end(QUEUED, ready=True)
        known.attempt -= 1
        del self.before[job.id]
        second = self.workers[worker]
        self._claimed(second, self.run(claim(second.connection, 1000, second.name)))
        assert known.attempt == job.attempt
        stored = self.run(finish(first.connection, ENDS[how][0](job), worker_id=first.name))
        assert stored == ({fence(job)} if second is first else set())
        if stored:
            self._ended(job, how)

    def _ended(self, job: ClaimedJob, how: str) -> None:
        _, status, charged = ENDS[how]
        self.jobs[job.id].end(status, charged=charged, ready=how in ("retry at once", "release"))

    @rule(worker=WORKER)
    def renew_and_report(self, worker: int) -> None:
        """Renew and report; the reply names the attempts still held."""
        actor = self.workers[worker]
        latest = {job.id: job for job in actor.heard_of}.values()
        held = {fence(job) for job in latest if self.holds(actor, job)}
        assert self.run(renew(actor.connection, *map(fence, latest), worker_id=actor.name)) == held
        progress = [(fence(job), 30) for job in latest]
        assert self.run(report(actor.connection, *progress, worker_id=actor.name)) == held

    @rule(worker=WORKER)
    def drain(self, worker: int) -> None:
        """Release all attempts uncharged; the next process has a new name."""
        actor = self.workers[worker]
        held = {job.id: job for job in actor.heard_of if self.holds(actor, job)}.values()
        if held:
            given_back = self.run(finish(actor.connection, *map(Outcome.released, held), worker_id=actor.name))
            assert given_back == {fence(job) for job in held}
            for job in held:
                self._ended(job, "release")
        self._boot(actor)

    @rule(worker=WORKER)
    def die(self, worker: int) -> None:
        """Replace the worker as after SIGKILL: the next process has no attempts."""
        self._boot(self.workers[worker])

    # Time

    @rule(number=SOME, worker=WORKER)
    def expire(self, number: int, worker: int) -> None:
        """Let a lease lapse; the sweep of any worker takes the job back."""
        job_id = self.pick(number, PROCESSING)
        if job_id is None:
            return
        self._run_out(job_id)
        seen = self._sweep(self.workers[worker])
        self._expired(job_id)
        known = self.jobs[job_id]
        assert seen.expired == [(str(job_id), known.attempt, known.status.value)]

    def _expired(self, job_id: UUID) -> None:
        self.jobs[job_id].expire()
        # A delayed job stays delayed until the rule ``sweep`` makes it due.
        self.sql.execute(
            'UPDATE "VerificationJob" SET "runAt" = now() + interval \'1 hour\' WHERE id = %s AND NOT ready'
            " AND status = 'queued'",
            [job_id],
        )

    def _run_out(self, job_id: UUID) -> None:
        self.sql.execute(
            'UPDATE "VerificationJob" SET "leaseUntil" = now() - interval \'1 second\' WHERE id = %s', [job_id]
        )

    def _sweep(self, actor: Actor) -> store.Sweep:
        return self.run(sweep(actor.connection, worker_id=actor.name))

    @rule(worker=WORKER, falls_due=st.booleans())
    def sweep(self, worker: int, falls_due: bool) -> None:
        """Sweep: due retries become ready; without any, nothing changes."""
        due = [job for job in self.jobs.values() if job.status is QUEUED and not job.ready] if falls_due else []
        if falls_due:
            self.sql.execute('UPDATE "VerificationJob" SET "runAt" = now() WHERE status = \'queued\' AND NOT ready')
        in_line = any(job.status is QUEUED and job.ready for job in self.jobs.values())
        seen = self._sweep(self.workers[worker])
        assert (seen.promoted, seen.expired) == (len(due), [])
        assert seen.waiting == (not self.paused and in_line)
        for job in due:
            job.ready = True

    # Operators

    @rule(number=SOME)
    def cancel(self, number: int) -> None:
        job_id = self.pick(number)
        if job_id is None:
            return
        known = self.jobs[job_id]
        assert self.run(control.cancel(self.connections[0], job_id)) is (known.status not in FINAL)
        if known.status not in FINAL:
            known.end(CANCELLED)

    @rule(number=SOME)
    def retry_by_hand(self, number: int) -> None:
        job_id = self.pick(number)
        if job_id is None:
            return
        known = self.jobs[job_id]
        assert self.run(control.retry(self.connections[0], job_id)) is (known.status in FINAL)
        if known.status in FINAL:
            known.end(QUEUED, ready=True)
            known.retry_count = 0

    @rule(number=SOME)
    def postpone(self, number: int) -> None:
        """Set the time of a waiting job in psql."""
        job_id = self.pick(number, QUEUED)
        if job_id is None:
            return
        self.sql.execute('UPDATE "VerificationJob" SET "runAt" = now() + interval \'1 hour\' WHERE id = %s', [job_id])
        self.jobs[job_id].ready = False

    @rule()
    def pause_or_resume(self) -> None:
        self.paused = not self.paused
        connection = self.connections[0]
        self.run(control.pause(connection, "for a test") if self.paused else control.resume(connection))

    # Races: both steps at the same moment on separate connections, and one wins.

    @rule(number=SOME, how=HOW, rival=st.sampled_from(["cancel", "sweep", "itself"]))
    def race(self, number: int, how: str, rival: str) -> None:
        """Race the holder's outcome with a cancellation, a sweep, or its own repetition."""
        held = [(worker, job) for worker in self.workers for job in worker.heard_of if self.holds(worker, job)]
        if not held:
            return
        worker, job = held[number % len(held)]
        other = next(each for each in self.workers if each is not worker)
        outcome = ENDS[how][0](job)
        if rival == "sweep":
            self._run_out(job.id)
        against: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "cancel": lambda: control.cancel(other.connection, job.id),
            "sweep": lambda: sweep(other.connection, worker_id=other.name),
            "itself": lambda: finish(other.connection, outcome, worker_id=worker.name),
        }

        async def both() -> tuple[set[store.Fence], Any]:
            return await asyncio.gather(finish(worker.connection, outcome, worker_id=worker.name), against[rival]())

        stored, answer = self.run(both())
        match rival:
            case "itself":
                assert sorted([len(stored), len(answer)]) == [0, 1]
                self._ended(job, how)
            case "sweep":
                assert len(stored) + len(answer.expired) == 1
                if stored:
                    self._ended(job, how)
                else:
                    self._expired(job.id)
            case "cancel":
                if stored:
                    self._ended(job, how)
                    # A job back in line could still be cancelled.
                    assert answer is (self.jobs[job.id].status is QUEUED)
                if answer:
                    self.jobs[job.id].end(CANCELLED)
                assert stored or answer

    @rule(slots=st.integers(1, 4))
    def race_for_jobs(self, slots: int) -> None:
        """Two workers claim at the same moment: each job goes to one worker."""
        first, second = self.workers[:2]

        async def both() -> tuple[list[ClaimedJob], list[ClaimedJob]]:
            return await asyncio.gather(
                claim(first.connection, slots, first.name), claim(second.connection, slots, second.name)
            )

        for worker, jobs in zip((first, second), self.run(both()), strict=True):
            self._claimed(worker, jobs)

    # Invariants

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        with self.sql.cursor(row_factory=dict_row) as cursor:
            rows = {row["id"]: row for row in cursor.execute(_ROWS.encode())}
        assert rows.keys() == self.jobs.keys(), "an acknowledged job is gone, or one came from nowhere"
        for job_id, row in rows.items():
            known, status = self.jobs[job_id], JobStatus(row["status"])
            assert (status, row["ready"], row["attempt"], row["retryCount"], row["workerId"], row["maxAttempts"]) == (
                known.status, known.ready, known.attempt, known.retry_count, known.worker, known.max_attempts,
            )  # fmt: skip
            assert (row["completedAt"] is not None) == (status in FINAL)
            assert (row["leaseUntil"] is not None) == (row["workerId"] is not None) == (status is PROCESSING)
            assert (row["result"] is not None) == (status is COMPLETED)
            assert (row["error"] is not None) == (status is FAILED)
            assert row["errors"] >= row["retryCount"]
            if was := self.before.get(job_id):
                self._legal(was, row)
        self.before = rows

    def _legal(self, was: dict[str, Any], row: dict[str, Any]) -> None:
        """Assert one step of the drawing in job.py, or two in a race; the attempt grows by claims alone."""
        before, after = JobStatus(was["status"]), JobStatus(row["status"])
        assert row["attempt"] - was["attempt"] in (0, 1)
        reached = {after for (start, _), after in LEGAL.items() if start is before}
        reached_in_two = {after for (start, _), after in LEGAL.items() if start in reached}
        assert after in {before} | reached | reached_in_two

    @invariant()
    def counts_are_exact(self) -> None:
        row = self.sql.execute(_COUNTS.encode()).fetchone()
        assert row is not None
        real, told = row[0] or {}, row[1]
        for state in ("waiting", "delayed", "active", "completed", "failed", "cancelled"):
            assert told[state] == real.get(state, 0), state
        assert (told["state"] == "paused") == self.paused

    def teardown(self) -> None:
        """End all jobs by working workers: no job hangs."""
        if self.paused:
            self.pause_or_resume()
        for job_id in [job_id for job_id, job in self.jobs.items() if job.status is PROCESSING]:
            self._run_out(job_id)
        self._sweep(self.workers[0])
        self.sql.execute('UPDATE "VerificationJob" SET "runAt" = now() WHERE status = \'queued\' AND NOT ready')
        self._sweep(self.workers[0])
        for job in self.run(claim(self.connections[0], 1000, "the last")):
            self.run(finish(self.connections[0], Outcome.completed(job, {}), worker_id="the last"))
        assert scalar(self.sql, 'SELECT count(*) FROM "VerificationJob" WHERE "completedAt" IS NULL') == 0


def test_every_interleaving_keeps_the_invariants(database_url: str) -> None:
    """In any interleaving jobs take legal steps only, end at most once per attempt, and are counted exactly."""
    reached = load_settings(database_url=database_url)
    with asyncio.Runner() as runner, psycopg.connect(database_url, autocommit=True) as sql:
        sql.execute(_LEDGER.encode())

        async def connect_three() -> list[Connection]:
            return [await connect(reached) for _ in range(3)]

        opened = runner.run(connect_three())

        class OnThisDatabase(Queue):
            pass

        OnThisDatabase.runner, OnThisDatabase.sql, OnThisDatabase.connections = runner, sql, opened
        run_state_machine_as_test(
            OnThisDatabase,
            settings=settings(
                max_examples=40,
                stateful_step_count=50,
                phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
        for connection in opened:
            runner.run(connection.close())
