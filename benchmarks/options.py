"""The sizes of a run, and the command line to set the sizes."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes of the measurements; the defaults are the sizes of the published table.

    Meanings and units are in ``_MEANINGS``, the help of the command line. All sizes are greater than 0.
    """

    runs: int = 3
    jobs: int = 20_000
    enqueue_jobs: int = 20_000
    concurrency: int = 1_000
    limit_seconds: float = 100.0
    floor_seconds: float = 5.0
    floor_rows: int = 400_000
    history_rows: int = 1_000_000
    delayed_rows: int = 100_000
    proof_rows: int = 100_000
    latency_jobs: int = 300
    latency_gap_ms: float = 20.0
    mixed_jobs: int = 2_400
    idle_seconds: float = 30.0
    verify_jobs: int = 4_000
    http_seconds: float = 5.0
    http_connections: int = 64
    upload_mib: int = 1_024
    posts: int = 200
    reads: int = 300
    watched_jobs: int = 50
    fault_seconds: float = 15.0


QUICK = Options(
    runs=1,
    jobs=2_000,
    enqueue_jobs=2_000,
    floor_seconds=1.0,
    floor_rows=20_000,
    history_rows=20_000,
    delayed_rows=2_000,
    proof_rows=2_000,
    latency_jobs=30,
    mixed_jobs=120,
    idle_seconds=3.0,
    verify_jobs=200,
    http_seconds=1.0,
    upload_mib=32,
    posts=20,
    reads=20,
    watched_jobs=10,
    fault_seconds=5.0,
)
"""Sizes of a quick check of all measurements; the figures mean nothing."""

_MEANINGS = {
    "runs": "how often each figure is measured, each time on a fresh database; the median counts",
    "jobs": "jobs per drain",
    "enqueue_jobs": "jobs per enqueue figure",
    "concurrency": "WORKER_CONCURRENCY of the drains",
    "limit_seconds": "when a drain is given up",
    "floor_seconds": "length of a pgbench run",
    "floor_rows": "rows that pgbench claims and completes",
    "history_rows": "finished rows there before, for history and the readers",
    "delayed_rows": "delayed rows there before, for delayed",
    "proof_rows": "waiting proofs behind the verifies, for proofs",
    "latency_jobs": "jobs of the latency figures",
    "latency_gap_ms": "pause between them",
    "mixed_jobs": "jobs of 50 ms each for mixed",
    "idle_seconds": "how long an idle worker is watched",
    "verify_jobs": "verifications, each of its own manifest",
    "http_seconds": "length of a load on HTTP",
    "http_connections": "connections of that load",
    "upload_mib": "size of an upload",
    "posts": "jobs from POST to completed",
    "reads": "requests per reader figure",
    "watched_jobs": "jobs that are watched with Redis, and as many without",
    "fault_seconds": "length of the load with a healthy Redis, and of that with one that dies",
}


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the command line.

    ``figures``: names of figures or groups, empty for all. ``options``: sizes. ``json_path``: file for the figures as
    JSON, None for no file. ``peers``: names of peers, with programs in ``peers_folder``.
    """

    figures: tuple[str, ...]
    options: Options
    json_path: Path | None
    peers: tuple[str, ...]
    peers_folder: Path | None


def parse(arguments: Sequence[str], names: str) -> Request:
    """Read the command line; ``names`` is the list of figures for ``--help``. Ends the program on a bad line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures iidq beside the machine's own limits. BENCH_PG_DSN (a libpq URL of a superuser) "
        "names a Postgres to use; without it one is started.",
        epilog=names,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help="figures or groups; all without any")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run: does everything work?")
    parser.add_argument(
        "--peers", default="", metavar="NAMES", help="comma-separated peers to measure in the same rounds"
    )
    parser.add_argument("--peers-folder", type=Path, metavar="DIR", help="where the peers' bench.py is")
    for field in fields(Options):
        default = getattr(Options(), field.name)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(default),
            metavar="N",
            help=f"{_MEANINGS[field.name]} ({default:g})",
        )
    given = vars(parser.parse_args(arguments))
    base = QUICK if given["quick"] else Options()
    sizes = {
        field.name: given[field.name] if given[field.name] is not None else getattr(base, field.name)
        for field in fields(Options)
    }
    for name, size in sizes.items():
        if size <= 0:
            parser.error(f"--{name.replace('_', '-')} must be more than 0")
    peers = tuple(name for name in given["peers"].split(",") if name)
    if peers and given["peers_folder"] is None:
        parser.error("--peers needs --peers-folder")
    return Request(tuple(given["figures"]), Options(**sizes), given["json"], peers, given["peers_folder"])
