"""Structured logging: the form of lines, and a function per event of iidq."""

import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO

import structlog

from iidq.observability import access_log
from iidq.observability.redaction import redact_url

_log: structlog.stdlib.BoundLogger = structlog.get_logger("iidq")
# Checked before the two debug events per attempt: a call of structlog cost a tenth of a busy worker.
_debugging = False
# Stream and form of access lines; None: the level excludes them.
_access: tuple[TextIO, access_log.AccessLine] | None = None


def configure_logging(
    level: str = "info", form: Literal["text", "json"] | None = None, stream: TextIO | None = None
) -> None:
    """Log to ``stream`` (default: standard error), as ``form`` or as text on a terminal and JSON lines elsewhere."""
    global _debugging, _access
    _debugging = level == "debug"
    stream = stream or sys.stderr
    form = form or ("text" if stream.isatty() else "json")
    access_line = access_log.text_line if form == "text" else access_log.json_line
    _access = (stream, access_line) if level in ("debug", "info") else None
    renderer: Any = structlog.dev.ConsoleRenderer() if form == "text" else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: redact_url(value) if isinstance(value, str) else value for name, value in event.items()}


# Worker


def worker_started(worker_id: str, concurrency: int) -> None:
    """Log the start of the worker."""
    _log.info("worker.started", worker_id=worker_id, concurrency=concurrency)


def worker_draining(running: int, deadline_seconds: float) -> None:
    """Log a requested stop: no more claims, and running jobs may end."""
    _log.info("worker.draining", running=running, deadline_seconds=deadline_seconds)


def worker_stopped(worker_id: str, released: int) -> None:
    """Log the end of the worker; ``released`` jobs went back uncharged."""
    _log.info("worker.stopped", worker_id=worker_id, released=released)


def attempt_started(job_id: Any, attempt: int, kind: str) -> None:
    """Log, for debugging, the start of a claimed job."""
    if _debugging:
        _log.debug("attempt.started", job_id=str(job_id), attempt=attempt, type=kind)


def attempt_ended(job_id: Any, attempt: int, status: str) -> None:
    """Log, for debugging, an outcome on its way to the store."""
    if _debugging:
        _log.debug("attempt.ended", job_id=str(job_id), attempt=attempt, status=status)


def attempt_failed(job_id: Any, attempt: int, error: str, retry_in_seconds: float | None) -> None:
    """Log a failed attempt; without ``retry_in_seconds`` the job has failed."""
    _log.warning("attempt.failed", job_id=str(job_id), attempt=attempt, error=error, retry_in_seconds=retry_in_seconds)


def attempt_crashed(job_id: Any, attempt: int, error: BaseException) -> None:
    """Log a bug in an attempt, with its stack."""
    _log.error("attempt.crashed", job_id=str(job_id), attempt=attempt, exc_info=error)


def background_crashed(what: str, error: BaseException, restart_in_seconds: float | None = None) -> None:
    """Log a bug in a background task, with its stack. Without ``restart_in_seconds`` the task is not restarted."""
    _log.error("background.crashed", what=what, restart_in_seconds=restart_in_seconds, exc_info=error)


def process_hangs(seconds: float) -> None:
    """Log the kill of a process without an end within ``seconds``."""
    _log.error("process.hangs", seconds=seconds)


def lease_lost(job_id: Any, attempt: int) -> None:
    """Log the loss of a job to another worker; the attempt's outcome is dropped."""
    _log.warning("lease.lost", job_id=str(job_id), attempt=attempt)


def lease_expired(job_id: Any, attempt: int, status: str) -> None:
    """Log a silent worker; the job is now in ``status``."""
    _log.warning("lease.expired", job_id=str(job_id), attempt=attempt, status=status)


def attempt_cancelled(job_id: Any, attempt: int) -> None:
    """Log the cancellation of a running job; the attempt was interrupted."""
    _log.info("attempt.cancelled", job_id=str(job_id), attempt=attempt)


def purged(count: int) -> None:
    """Log the removal of old jobs."""
    _log.info("upkeep.purged", count=count)


# Webhooks


