"""Every metric of iidq, by Prometheus' names, and the functions that count.

Every label has few values: no path, method or host of a client or an upstream. Children are looked up once and kept,
so that counting costs about a dictionary look-up. The queue's depth is read at a scrape by ``web/routes/scrape.py``.
"""

from collections import Counter as Counts
from collections.abc import Callable, Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# No alert uses the birth of a series, which doubles the length of a scrape.
disable_created_metrics()

REGISTRY: Final = CollectorRegistry()
"""Metrics of this process; ``exposition.py`` adds up several processes."""

Upstream = Literal["gateway", "rpc", "web", "webhook"]
Step = Literal["hash", "manifest", "signature", "registry", "wallet", "transaction", "store"]
STEPS: Final[tuple[Step, ...]] = ("hash", "manifest", "signature", "registry", "wallet", "transaction", "store")

_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WORK_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER: Final = "other"
# Second parts of error codes: `fetch.timeout` is a "timeout".
_UPSTREAM_FAULTS: Final = frozenset({
    "bad_car", "block_unknown", "chain_mismatch", "chain_not_configured", "closed", "http_status", "limited",
    "nonsense", "not_found", "not_here", "not_json", "refused", "reorg", "reverted", "slow", "stale", "status",
    "timeout", "too_large", "too_long", "unavailable", "unreachable", "withheld", "wrong_bytes", "wrong_chain",
})  # fmt: skip


class _Children(dict[tuple[str, ...], Counter]):
    """A counter's children by label values, each made once."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __missing__(self, values: tuple[str, ...]) -> Counter:
        child = self[values] = self._counter.labels(*values)
        return child


def _counter(name: str, meaning: str) -> Counter:
    return Counter(f"iidq_{name}", meaning, registry=REGISTRY)


def _counters(name: str, meaning: str, *labels: str) -> _Children:
    return _Children(Counter(f"iidq_{name}", meaning, labels, registry=REGISTRY))


def _seconds(name: str, meaning: str, *labels: str, buckets: Sequence[float] = _WORK_BUCKETS) -> Histogram:
    return Histogram(f"iidq_{name}_seconds", meaning, labels, buckets=buckets, registry=REGISTRY)


def _gauge(name: str, meaning: str, mode: Literal["livesum", "livemin", "livemax"], *labels: str) -> Gauge:
    return Gauge(f"iidq_{name}", meaning, labels, multiprocess_mode=mode, registry=REGISTRY)


# API

_REQUESTS: Final = Counter(
    "iidq_http_requests",
    "Requests answered. Status 499: the client went away before its reply; 0: no reply was begun",
    ("method", "route", "status"),
    registry=REGISTRY,
)
_REQUEST_SECONDS: Final = _seconds(
    "http_request_duration",
    "From a request's headers to the end of its reply, uploads and waits included",
    "route",
    buckets=_REQUEST_BUCKETS,
)
_UPLOADS: Final = _counter("uploads", "Files uploaded and hashed to their end")
_UPLOAD_BYTES: Final = _counter("upload_bytes", "Bytes of files uploaded and hashed")
_UPLOAD_SECONDS: Final = _seconds(
    "upload_duration", "How long an upload took from its first byte to its hash; slow clients make it long"
)
_rate_limited: Final = _counters("rate_limited_requests", "Requests answered with 429", "limit")
_synchronous: Final = _counters(
    "synchronous_runs",
    "Verifications inside a request, fallbacks and legacy calls; refused: too many were running",
    "outcome",
)
_FALLBACKS: Final = _counter(
    "synchronous_fallbacks", "Submissions verified inside their request because the queue was not available"
)

# Worker

_attempts: Final = _counters(
    "attempts",
    "Attempts ended: completed, failed, retried, released, lost (another worker has it), cancelled",
    "outcome",
)
_ATTEMPT_SECONDS: Final = _seconds(
    "attempt_duration", "From the start of an attempt to its outcome, before that is stored"
)
_LEASES_LOST: Final = _counter("leases_lost", "Jobs whose lease this worker lost while it ran them")
_LEASES_EXPIRED: Final = _counter("leases_expired", "Jobs taken back from workers that fell silent")
_RUNNING: Final = _gauge("worker_running_jobs", "Jobs between their claim and their stored outcome", "livesum")
_SLOTS: Final = _gauge("worker_slots", "Jobs that this worker runs at a time", "livesum")
_LISTENING: Final = _gauge(
    "listening",
    "1 while the process's LISTEN connection hears itself, 0 while it is deaf and polls",
    "livemin",
    "listener",
)
_webhooks: Final = _counters(
    "webhook_deliveries",
    "Tries to deliver a webhook, by the state after them: delivered, pending (tried again later), or given up",
    "state",
)

# Verification, in workers and in synchronous runs

_verdicts: Final = _counters("verdicts", "Verdicts found", "type", "status")
_STEP_SECONDS: Final = _seconds(
    "verification_step_duration",
    "How long each step of a verification took; hash is the API's upload, store is one batch of outcomes",
    "step",
)
_step_seconds: Final = {step: _STEP_SECONDS.labels(step) for step in STEPS}
_upstream_requests: Final = _counters("upstream_requests", "Questions to what verifications depend on", "upstream")
_upstream_errors: Final = _counters("upstream_errors", "Questions that got no usable answer", "upstream", "error")

# Redis

_REDIS_STATE: Final = _gauge(
    "redis_state",
    "1 for the state in which this process finds Redis: up, or open (the circuit); none where Redis is not used",
    "livemax",
    "state",
)
_REDIS_CHANGED: Final = _gauge(
    "redis_last_change_timestamp_seconds",
    "When that state came about, in seconds since 1970; 0 where Redis is not used",
    "livemax",
)
_redis_commands: Final = _counters(
    "redis_commands",
    "Commands for Redis: answered, failed (an error or a time-out), or refused unsent while the circuit is open",
    "outcome",
)
_redis_reads: Final = _counters(
    "redis_reads", "Values asked for: hit, miss, or rejected because they were forged or outdated", "use", "outcome"
)

_requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}


def request_served(method: str, route: str, status: int, seconds: float) -> None:
    """Count an answered request; ``route`` is a template, never the path."""
    key = (method if method in _METHODS else _OTHER, route, status)
    children = _requests.get(key)
    if children is None:
        children = _requests[key] = (_REQUESTS.labels(key[0], route, str(status)), _REQUEST_SECONDS.labels(route))
    children[0].inc()
    children[1].observe(seconds)


def upload_hashed(size_bytes: int, seconds: float) -> None:
    """Count a completely received and hashed file."""
    _UPLOADS.inc()
    _UPLOAD_BYTES.inc(size_bytes)
    _UPLOAD_SECONDS.observe(seconds)
    _step_seconds["hash"].observe(seconds)


def rate_limited(limit: str) -> None:
    """Count a request answered with 429 because of ``limit``, submit or read."""
    _rate_limited[(limit,)].inc()


def synchronous_run(outcome: Literal["completed", "failed", "refused"]) -> None:
    """Count a verification inside its request; refused: too many were running."""
    _synchronous[(outcome,)].inc()


def synchronous_fallback() -> None:
    """Count a submission verified inside its request because the queue is not available."""
    _FALLBACKS.inc()


def worker_starts(slots: int, running: Callable[[], int]) -> None:
    """Set the worker's slots; a scrape calls ``running`` for the number of running jobs."""
    _SLOTS.set(slots)
    _RUNNING.set_function(running)


