"""Structured logging: how lines look, and every event that iidq logs.

Code calls the functions below and never words a message itself; what an operator can grep for is this list.
"""

import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO

import structlog

from iidq.observability import access_log
from iidq.observability.redaction import redact_url

_log: structlog.stdlib.BoundLogger = structlog.get_logger("iidq")
# Two events per attempt are for debugging; asking structlog each time cost a tenth of a busy worker.
_debugging = False
# Where access lines go and how they look; None: nobody asked for them.
_access: tuple[TextIO, access_log.AccessLine] | None = None


def configure_logging(
    level: str = "info", form: Literal["text", "json"] | None = None, stream: TextIO | None = None
) -> None:
    """Log to ``stream`` (standard error), as text on a terminal and as JSON lines elsewhere unless ``form`` says."""
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
    """The worker accepts jobs."""
    _log.info("worker.started", worker_id=worker_id, concurrency=concurrency)


def worker_draining(running: int, deadline_seconds: float) -> None:
    """A stop was asked for: no more claims, running jobs may end."""
    _log.info("worker.draining", running=running, deadline_seconds=deadline_seconds)


def worker_stopped(worker_id: str, released: int) -> None:
    """The worker is gone; ``released`` jobs were given back uncharged."""
    _log.info("worker.stopped", worker_id=worker_id, released=released)


def attempt_started(job_id: Any, attempt: int, kind: str) -> None:
    """A job was claimed and runs."""
    if _debugging:
        _log.debug("attempt.started", job_id=str(job_id), attempt=attempt, type=kind)


def attempt_ended(job_id: Any, attempt: int, status: str) -> None:
    """The attempt's outcome goes to the store."""
    if _debugging:
        _log.debug("attempt.ended", job_id=str(job_id), attempt=attempt, status=status)


def attempt_failed(job_id: Any, attempt: int, error: str, retry_in_seconds: float | None) -> None:
    """The attempt failed; null ``retry_in_seconds`` means that the job failed with it."""
    _log.warning("attempt.failed", job_id=str(job_id), attempt=attempt, error=error, retry_in_seconds=retry_in_seconds)


def attempt_crashed(job_id: Any, attempt: int, error: BaseException) -> None:
    """The attempt met an error that nobody foresaw: a bug, with its stack."""
    _log.error("attempt.crashed", job_id=str(job_id), attempt=attempt, exc_info=error)


def background_crashed(what: str, error: BaseException, restart_in_seconds: float | None = None) -> None:
    """Something that runs beside the requests or jobs met an error that nobody foresaw: a bug, with its stack.

    Without ``restart_in_seconds`` it does not begin again.
    """
    _log.error("background.crashed", what=what, restart_in_seconds=restart_in_seconds, exc_info=error)


def process_hangs(seconds: float) -> None:
    """The process was asked to end, or failed, and is still there after so long: it is ended as it is."""
    _log.error("process.hangs", seconds=seconds)


def lease_lost(job_id: Any, attempt: int) -> None:
    """Another worker holds the job now; this attempt's outcome is dropped."""
    _log.warning("lease.lost", job_id=str(job_id), attempt=attempt)


def lease_expired(job_id: Any, attempt: int, status: str) -> None:
    """A worker fell silent; its job went to ``status``."""
    _log.warning("lease.expired", job_id=str(job_id), attempt=attempt, status=status)


def attempt_cancelled(job_id: Any, attempt: int) -> None:
    """Somebody cancelled the job while it ran; the attempt was interrupted."""
    _log.info("attempt.cancelled", job_id=str(job_id), attempt=attempt)


def purged(count: int) -> None:
    """Retention removed old jobs."""
    _log.info("upkeep.purged", count=count)


# Webhooks


def webhook_delivered(job_id: Any, event_id: Any, attempt: int, host: str) -> None:
    """The receiver took the event."""
    _log.info("webhook.delivered", job_id=str(job_id), event_id=str(event_id), attempt=attempt, host=host)