def webhook_delivered(job_id: Any, event_id: Any, attempt: int, host: str) -> None:
    """Log an event accepted by the receiver."""
    _log.info("webhook.delivered", job_id=str(job_id), event_id=str(event_id), attempt=attempt, host=host)


def webhook_failed(
    job_id: Any, event_id: Any, attempt: int, host: str, error: str | None, retry_in_seconds: float | None
) -> None:
    """Log a failed attempt to deliver an event."""
    _log.warning(
        "webhook.failed",
        job_id=str(job_id),
        event_id=str(event_id),
        attempt=attempt,
        host=host,
        error=error,
        retry_in_seconds=retry_in_seconds and round(retry_in_seconds, 1),
    )


def webhook_given_up(job_id: Any, event_id: Any, attempt: int, host: str, error: str | None) -> None:
    """Log the end of delivery: too many attempts, a final refusal, or a rule against the URL."""
    _log.error("webhook.given_up", job_id=str(job_id), event_id=str(event_id), attempt=attempt, host=host, error=error)


def webhook_crashed(job_id: Any, event_id: Any, attempt: int, error: BaseException) -> None:
    """Log a bug in a delivery, with its stack."""
    _log.error("webhook.crashed", job_id=str(job_id), event_id=str(event_id), attempt=attempt, exc_info=error)


def webhooks_crashed(error: BaseException) -> None:
    """Log a bug in the search for due deliveries, with its stack; the search goes on."""
    _log.error("webhooks.crashed", exc_info=error)


# Database


def _for_operators(error: BaseException) -> str:
    return "; ".join([str(error).strip(), *getattr(error, "__notes__", [])])


def database_parameters_ignored(names: Sequence[str]) -> None:
    """Log, once per process, parameters of ``DATABASE_URL`` of other drivers."""
    if names:
        _log.info("database.parameters_ignored", names=list(names))


def database_lost(what: str, error: BaseException, retry_in_seconds: float) -> None:
    """Log a statement without an answer; a retry follows."""
    _log.warning("database.lost", what=what, error=_for_operators(error), retry_in_seconds=round(retry_in_seconds, 2))


def database_refuses(what: str, error: BaseException) -> None:
    """Log a statement refused by Postgres until an operator helps; logged at each change."""
    _log.error("database.refuses", what=what, error=_for_operators(error))


def row_refused(what: str, job_id: Any, error: BaseException) -> None:
    """Log a job's row refused by Postgres; other jobs of the batch were written."""
    _log.error("row.refused", what=what, job_id=str(job_id), error=_with_wording(error))


def submission_refused(job_id: Any, error: BaseException) -> None:
    """Log a caller's job refused by a rule of the database: 409 or 422."""
    _log.warning("submission.refused", job_id=str(job_id), error=_with_wording(error))


def _with_wording(error: BaseException) -> str:
    """Return the error with Postgres' message, without details, which show the row."""
    diagnostic = getattr(error.__cause__ or error, "diag", None)
    wording = None if diagnostic is None else diagnostic.message_primary
    # The text of psycopg's errors includes the details.
    said = wording if wording and hasattr(error, "diag") else str(error).strip()
    return said if not wording or wording in said else f"{said}: {wording}"


def database_back(what: str) -> None:
    """Log the first successful statement after a loss."""
    _log.info("database.back", what=what)


def circuit_opened(sync_fallback: bool, cause: str) -> None:
    """Log the loss of Postgres: callers are refused at once, or served without the queue if allowed.

    Where only commits stall, reads go on.
    """
    _log.warning("circuit.opened", sync_fallback=sync_fallback, cause=cause)


def circuit_closed(seconds_open: float) -> None:
    """Log the return of Postgres: submissions become jobs again."""
    _log.info("circuit.closed", seconds_open=round(seconds_open, 1))


def listener_up() -> None:
    """Log a working LISTEN: inserts wake the process."""
    _log.info("listener.up")


def listener_down(error: BaseException) -> None:
    """Log a lost or deaf LISTEN; polling covers the gap until ``listener.up``."""
    _log.warning("listener.down", error=str(error).strip() or "does not hear itself")


