"""Limits of the measured Postgres: pgbench with the least SQL, and with iidq's own statements."""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import psycopg

from benchmarks.bench import Bench
from benchmarks.figures.drain import filled
from benchmarks.server import STATEMENTS, execute, pgbench
from iidq.database.queries import load_queries

QUERIES = load_queries("iidq.queue")

_BATCH = 100
_PSYCOPG_PARAMETER = re.compile(r"%\((\w+)\)[sb]")
_COMMENT = re.compile(r"--[^\n]*")
_RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
# With -r: milliseconds, failures, and the statement's first line.
_LATENCY = re.compile(r"^ +([0-9]+\.[0-9]+) +\d+ ", re.MULTILINE)
_WORKER = "pgbench"
# The result of a drain's handler. After each colon a space: pgbench takes a colon and a letter for a variable.
_RESULT = json.dumps(
    {
        "status": "OK",
        "fileHash": "0x" + "c0" * 32,
        "recovered": "0x" + "5a" * 20,
        "onchain": {
            "creator": "0x" + "5a" * 20,
            "contentHash": "0x" + "c0" * 32,
            "manifestURI": "ipfs://bafkrei" + "c0" * 26,
            "timestamp": 1_700_000_000,
        },
        "checks": {"manifestHashOk": True, "creatorOk": True, "manifestOk": True},
    }
)


class PgbenchFailed(Exception):
    """pgbench failed; the message is pgbench's output."""


def insert16(bench: Bench) -> dict[str, float]:
    """Insert a row per transaction, with 16 clients."""
    with bench.server.empty_database() as url, _script("insert.sql") as script:
        _make_table(url, 0)
        rate = _transactions_per_second(
            url, script, "-c", "16", "-j", "2", "-T", f"{max(1, round(bench.options.floor_seconds))}"
        )
    return {"floor_insert16": rate}


def batch(bench: Bench) -> dict[str, float]:
    """Claim 100, complete 100, with one client, until all rows are done."""
    rows = bench.options.floor_rows
    with bench.server.empty_database() as url, _script("claim_and_complete.sql") as script:
        _make_table(url, rows)
        rate = _transactions_per_second(url, script, "-c", "1", "-t", f"{max(1, rows // _BATCH)}")
    return {"floor_batch": rate * _BATCH}


def same_statements(bench: Bench) -> dict[str, float]:
    """Run iidq's claim and outcome over the rows of a drain, one after the other, with one client.

    The batch is as large as the drain's. The look-up of claimed rows, needed by pgbench alone, is not counted.
    """
    jobs = bench.options.jobs
    size = min(bench.options.concurrency, jobs)
    script = bench.server.scratch / "same_statements.sql"
    script.write_text(_own_statements(size))
    with filled(bench, jobs) as url:
        said = _pgbench(url, script, "-r", "-c", "1", "-t", f"{max(1, jobs // size)}")
    claim_ms, _look_up_ms, store_ms = (float(each) for each in _LATENCY.findall(said))
    return {"floor_same": size * 1000 / (claim_ms + store_ms)}


def _make_table(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(files("benchmarks").joinpath("pgbench/table.sql").read_bytes())
        connection.execute(STATEMENTS["fill_floor"], {"rows": rows})
    execute(url, STATEMENTS["vacuum_floor"])
    execute(url, STATEMENTS["checkpoint"])


@contextlib.contextmanager
def _script(name: str) -> Iterator[Path]:
    with as_file(files("benchmarks").joinpath("pgbench", name)) as path:
        yield path


def _pgbench(url: str, script: Path, *arguments: str) -> str:
    done = subprocess.run(
        [pgbench(), "-n", "-M", "prepared", "-f", script, *arguments, url],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode or not _RATE.search(done.stdout):
        raise PgbenchFailed(done.stderr.strip()[-2000:])
    return done.stdout


def _transactions_per_second(url: str, script: Path, *arguments: str) -> float:
    """Return pgbench's rate, without the time for connecting."""
    [rate] = _RATE.findall(_pgbench(url, script, *arguments))
    return float(rate)


def _own_statements(size: int) -> str:
    """Return a pgbench script: claim, look up the held rows, store outcomes."""
    values = {
        "worker_id": f"'{_WORKER}'",
        "slots": str(size),
        "lease_seconds": "30",
        "from_order": "'-infinity'::float8",
        "only": "NULL::uuid[]",
        "ids": ":ids",
        "outcomes": ":outcomes",
        "result": f"'{_RESULT}'",
    }
    claim, look_up, store = (
        _COMMENT.sub("", _PSYCOPG_PARAMETER.sub(lambda match: values[match[1]], statement.decode())).replace("%%", "%")
        for statement in (QUERIES["claim"], STATEMENTS["held_by"], QUERIES["store_outcomes"])
    )
    return f"{claim};\n{look_up} \\gset\n{store};\n"
