"""Every figure: unit, group and references."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.bench import Measurement
from benchmarks.figures import (
    adverse,
    drain,
    enqueue,
    floor,
    http_load,
    idle,
    latency,
    mixed,
    readers,
    redis,
    redis_faults,
    upload,
    verify,
    whole_way,
)

Reference = str | float


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the catalogue: ``name``, ``unit``, ``group`` and ``measurement``.

    ``references``: label → figure or number to divide by; empty by default.
    """

    name: str
    unit: str
    group: str
    measurement: Measurement
    references: Mapping[str, Reference] = field(default_factory=dict)


def _to(*figures: str) -> dict[str, Reference]:
    return {figure: figure for figure in figures}


_RATE = "jobs/s"
_REQUESTS = "requests/s"
_SPEED = "Gbit/s"

FIGURES: Sequence[Figure] = (
    Figure("floor_insert16", _RATE, "floor", floor.insert16),
    Figure("floor_batch", _RATE, "floor", floor.batch),
    Figure("floor_same", _RATE, "floor", floor.same_statements, _to("floor_batch")),
    Figure("enqueue16", _RATE, "enqueue", enqueue.enqueue16, _to("floor_insert16")),
    Figure("enqueue256", _RATE, "enqueue", enqueue.enqueue256, _to("floor_insert16")),
    Figure("drain1", _RATE, "drain", drain.drain1, _to("floor_batch", "floor_same")),
    Figure("drain2", _RATE, "drain", drain.drain2, _to("floor_batch", "drain1")),
    Figure("latency_p50_ms", "ms", "latency", latency.latency),
    Figure("latency_p99_ms", "ms", "latency", latency.latency),
    Figure("history", _RATE, "adverse", adverse.history, _to("drain1", "floor_batch")),
    Figure("history_imported", _RATE, "adverse", adverse.history_imported, _to("drain1", "floor_batch")),
    Figure("delayed", _RATE, "adverse", adverse.delayed, _to("drain1", "floor_batch")),
    Figure("proofs", _RATE, "adverse", adverse.proofs, _to("drain1", "floor_batch")),
    Figure("horizon", _RATE, "adverse", adverse.horizon, _to("drain1", "floor_batch")),
    Figure("retention", _RATE, "adverse", adverse.retention, _to("drain1", "floor_batch")),
    Figure("mixed", _RATE, "mixed", mixed.mixed, {"ideal": mixed.IDEAL_PER_SECOND}),
    Figure("idle_transactions_per_poll", "transactions", "idle", idle.idle),
    Figure("idle_cpu_percent", "% of a core", "idle", idle.idle),
    Figure("read_stats_p99_ms", "ms", "read", readers.readers),
    Figure("read_page1_p99_ms", "ms", "read", readers.readers),
    Figure("read_page10000_p99_ms", "ms", "read", readers.readers, _to("read_page1_p99_ms")),
    Figure("read_job_p99_ms", "ms", "read", readers.readers),
    Figure("web3_cpu_ms", "ms/job", "verify", verify.with_web3),
    Figure("web3_per_s", _RATE, "verify", verify.with_web3),
    Figure("verify_cpu_ms", "ms/job", "verify", verify.verify, _to("web3_cpu_ms")),
    Figure("verify_per_s", _RATE, "verify", verify.verify, _to("web3_per_s")),
    Figure("http_bare", _REQUESTS, "http", http_load.bare),
    Figure("http_submit", _REQUESTS, "http", http_load.submit, _to("http_bare")),
    Figure("http_get", _REQUESTS, "http", http_load.get, _to("http_bare")),
    Figure("http_get_p99_ms", "ms", "http", http_load.get),
    Figure("post_to_completed_p50_ms", "ms", "http", whole_way.post_to_completed),
    Figure("post_to_completed_p99_ms", "ms", "http", whole_way.post_to_completed),
    Figure("plain_step_p50_ms", "ms", "redis", redis.watched),
    Figure("redis_step_p50_ms", "ms", "redis", redis.watched, _to("plain_step_p50_ms")),
    Figure("plain_queries_per_job", "statements", "redis", redis.watched),
    Figure("redis_queries_per_job", "statements", "redis", redis.watched, _to("plain_queries_per_job")),
    Figure("redis_calm_p99_ms", "ms", "redis", redis_faults.under_load),
    Figure("redis_faults_p99_ms", "ms", "redis", redis_faults.under_load, _to("redis_calm_p99_ms")),
    Figure("redis_back_seconds", "s", "redis", redis_faults.under_load),
    Figure("sha256_gbps", _SPEED, "upload", upload.sha256),
    Figure("upload_gbps", _SPEED, "upload", upload.upload, _to("sha256_gbps")),
    Figure("upload8_gbps", _SPEED, "upload", upload.upload, _to("sha256_gbps", "upload_gbps")),
    Figure("upload_memory_mib", "MiB", "upload", upload.upload),
    Figure("upload8_memory_mib", "MiB", "upload", upload.upload),
)


class UnknownFigure(Exception):
    """The name is neither a figure nor a group."""


def groups() -> dict[str, list[str]]:
    """Return the figures of each group, in the order of measurement."""
    found: dict[str, list[str]] = {}
    for figure in FIGURES:
        found.setdefault(figure.group, []).append(figure.name)
    return found


def select(names: Iterable[str]) -> list[Figure]:
    """Return the chosen figures or groups with their references; all figures without a name.

    Raises :class:`UnknownFigure`.
    """
    by_name = {figure.name: figure for figure in FIGURES}
    by_group = groups()
    waiting: list[str] = []
    for name in list(names) or list(by_name):
        if name not in by_group and name not in by_name:
            raise UnknownFigure(f"{name!r} is neither a figure nor a group; expected one of:\n{described()}")
        waiting += by_group.get(name, [name])
    wanted: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += (label for label in by_name[name].references.values() if isinstance(label, str))
    return [figure for figure in FIGURES if figure.name in wanted]


def described() -> str:
    """Return groups and figures, with a line per group."""
    return "\n".join(f"  {group}: {', '.join(names)}" for group, names in groups().items())