def webhook_failed(
    job_id: Any, event_id: Any, attempt: int, host: str, error: str | None, retry_in_seconds: float | None
) -> None:
    """The receiver did not take the event this time."""
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
    """The event is not delivered any more: tried often enough, refused for good, or forbidden by a rule."""
    _log.error("webhook.given_up", job_id=str(job_id), event_id=str(event_id), attempt=attempt, host=host, error=error)


def webhook_crashed(job_id: Any, event_id: Any, attempt: int, error: BaseException) -> None:
    """A delivery met an error that nobody foresaw: a bug, with its stack."""
    _log.error("webhook.crashed", job_id=str(job_id), event_id=str(event_id), attempt=attempt, exc_info=error)


def webhooks_crashed(error: BaseException) -> None:
    """The search for due deliveries met an error that nobody foresaw; it goes on in a moment: a bug, with its stack."""
    _log.error("webhooks.crashed", exc_info=error)


# Database


def _for_operators(error: BaseException) -> str:
    return "; ".join([str(error).strip(), *getattr(error, "__notes__", [])])


def database_parameters_ignored(names: Sequence[str]) -> None:
    """Parameters of ``DATABASE_URL`` mean nothing here, such as those of another driver's pool; once per process."""
    if names:
        _log.info("database.parameters_ignored", names=list(names))


def database_lost(what: str, error: BaseException, retry_in_seconds: float) -> None:
    """A statement could not be sent or answered; it will be tried again."""
    _log.warning("database.lost", what=what, error=_for_operators(error), retry_in_seconds=round(retry_in_seconds, 2))


def database_refuses(what: str, error: BaseException) -> None:
    """Postgres answers and refuses; tried again, but only an operator can help. Logged when it changes."""
    _log.error("database.refuses", what=what, error=_for_operators(error))


def row_refused(what: str, job_id: Any, error: BaseException) -> None:
    """Postgres refuses what is to be written for this job; the other jobs of the batch were written without it."""
    _log.error("row.refused", what=what, job_id=str(job_id), error=_with_wording(error))


def submission_refused(job_id: Any, error: BaseException) -> None:
    """A constraint or trigger of the database refuses a caller's job: 409 or 422."""
    _log.warning("submission.refused", job_id=str(job_id), error=_with_wording(error))


def _with_wording(error: BaseException) -> str:
    """Return Postgres' own sentence as well, without its details: these show the row."""
    diagnostic = getattr(error.__cause__ or error, "diag", None)
    wording = None if diagnostic is None else diagnostic.message_primary
    # The text of an error of psycopg's has the details, too.
    said = wording if wording and hasattr(error, "diag") else str(error).strip()
    return said if not wording or wording in said else f"{said}: {wording}"


def database_back(what: str) -> None:
    """The statement went through again."""
    _log.info("database.back", what=what)


def circuit_opened(sync_fallback: bool, cause: str) -> None:
    """The API has lost Postgres: callers are refused at once, and submissions processed at once if that is allowed.

    Where only commits stall, reads go on.
    """
    _log.warning("circuit.opened", sync_fallback=sync_fallback, cause=cause)


def circuit_closed(seconds_open: float) -> None:
    """Postgres is back: submissions become jobs again."""
    _log.info("circuit.closed", seconds_open=round(seconds_open, 1))


def listener_up() -> None:
    """LISTEN is in place: inserts wake this process."""
    _log.info("listener.up")


def listener_down(error: BaseException) -> None:
    """LISTEN is lost, or in place and deaf; polling covers the gap until ``listener.up``."""
    _log.warning("listener.down", error=str(error).strip() or "does not hear itself")


def redis_up(seconds_away: float) -> None:
    """Redis answers, and accelerates from now on."""
    _log.info("redis.up", seconds_away=round(seconds_away, 1))


def redis_lost(error: BaseException | None) -> None:
    """Redis does not answer in time or refuses everything; all goes on without it, until ``redis.up``."""
    _log.warning("redis.lost", error=str(error).strip() or "no answer in time")