AttemptEnd = Literal["completed", "failed", "retried", "released", "lost", "cancelled"]


def attempts_ended(ends: Sequence[tuple[AttemptEnd, float | None]]) -> None:
    """Count ended attempts with their seconds; None: the attempt never started."""
    for outcome, attempts in Counts(outcome for outcome, _ in ends).items():
        _attempts[(outcome,)].inc(attempts)
    for _, seconds in ends:
        if seconds is not None:
            _ATTEMPT_SECONDS.observe(seconds)


def lease_lost(seconds: float | None) -> None:
    """Count a lost lease and its attempt, which lasted ``seconds``."""
    _LEASES_LOST.inc()
    attempts_ended([("lost", seconds)])


def leases_expired(count: int) -> None:
    """Count jobs taken back from silent workers."""
    _LEASES_EXPIRED.inc(count)


def listening(listener: Literal["jobs", "changes"], hears: bool) -> None:
    """Set whether the process's LISTEN connection receives its own notifications."""
    _LISTENING.labels(listener).set(hears)


def webhook_tried(state: str, error: str | None) -> None:
    """Count a delivery attempt that led to ``state``; ``error`` is None or ``"code: message"``."""
    _webhooks[(state,)].inc()
    upstream_asked("webhook")
    if error is not None:
        upstream_failed("webhook", error.partition(":")[0])


def verdict_found(kind: str, status: str) -> None:
    """Count a verdict OK, WARN or FAIL; ``kind`` is verify or proof."""
    _verdicts[kind, status].inc()


def step_ended(step: Step, seconds: float) -> None:
    """Observe the duration of a step of a verification, also of a failed one."""
    _step_seconds[step].observe(seconds)


def upstream_asked(upstream: Upstream) -> None:
    """Count a request to a gateway, an RPC endpoint, a web server or a webhook receiver."""
    _upstream_requests[(upstream,)].inc()


def upstream_failed(upstream: Upstream, code: str) -> None:
    """Count a request without a usable answer; ``code`` is the error's."""
    error = code.split(".")[1] if "." in code else code
    _upstream_errors[upstream, error if error in _UPSTREAM_FAULTS else _OTHER].inc()


def redis_changed(state: Literal["up", "open"], since: float) -> None:
    """Set the state of the circuit to Redis, closed (up) or open, since ``since`` (seconds since 1970)."""
    for each in ("up", "open"):
        _REDIS_STATE.labels(each).set(each == state)
    _REDIS_CHANGED.set(since)


def redis_command(outcome: Literal["answered", "failed", "refused"]) -> None:
    """Count a command: answered, failed, or refused because the circuit is open."""
    _redis_commands[(outcome,)].inc()


def redis_read(use: str, outcome: Literal["hit", "miss", "rejected"]) -> None:
    """Count a read of a value; ``use`` is one of ``REDIS_USE``."""
    _redis_reads[use, outcome].inc()