def redis_up(seconds_away: float) -> None:
    """Log the return of Redis, used from now on."""
    _log.info("redis.up", seconds_away=round(seconds_away, 1))


def redis_lost(error: BaseException | None) -> None:
    """Log the loss of Redis until ``redis.up``: no answer in time, or every command refused."""
    _log.warning("redis.lost", error=str(error).strip() or "no answer in time")


def redis_refuses(error: BaseException) -> None:
    """Log commands refused by Redis, as when memory is full; once until the next loss."""
    _log.warning("redis.refuses", error=str(error).strip())


def bull_keys_kept() -> None:
    """Log the process as keeper of BullMQ's keys in Redis."""
    _log.info("bull_keys.kept")


def bull_keys_foreign() -> None:
    """Log a queue "verification" of BullMQ itself in Redis, which stays untouched."""
    _log.warning(
        "bull_keys.foreign",
        hint="a real BullMQ queue is there: use another database or Redis, or remove its keys bull:verification:*",
    )


def migrated(names: list[str]) -> None:
    """Log the applied migrations."""
    _log.info("database.migrated", migrations=names)


def migration_waits(name: str, holders: list[str], *, seconds_left: float) -> None:
    """Log a migration without its locks; a retry follows."""
    _log.warning("migration.waits", migration=name, holders=holders, seconds_left=round(seconds_left))


# Web


def request_failed(correlation_id: str, method: str, path: str, error: BaseException) -> None:
    """Log a bug in a request, with its stack."""
    _log.error("request.failed", correlation_id=correlation_id, method=method, path=path, exc_info=error)


def request_served(
    correlation_id: str, method: str, path: str, route: str, status: int, duration_ms: float, client: str
) -> None:
    """Log one line per request; ``path`` has no query string, ``route`` is the matching template."""
    if _access is not None:
        stream, line = _access
        # A closed log must not fail a reply.
        with contextlib.suppress(OSError, ValueError):
            stream.write(line(correlation_id, method, path, route, status, duration_ms, client))
            stream.flush()


def request_refused(correlation_id: str, status: int, error: str) -> None:
    """Log an invalid request; the server answers and ends the connection."""
    _log.info("request.refused", correlation_id=correlation_id, status=status, error=error)


def client_gone(correlation_id: str, method: str, path: str) -> None:
    """Log a client gone before the request was complete."""
    _log.info("request.client_gone", correlation_id=correlation_id, method=method, path=path)


# API processes


def api_serving(pid: int) -> None:
    """Log an API process ready for connections."""
    _log.info("api.serving", pid=pid)


def api_draining(requests: int, deadline_seconds: float) -> None:
    """Log a requested stop: no new connections, and open requests may end."""
    _log.info("api.draining", requests=requests, deadline_seconds=deadline_seconds)


def api_stopped(interrupted: int) -> None:
    """Log the end of the process; ``interrupted`` requests were answered 503."""
    _log.info("api.stopped", interrupted=interrupted)


def api_process_ended(pid: int, code: int, restart_in_seconds: float) -> None:
    """Log the unexpected end of one of several API processes; another process replaces it."""
    _log.error("api.process_ended", pid=pid, code=code, restart_in_seconds=round(restart_in_seconds, 2))


def api_process_replaced(old_pid: int, new_pid: int) -> None:
    """Log a step of a rolling restart: the new process serves, the old one drains."""
    _log.info("api.process_replaced", old_pid=old_pid, new_pid=new_pid)


def api_restart_abandoned(kept_pid: int, reason: str) -> None:
    """Log a rolling restart without a new process; the old process stays."""
    _log.error("api.restart_abandoned", kept_pid=kept_pid, reason=reason)


# Observation


def traces_unavailable(remedy: str) -> None:
    """Log configured traces without installed packages; iidq runs without traces."""
    _log.warning("traces.unavailable", remedy=remedy)


def metrics_served(port: int) -> None:
    """Log the port of the worker's ``GET /metrics``."""
    _log.info("metrics.served", port=port)


def metrics_unavailable(port: int, error: BaseException) -> None:
    """Log an unusable metrics port; the worker runs without metrics."""
    _log.warning("metrics.unavailable", port=port, error=str(error))