def redis_refuses(error: BaseException) -> None:
    """Redis is there and does not do what it is asked, as when its memory is full; said once until it was away."""
    _log.warning("redis.refuses", error=str(error).strip())


def bull_keys_kept() -> None:
    """BullMQ's keys in Redis are kept by this process from now on."""
    _log.info("bull_keys.kept")


def bull_keys_foreign() -> None:
    """The Redis has a queue "verification" that BullMQ itself keeps; it is left alone."""
    _log.warning(
        "bull_keys.foreign",
        hint="a real BullMQ queue is there: use another database or Redis, or remove its keys bull:verification:*",
    )


def migrated(names: list[str]) -> None:
    """Migrations were applied."""
    _log.info("database.migrated", migrations=names)


def migration_waits(name: str, holders: list[str], *, seconds_left: float) -> None:
    """A migration did not get its locks, let the others go first, and will try again."""
    _log.warning("migration.waits", migration=name, holders=holders, seconds_left=round(seconds_left))


# Web


def request_failed(correlation_id: str, method: str, path: str, error: BaseException) -> None:
    """A request met an error that nobody foresaw: a bug, with its stack."""
    _log.error("request.failed", correlation_id=correlation_id, method=method, path=path, exc_info=error)


def request_served(
    correlation_id: str, method: str, path: str, route: str, status: int, duration_ms: float, client: str
) -> None:
    """One line per request; ``path`` is without its query string, ``route`` the template that it met."""
    if _access is not None:
        stream, line = _access
        # A reply is not to fail because nobody reads the log any more.
        with contextlib.suppress(OSError, ValueError):
            stream.write(line(correlation_id, method, path, route, status, duration_ms, client))
            stream.flush()


def request_refused(correlation_id: str, status: int, error: str) -> None:
    """What came is no request that could be served: the server itself answered, and ends the connection."""
    _log.info("request.refused", correlation_id=correlation_id, status=status, error=error)


def client_gone(correlation_id: str, method: str, path: str) -> None:
    """The client went away before the request was complete."""
    _log.info("request.client_gone", correlation_id=correlation_id, method=method, path=path)


# API processes


def api_serving(pid: int) -> None:
    """An API process accepts connections."""
    _log.info("api.serving", pid=pid)


def api_draining(requests: int, deadline_seconds: float) -> None:
    """A stop was asked for: no new connections are accepted, and open requests may end."""
    _log.info("api.draining", requests=requests, deadline_seconds=deadline_seconds)


def api_stopped(interrupted: int) -> None:
    """The process is done; ``interrupted`` requests were told to come back."""
    _log.info("api.stopped", interrupted=interrupted)


def api_process_ended(pid: int, code: int, restart_in_seconds: float) -> None:
    """One of several API processes ended by itself; another takes its place."""
    _log.error("api.process_ended", pid=pid, code=code, restart_in_seconds=round(restart_in_seconds, 2))


def api_process_replaced(old_pid: int, new_pid: int) -> None:
    """Rolling restart: the new process serves, the old one ends its requests and goes."""
    _log.info("api.process_replaced", old_pid=old_pid, new_pid=new_pid)


def api_restart_abandoned(kept_pid: int, reason: str) -> None:
    """Rolling restart: the new process did not come up, so the old one stays."""
    _log.error("api.restart_abandoned", kept_pid=kept_pid, reason=reason)


# Observation


def traces_unavailable(remedy: str) -> None:
    """The environment asks for traces, and their packages are not installed; iidq runs without them."""
    _log.warning("traces.unavailable", remedy=remedy)


def metrics_served(port: int) -> None:
    """The worker answers ``GET /metrics`` there."""
    _log.info("metrics.served", port=port)


def metrics_unavailable(port: int, error: BaseException) -> None:
    """The worker's metrics port cannot be bound (another worker's?); the worker runs without it."""
    _log.warning("metrics.unavailable", port=port, error=str(error))
