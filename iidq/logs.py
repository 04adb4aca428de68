"""Structured logging: how lines look, and every event that iidq logs.

Code calls the functions below and never words a message itself; what an operator can grep for is this list.
"""

import logging
import sys
from typing import Any, Literal, TextIO

import structlog

from iidq.redaction import redact_url

_log: structlog.stdlib.BoundLogger = structlog.get_logger("iidq")
# Two events per attempt are for debugging; asking structlog each time cost a tenth of a busy worker.
_debugging = False


def configure_logging(
    level: str = "info", form: Literal["text", "json"] | None = None, stream: TextIO | None = None
) -> None:
    """Log to ``stream`` (standard error), as text on a terminal and as JSON lines elsewhere unless ``form`` says."""
    global _debugging
    _debugging = level == "debug"
    stream = stream or sys.stderr
    form = form or ("text" if stream.isatty() else "json")
    renderer: Any = structlog.dev.ConsoleRenderer() if form == "text" else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.format_exc_info,
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


# Database


def database_lost(what: str, error: BaseException, retry_in_seconds: float) -> None:
    """A statement could not be sent or answered; it will be tried again."""
    _log.warning("database.lost", what=what, error=str(error).strip(), retry_in_seconds=round(retry_in_seconds, 2))


def database_back(what: str) -> None:
    """The statement went through again."""
    _log.info("database.back", what=what)


def listener_up() -> None:
    """LISTEN is in place: inserts wake this process."""
    _log.info("listener.up")


def listener_down(error: BaseException) -> None:
    """LISTEN is lost, or in place and deaf; polling covers the gap until ``listener.up``."""
    _log.warning("listener.down", error=str(error).strip() or "does not hear itself")


def migrated(names: list[str]) -> None:
    """Migrations were applied."""
    _log.info("database.migrated", migrations=names)


# Web


def request_failed(correlation_id: str, method: str, path: str, error: BaseException) -> None:
    """A request met an error that nobody foresaw: a bug, with its stack."""
    _log.error("request.failed", correlation_id=correlation_id, method=method, path=path, exc_info=error)


def request_served(**fields: Any) -> None:
    """One line per request."""
    _log.info("request.served", **fields)


def client_gone(correlation_id: str, method: str, path: str) -> None:
    """The client went away before the request was complete."""
    _log.info("request.client_gone", correlation_id=correlation_id, method=method, path=path)
